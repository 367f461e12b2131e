"""The audit trail: one entry for each change that was committed, by whoever asked for it."""

import re
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db.models.signals import pre_save
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.access.audit import delete_old_entries
from apps.access.models import AuditEntry
from apps.access.requests import SERVER, current_principal
from tests.api.problems import assert_refused
from tests.server import ROOT


@pytest.fixture(name="client")
def client_with_ids(client: httpx.Client, library: str) -> Iterator[httpx.Client]:
    """A client whose requests have ids of their own, by which its entries are told from others."""
    client.headers["X-Request-ID"] = f"audit-of-{library}"
    return client


def entries(client: httpx.Client, library: str, **query: str) -> list[dict[str, Any]]:
    """The entries of a library, by pages of three."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        at = {"cursor": cursor} if cursor else {}
        answer = client.get("/audit", params={"library": library, "limit": 3, **query, **at})
        body = answer.raise_for_status().json()
        found += body["items"]
        cursor = body["next_cursor"]
    return found


def test_every_kind_of_change_has_one_entry(client: httpx.Client, library: str) -> None:
    began = timezone.now().isoformat()
    at = f"/libraries/{library}"
    new = {"chunks": [{"id": "c", "embedding": [0, 0, 1]}], "mode": "insert"}
    model = {"embedding": {"provider": "hashing", "model": "hashing-128"}}
    chunks = [{"id": "a", "embedding": [1, 0, 0]}, {"id": "b", "embedding": [0, 1, 0]}]
    steps: list[tuple[str, str, Any, str, str | None, int | None]] = [
        ("POST", "/chunks", {"chunks": chunks}, "upsert_chunks", None, 2),
        ("POST", "/chunks", new, "insert_chunks", None, 1),
        ("POST", "/chunks", {"chunks": [{"id": "c", "metadata": {}}], "mode": "update"}, "update_chunks", None, 1),
        ("PATCH", "/chunks/a", {"metadata": {"n": 1}}, "update_chunk", "a", 1),
        ("POST", "/chunks/update", {"ids": ["a", "b"], "metadata": {"n": 2}}, "update_chunks", None, 2),
        ("POST", "/chunks/update", {"filter": {"n": 2}, "metadata": {"n": 3}}, "update_chunks", None, 2),
        ("DELETE", "/chunks/c", None, "delete_chunk", "c", 1),
        ("POST", "/chunks/delete", {"ids": ["a", "gone"]}, "delete_chunks", None, 1),
        ("POST", "/chunks/delete", {"filter": {"n": 3}}, "delete_chunks", None, 1),
        ("POST", "/documents", {"id": "d", "chunks": [{"embedding": [1, 1, 0]}]}, "create_document", "d", 1),
        ("PUT", "/documents/d", {"chunks": [{"embedding": [1, 1, 1]}]}, "replace_document", "d", 1),
        ("PATCH", "/documents/d", {"title": "D"}, "update_document", "d", 1),
        ("DELETE", "/documents/d", None, "delete_document", "d", 1),
        ("PATCH", "", {"name": "Other"}, "update_library", None, None),
        ("POST", "/reindex", {}, "reindex_library", None, None),
        ("POST", "/reembed", model, "reembed_library", "hashing hashing-128", None),
        ("DELETE", "/reembed", None, "cancel_reembedding", None, None),
        ("DELETE", "", None, "delete_library", None, None),
    ]
    for method, path, body, *_ in steps:
        client.request(method, f"{at}{path}", json=body).raise_for_status()
    found = entries(client, library, since=began)
    assert [(entry["action"], entry["target"], entry["count"]) for entry in found] == [
        (action, target, count) for *_, action, target, count in steps
    ]
    assert {entry["request_id"] for entry in found} == {f"audit-of-{library}"}
    assert found == sorted(found, key=lambda entry: entry["at"])


def test_what_was_refused_has_no_entry(client: httpx.Client, library: str) -> None:
    before = entries(client, library)
    wrong = [{"id": "a", "embedding": [1, 0, 0]}, {"id": "b", "embedding": [1, 0]}]
    assert client.post(f"/libraries/{library}/chunks", json={"chunks": wrong}).status_code == 400
    assert client.delete(f"/libraries/{library}/chunks/absent").status_code == 404
    assert client.patch(f"/libraries/{library}", json={"name": ""}).status_code == 400
    assert entries(client, library) == before
    assert [entry["action"] for entry in before] == ["create_library"]


def test_changes_of_keys_name_the_key_that_asked_and_the_key_that_was_changed(client: httpx.Client) -> None:
    made = client.post("/keys", json={"name": "audited", "scopes": ["read"]}).raise_for_status().json()
    at = f"/keys/{made['id']}"
    client.patch(at, json={"name": "other"}).raise_for_status()
    rotated = client.post(f"{at}/rotate", json={}).raise_for_status().json()
    client.delete(at).raise_for_status()
    response = client.get("/audit", params={"since": made["created_at"], "limit": 500}).raise_for_status()
    mine = [entry for entry in response.json()["items"] if entry["target"] == made["id"]]
    assert [entry["action"] for entry in mine] == ["create_key", "update_key", "rotate_key", "revoke_key"]
    assert made["key"] not in response.text
    assert rotated["key"] not in response.text


@pytest.mark.django_db
def test_what_a_command_changes_is_under_its_name() -> None:
    call_command("create_key", "by hand", scope="read", stdout=StringIO())
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.name, entry.key_id) == ("create_key", "manage.py create_key", "")


@pytest.fixture
def administrator(db: None, settings: Settings) -> Client:
    """The browser of a superuser of the admin, by the name of alice."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    current_principal.set(SERVER)
    user = User.objects.create(username="alice", is_staff=True, is_superuser=True)
    client = Client(headers={"X-Request-ID": "of-the-admin"})
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def send(browser: Client, path: str, **fields: Any) -> None:
    """Send a form of the admin, which takes it."""
    answer = browser.post(f"/admin/{path}", fields)
    assert answer.status_code == 302, answer.content.decode()


