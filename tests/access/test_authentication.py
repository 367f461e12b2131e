"""Keys and patterns by themselves, and the second look at a key, in the snapshot that answers or the transaction that
writes."""

from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from apps.access import last_use
from apps.access.authentication import recognize
from apps.access.authorization import common, matches
from apps.access.credentials import PresentedKey, PresentedToken, hash_key, new_key, new_key_id, parse, presented
from apps.access.keys import create_key, revoke_key, rotate_key, update_key
from apps.access.requests import NOBODY, SERVER, Answer, Refused, Request, current_principal
from apps.access.transactions import write_transaction
from apps.libraries.inputs import LibraryCreate
from apps.libraries.services.libraries import create_library
from apps.search.snapshots import open_snapshot, read_rows
from apps.telemetry.observation import Observation
from vectordb.asgi import application

asks_database = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
PATH = "/api/v1/libraries"


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # When a key was used is written by a thread, to a database that the tests to come do not have.
    monkeypatch.setattr(last_use, "SECONDS_BETWEEN_WRITES", 1e6)
    yield
    current_principal.set(SERVER)


@pytest.mark.any_database
def test_a_key_with_any_other_character_is_no_key() -> None:
    key_id = new_key_id()
    key = new_key(key_id)
    assert parse(key) == PresentedKey(key_id, hash_key(key))
    for place in range(len(key)):
        for character in "0aZ_":
            other = key[:place] + character + key[place + 1 :]
            assert other == key or parse(other) is None
    for other in ("", key[:-1], f"{key}0", f" {key}", f"{key}\n", key.upper(), key.replace("vdb", "vst"), "é" * 55):
        assert parse(other) is None
    token = f"vst_{key_id}_{'a' * 20}.{'b' * 43}"
    assert parse(token) == PresentedToken(key_id, "a" * 20, "b" * 43)
    assert parse(token[:-1]) is None


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("authorization", "api_key", "found"),
    [
        ("", "", ""),
        ("Bearer a", "", "a"),
        ("bearer  a ", "", "a"),
        ("BEARER a", "b", "a"),
        ("", "b", "b"),
        ("Basic a", "b", "b"),
        ("Basic a", "", ""),
        ("Bearer", "b", "b"),
        ("a", "", ""),
    ],
)
def test_either_header_presents_a_key(authorization: str, api_key: str, found: str) -> None:
    assert presented(authorization, api_key) == found


@pytest.mark.any_database
def test_two_lists_of_patterns_have_in_common_what_matches_both() -> None:
    patterns = ["*", "a*", "ab*", "abc*", "b*", "a", "ab", "abc", "b"]
    ids = ["a", "ab", "abc", "abcd", "b", "ba", "c", "A"]
    for one in patterns:
        for other in patterns:
            both = common([one], [other])
            for library_id in ids:
                expected = matches(one, library_id) and matches(other, library_id)
                assert any(matches(pattern, library_id) for pattern in both) == expected, (one, other, library_id)


def ask(key: str) -> None:
    recognize(NOBODY, PATH, "127.0.0.1", f"Bearer {key}", "", read_rows)


@asks_database
def test_a_key_that_is_revoked_while_a_request_runs_sees_nothing_more() -> None:
    made = create_key(name="Test", scopes=["read"])
    ask(made.key)
    with open_snapshot() as snapshot:
        revoke_key(key_id=made.row.public_id)
        # It shows the state before.
        assert snapshot.rows("SELECT 1") == [(1,)]
        with pytest.raises(Refused, match="not known"):
            snapshot.renew()
    with pytest.raises(Refused, match="not known"):
        open_snapshot()
    # The connection is as good as before.
    current_principal.set(SERVER)
    with open_snapshot() as snapshot:
        assert snapshot.rows("SELECT 1") == [(1,)]


@asks_database
def test_a_request_goes_on_when_its_key_is_renamed_or_rotated_with_an_overlap_and_not_when_it_may_do_less() -> None:
    made = create_key(name="Test", scopes=["read", "write"], libraries=["a*"])
    key_id = made.row.public_id
    administrator = copy_context()
    ask(made.key)
    administrator.run(update_key, key_id=key_id, changes={"name": "Renamed", "reads_per_minute": 1})
    administrator.run(rotate_key, key_id=key_id, overlap_seconds=60)
    with open_snapshot(), write_transaction():
        pass
    administrator.run(update_key, key_id=key_id, changes={"libraries": "b"})
    for begin in (open_snapshot, write_transaction().__enter__):
        with pytest.raises(Refused, match="was changed"):
            begin()
    administrator.run(rotate_key, key_id=key_id, overlap_seconds=0)
    for begin in (open_snapshot, write_transaction().__enter__):
        with pytest.raises(Refused, match="not known"):
            begin()


@asks_database
def test_a_thread_asks_for_nobody_that_it_asked_for_before(settings: Any) -> None:
    settings.AUTH = True
    create_library(create=LibraryCreate(id="all", name="All"))
    first, second = (create_key(name=name, scopes=["read"]) for name in ("first", "second"))

    def query(key: str) -> Answer:
        headers = {b"content-type": b"application/json", b"x-api-key": key.encode()}
        scope = {
            "method": "POST",
            "path": f"{PATH}/all/query",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "state": {"is_gone": lambda: False},
        }
        return application._run(
            Request("id", NOBODY, scope, headers, b'{"text": "a", "mode": "lexical"}', Observation())
        )

    assert query(first.key).status == 200
    # By another process, as far as this thread knows.
    revoke_key(key_id=first.row.public_id)
    assert query(second.key).status == 200
    assert query(first.key).status == 401
