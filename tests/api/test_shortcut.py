"""The short way of a query gives the answers of the long one, and leaves to it whatever is unusual or goes wrong."""

import io
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import orjson
import pytest

from apps.api.shortcut import QueryShortcut
from apps.libraries.inputs import ChunksWrite, LibraryCreate
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.libraries import create_library

BODY = orjson.dumps({"vector": [1, 0, 0], "k": 1})
LONG_WAY = {"Content-Type": "application/json; charset=utf-8"}


def without_chance(response: httpx.Response) -> dict[str, Any]:
    """An answer without what differs from one to the next."""
    answer = response.json()
    for one in answer["results"] if "meta" not in answer else [answer]:
        del one["meta"]["took_ms"]
    return dict(answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("query", {"vector": [1, 2, 3]}),
        ("query", {"chunk_id": "kept", "k": 1, "include": ["embedding", "document"]}),
        ("query", {"vector": [1, 2, 3], "include": []}),
        ("query/batch", {"queries": [{"vector": [1, 2, 3]}, {"chunk_id": "alone", "k": 5}]}),
    ],
)
def test_both_ways_answer_alike(client: httpx.Client, shared: str, path: str, body: dict[str, Any]) -> None:
    url, content = f"/libraries/{shared}/{path}", orjson.dumps(body)
    short = client.post(url, content=content, headers={"Content-Type": "application/json", "X-Request-ID": "same"})
    long = client.post(url, content=content, headers=LONG_WAY | {"X-Request-ID": "same"})
    assert short.status_code == long.status_code == 200
    assert without_chance(short) == without_chance(long)
    differing = {"date", "content-length"}
    assert {name: value for name, value in short.headers.items() if name not in differing} == {
        name: value for name, value in long.headers.items() if name not in differing
    }


@pytest.fixture
def library(transactional_db: None) -> str:
    """A library with a chunk, in the tests' own database."""
    create_library(create=LibraryCreate(id="lib", name="N", dimension=3))
    upsert_chunks(
        library_id="lib", write=ChunksWrite.model_validate({"chunks": [{"id": "x", "embedding": [1.0, 0.0, 0.0]}]})
    )
    return "lib"


class LongWay:
    """Stands where Django's handler stands, and keeps the bodies that reach it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.bodies.append(environ["wsgi.input"].read())
        return [b"the long way"]


def ask(body: bytes = BODY, **environ: str) -> tuple[list[bytes], str]:
    """The bodies that took the long way, and what was answered."""
    django = LongWay()
    usual = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/api/v1/libraries/lib/query",
        "QUERY_STRING": "",
        "HTTP_HOST": "localhost",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
    }
    started: list[Any] = []
    everything = usual | environ | {"wsgi.input": io.BytesIO(body)}
    answer = QueryShortcut(django)(everything, lambda *head: started.append(head))
    return django.bodies, b"".join(answer).decode()


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_usual_query_takes_the_short_way(library: str) -> None:
    passed, answer = ask()
    assert not passed
    assert [result["id"] for result in orjson.loads(answer)["results"]] == ["x"]
    batch = orjson.dumps({"queries": [{"vector": [1, 0, 0]}]})
    passed, answer = ask(batch, PATH_INFO="/api/v1/libraries/lib/query/batch")
    assert not passed
    assert len(orjson.loads(answer)["results"]) == 1


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "GET"},
        {"PATH_INFO": "/api/v1/libraries/lib/chunks"},
        {"PATH_INFO": "/api/v1/libraries/lib/query/"},
        {"PATH_INFO": "/api/v1/libraries/../query"},
        {"PATH_INFO": "/api/v1/libraries/ä/query"},
        {"QUERY_STRING": "k=1"},
        {"HTTP_HOST": "elsewhere.example"},
        {"HTTP_HOST": ""},
        {"HTTP_ACCEPT": "text/html,*/*"},
        {"CONTENT_TYPE": "text/plain"},
        {"CONTENT_TYPE": ""},
        {"CONTENT_LENGTH": ""},
        {"CONTENT_LENGTH": "-1"},
        {"CONTENT_LENGTH": str(1 << 40)},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
    ],
)
def test_an_unusual_request_takes_the_long_way(library: str, environ: dict[str, str]) -> None:
    assert ask(**environ) == ([BODY], "the long way")


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
@pytest.mark.parametrize("body", [b"", b"{", b'{"vector": [1, 2]}', b'{"k": 0, "vector": [1, 0, 0]}', b"\xff"])
def test_what_goes_wrong_is_said_by_the_long_way(library: str, body: bytes) -> None:
    assert ask(body) == ([body], "the long way")


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_library_that_is_not_there_is_told_by_the_long_way(library: str) -> None:
    assert ask(PATH_INFO="/api/v1/libraries/other/query") == ([BODY], "the long way")


@pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])
def test_a_body_that_broke_off_goes_on_as_it_came(library: str) -> None:
    assert ask(CONTENT_LENGTH=str(len(BODY) + 1)) == ([BODY], "the long way")