def trail() -> list[tuple[str, str, int | None]]:
    """What the entries say was changed."""
    return list(AuditEntry.objects.values_list("action", "target", "count"))


def test_the_admin_leaves_entries_of_users_and_groups(administrator: Client) -> None:
    create_permissions(apps.get_app_config("access"))
    reads, writes = (Permission.objects.get(codename=f"scope_{scope}").pk for scope in ("read", "write"))
    password, other = "a first pass word", "a second pass word"
    send(administrator, "auth/group/add/", name="readers", permissions=[reads, writes])
    group = Group.objects.get()
    send(administrator, f"auth/group/{group.pk}/change/", name="readers", permissions=[reads])
    new = {"username": "bob", "usable_password": "true", "password1": password, "password2": password}
    send(administrator, "auth/user/add/", **new)
    at = f"auth/user/{User.objects.get(username='bob').pk}"
    joined = {"username": "bob", "date_joined_0": "2030-01-01", "date_joined_1": "00:00:00"}
    send(
        administrator, f"{at}/change/", **joined, is_superuser="on", groups=[group.pk], user_permissions=[reads, writes]
    )
    send(administrator, f"{at}/password/", usable_password="true", password1=other, password2=other)
    send(administrator, f"{at}/delete/", post="yes")
    send(administrator, f"auth/group/{group.pk}/delete/", post="yes")
    assert trail() == [
        ("create_group", "readers", None),
        ("update_group", "readers", 2),
        ("update_group", "readers", None),
        ("update_group", "readers", 1),
        ("create_user", "bob", None),
        ("update_user", "bob", None),
        ("update_user", "bob", 1),
        ("update_user", "bob", 2),
        ("update_user", "bob", None),
        ("delete_user", "bob", None),
        ("delete_group", "readers", None),
    ]
    found = list(AuditEntry.objects.values())
    assert {(entry["name"], entry["key_id"], entry["request_id"]) for entry in found} == {("alice", "", "of-the-admin")}
    assert password not in str(found)
    assert other not in str(found)


def test_a_login_is_no_change(administrator: Client, settings: Settings) -> None:
    user = User.objects.create_user("bob", password="a pass word", is_staff=True)
    # The next login hashes the password again.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.ScryptPasswordHasher", *settings.PASSWORD_HASHERS]
    send(Client(), "login/", username="bob", password="a pass word")
    user.refresh_from_db()
    assert (user.last_login is not None, user.password.partition("$")[0]) == (True, "scrypt")
    assert trail() == []


@pytest.mark.django_db(transaction=True)
def test_a_password_whose_change_has_no_entry_is_not_changed(administrator: Client) -> None:
    def refuse(**_: Any) -> None:
        raise ValueError("no entry")

    user, new = User.objects.get(), "a second pass word"
    user.set_password("a pass word")
    user.save()
    administrator.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    pre_save.connect(refuse, sender=AuditEntry)
    try:
        with pytest.raises(ValueError, match="no entry"):
            send(administrator, "password_change/", old_password="a pass word", new_password1=new, new_password2=new)
    finally:
        pre_save.disconnect(refuse, sender=AuditEntry)
    user.refresh_from_db()
    assert user.check_password("a pass word")


@pytest.mark.django_db
def test_accounts_that_commands_change_are_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a first pass word")
    call_command("createsuperuser", interactive=False, username="root", email="", stdout=StringIO())
    monkeypatch.setattr("getpass.getpass", lambda **_: "a second pass word")
    call_command("changepassword", "root", stdout=StringIO())
    assert trail() == [("create_user", "root", None), ("update_user", "root", None)]
    names = list(AuditEntry.objects.values_list("name", flat=True))
    assert names == ["manage.py createsuperuser", "manage.py changepassword"]


@pytest.mark.django_db
def test_old_entries_are_deleted_some_at_a_time(settings: Settings) -> None:
    settings.AUDIT_DAYS = 30
    now = timezone.now()
    for days in (90, 60, 31, 29, 0):
        AuditEntry.objects.create(at=now - timedelta(days=days), name="one", action=f"{days}")
    assert delete_old_entries(limit=2) == 2
    assert delete_old_entries(limit=2) == 1
    assert delete_old_entries(limit=2) == 0
    assert [entry.action for entry in AuditEntry.objects.all()] == ["29", "0"]


@pytest.mark.any_database
def test_the_docs_name_every_action() -> None:
    sources = "".join(path.read_text() for path in Path(ROOT, "apps").rglob("*.py"))
    recorded = set(re.findall(r'(?:record_change|record_job|new_entry|_record)\(\s*"(\w+)"', sources)) | {
        "upsert_chunks",
        "insert_chunks",
    }
    documented = Path(ROOT, "docs/access.md").read_text().partition("| of | actions |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", documented)) == recorded


def test_a_time_that_is_none_is_refused(client: httpx.Client) -> None:
    problem = assert_refused(client.get("/audit", params={"since": "yesterday"}), 400, "invalid", "/since")
    assert "RFC 3339" in problem["errors"][0]["detail"]
