"""Ids: what may be one, that each leads back to what it names, and that it is given away once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.api.raw import exchange
from tests.server import Server

X = [1, 0, 0]
ROUTE_WORDS = ("batch", "count", "delete", "get", "query", "chunks")
GOOD = (
    "é",
    "e\u0301",  # the same to the eye, another id by code point
    "日本語",
    "🙂👩‍👩‍👧",
    "\u0645\u06cc\u200c\u0631\u0648\u062f",  # "goes" in Persian
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\ue000\uffff\U0010ffff",
    "a?b=c&d",
    "a#b",
    "a%2Fb",
    "%",
    "%41",
    "a+b",
    "a;b,c:d@e!$'()*",
    '"quoted"\\',
    "<script>",
    "...",
    ".hidden",
    "-",
    "null",
    "A",
    "a",
    "0",
    "x" * 128,
    "🙂" * 128,
    *ROUTE_WORDS,
)
# What documents and chunks of real corpora are called, beside that.
PATHS = (
    "a/b",
    "https://example.com/a//b/?q=1&r=%2F#frag",
    "https://de.wikipedia.org/wiki/Stra%C3%9Fe",
    "/var/log/syslog",
    "docs/reports/2024/",
    "//server/share",
    "/",
    "record 7#2",
    "Bildschirmfoto 2024-01-01 um 10.00.00\u202fPM.png",
    "東京/区 分\u3000表/第1章.txt",
    ".git/..config/...",
    "a\\..\\b",
    "100% sure?/yes; no",
    "get/x",
    "count/get",
    "batch/documents",
    "a/b" * 42,
)
BAD = {
    "empty": "",
    "a dot": ".",
    "two dots": "..",
    "only a space": " ",
    "space at the end": "a ",
    "space at the beginning": " a",
    "tab": "a\tb",
    "newline at the end": "a\n",
    "NUL": "a\0b",
    "escape": "\x1b",
    "delete": "\x7f",
    "C1 control": "\x85",
    "no-break space at the end": "a\u00a0",
    "ideographic space": "\u3000",
    "line separator": "a\u2028b",
    "129 characters": "x" * 129,
    "dots at the end": "a/..",
    "dots at the beginning": "../a",
    "a dot between slashes": "a/./b",
}
BAD_OF_LIBRARIES = BAD | {"slash": "a/b", "space": "a b", "no-break space": "a\u00a0b", "slash at the end": "a/"}
# What cannot be seen, so that two ids look the same; what has such an id from elsewhere keeps it.
INVISIBLE = {
    "zero width space": "a\u200bb",
    "only a zero width space": "\u200b",
    "byte order mark": "\ufeffa",
    "soft hyphen": "a\u00adb",
    "word joiner": "a\u2060",
    "mark of direction": "\u200fa",
    "change of direction": "\u202eabc",
    "only a joiner": "\u200d",
    "a joiner at the end": "a\u200c",
    "a joiner at the beginning": "\u200da",
}


def at(path: str, name: str) -> str:
    """A path with an id in it, percent-encoded."""
    return f"{path}/{quote(name, safe='')}"


@pytest.mark.parametrize("name", GOOD, ids=ascii)
def test_a_library_of_any_id_can_be_used(client: httpx.Client, name: str) -> None:
    made = client.post("/libraries", json={"id": name, "name": "N"})
    assert made.status_code == 201, made.text
    path = at("/libraries", name)
    assert client.get(path).json() == made.json()
    client.post(f"{path}/chunks", json={"chunks": [{"id": "c", "embedding": X}]}).raise_for_status()
    assert len(client.post(f"{path}/query", json={"vector": X}).json()["results"]) == 1
    assert client.delete(path).status_code == 204
    assert_refused(client.get(path), 404, "not_found")


@pytest.mark.parametrize("name", GOOD + PATHS, ids=ascii)
def test_a_document_and_a_chunk_of_any_id_can_be_used(client: httpx.Client, shared: str, name: str) -> None:
    library = f"/libraries/{shared}"
    documents, chunks = f"{library}/documents", f"{library}/chunks"
    body = {"id": name, "chunks": [{"id": name, "text": name, "embedding": X}]}
    made = client.post(documents, json=body)
    assert made.status_code == 201, made.text
    assert client.get(client.base_url.join(made.headers["Location"])).json()["id"] == name
    assert client.get(at(documents, name)).json()["id"] == name
    assert client.put(at(documents, name), json=body).json()["unchanged"] == 1
    assert client.get(chunks, params={"document_id": name}).json()["items"][0]["id"] == name
    assert client.get(at(chunks, name)).json()["document_id"] == name
    assert client.patch(at(chunks, name), json={"metadata": {"n": 1}}).json()["metadata"] == {"n": 1}
    assert [item["id"] for item in client.post(f"{chunks}/get", json={"ids": [name]}).json()["items"]] == [name]
    others = client.post(f"{library}/query", json={"chunk_id": name}).json()["results"]
    assert name not in [result["id"] for result in others]
    for field in ("@id", "@document_id"):
        assert client.post(f"{chunks}/count", json={"filter": {field: name}}).json()["count"] == 1
    assert client.delete(at(chunks, name)).status_code == 204
    assert client.delete(at(documents, name)).status_code == 204
    assert_refused(client.get(at(chunks, name)), 404, "not_found")


def test_ids_are_compared_by_code_point(client: httpx.Client, chunks: str) -> None:
    names = ["é", "e\u0301", "A", "a", "ß", "ss", "\u212a", "K", "k"]
    body = {"chunks": [{"id": name, "embedding": X} for name in names], "mode": "insert"}
    assert client.post(chunks, json=body).json()["created"] == len(names)
    for name in names:
        assert client.get(at(chunks, name)).json()["id"] == name


@pytest.mark.parametrize("name", PATHS, ids=ascii)
def test_slashes_may_come_as_they_are(server: Server, client: httpx.Client, shared: str, name: str) -> None:
    # As from a proxy that decodes what it can.
    path = f"/api/v1/libraries/{shared}/chunks/{quote(name)}"
    body = {"chunks": [{"id": name, "embedding": X}]}
    client.post(f"/libraries/{shared}/chunks", json=body).raise_for_status()
    answer = exchange(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert (answer.status_code, answer.json()["id"]) == (200, name)
    assert client.post(f"/libraries/{shared}/chunks/delete", json={"ids": [name]}).json() == {"deleted": 1}


def test_a_refusal_names_an_odd_id_as_it_is(client: httpx.Client, shared: str) -> None:
    name = "https://example.com/a b?c#d"
    assert repr(name) in assert_refused(client.get(at(f"/libraries/{shared}/chunks", name)), 404, "not_found")["detail"]
    assert (
        repr(name) in assert_refused(client.get(at(f"/libraries/{shared}/documents", name)), 404, "not_found")["detail"]
    )


@pytest.mark.parametrize("name", BAD_OF_LIBRARIES.values(), ids=BAD_OF_LIBRARIES)
def test_what_can_be_no_id_of_a_library_is_refused(client: httpx.Client, name: str) -> None:
    assert_refused(client.post("/libraries", json={"id": name, "name": "N"}), 400, "invalid", "/id")


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_what_can_be_no_id_is_refused_in_a_body(client: httpx.Client, shared: str, name: str) -> None:
    library = f"/libraries/{shared}"
    chunk = {"id": name, "embedding": X}
    body: dict[str, Any] = {"chunks": [{"embedding": X}, chunk]}
    assert_refused(client.post(f"{library}/chunks", json=body), 400, "invalid", "/chunks/1/id")
    assert_refused(client.put(f"{library}/documents/new", json=body), 400, "invalid", "/chunks/1/id")
    body = {"id": name, "chunks": [{"embedding": X}]}
    assert_refused(client.post(f"{library}/documents", json=body), 400, "invalid", "/id")
    body = {"chunks": [{"embedding": X, "document_id": name}]}
    assert_refused(client.post(f"{library}/chunks", json=body), 400, "invalid", "/chunks/0/document_id")
    assert_refused(client.patch(f"{library}/chunks/alone", json={"document_id": name}), 400, "invalid", "/document_id")
    assert_refused(client.post(f"{library}/chunks/get", json={"ids": ["alone", name]}), 400, "invalid", "/ids/1")
    assert_refused(client.post(f"{library}/chunks/delete", json={"ids": ["x", name]}), 400, "invalid", "/ids/1")
    problem = assert_refused(client.post(f"{library}/query", json={"chunk_id": name}), 400, "invalid", "/chunk_id")
    assert "128" in problem["detail"]
    assert client.get(f"{library}/stats").json()["chunks"] == 2


@pytest.mark.parametrize("name", INVISIBLE.values(), ids=INVISIBLE)
def test_nothing_new_gets_an_id_that_looks_like_another(client: httpx.Client, shared: str, name: str) -> None:
    library = f"/libraries/{shared}"
    assert_refused(client.post("/libraries", json={"id": name, "name": "N"}), 400, "invalid", "/id")
    body = {"chunks": [{"embedding": X}, {"id": name, "embedding": X}]}
    assert_refused(client.post(f"{library}/chunks", json=body), 400, "invalid", "/chunks/1/id")
    assert_refused(client.put(f"{library}/documents/doc", json=body), 400, "invalid", "/chunks/1/id")
    body = {"id": name, "chunks": [{"embedding": X}]}
    problem = assert_refused(client.post(f"{library}/documents", json=body), 400, "invalid", "/id")
    assert "invisible" in problem["detail"]
    put = client.put(at(f"{library}/documents", name), json={"chunks": [{"embedding": X}]})
    assert "invisible" in assert_refused(put, 404, "not_found")["detail"]
    assert client.get(f"{library}/stats").json()["chunks"] == 2


def test_what_has_such_an_id_can_be_read_and_deleted(server: Server, client: httpx.Client, library: str) -> None:
    name = "\ufeffa"
    path = f"/libraries/{library}"
    for number in range(2):
        body = {"id": f"doc{number}", "chunks": [{"id": f"chunk{number}", "embedding": X}]}
        client.post(f"{path}/documents", json=body).raise_for_status()
    renamed = server.manage(
        "shell",
        "-c",
        "from apps.libraries.models import Chunk, Document; "
        f"rows = dict(library__public_id={library!r}); "
        f"print(Document.objects.filter(public_id='doc0', **rows).update(public_id={name!r}), "
        f"Chunk.objects.filter(public_id='chunk0', **rows).update(public_id={name!r}))",
    )
    assert "1 1" in renamed.stdout, renamed.stderr
    assert client.get(at(f"{path}/chunks", name)).json()["document_id"] == name
    assert client.get(f"{path}/chunks", params={"document_id": name}).json()["items"][0]["id"] == name
    assert client.post(f"{path}/chunks/get", json={"ids": [name]}).json()["missing"] == []
    assert len(client.post(f"{path}/query", json={"chunk_id": name}).json()["results"]) == 1
    assert client.put(at(f"{path}/documents", name), json={"chunks": [{"embedding": X}]}).status_code == 200
    assert client.delete(at(f"{path}/documents", name)).status_code == 204
    assert [item["id"] for item in client.get(f"{path}/documents").json()["items"]] == ["doc1"]


@pytest.mark.parametrize("name", [name for name in BAD.values() if name not in ("", ".", "..")], ids=ascii)
def test_what_can_be_no_id_is_404_in_a_path(client: httpx.Client, shared: str, name: str) -> None:
    library = f"/libraries/{shared}"
    for path in ("/libraries", f"{library}/documents", f"{library}/chunks"):
        for method in ("GET", "DELETE", "PATCH"):
            body = {} if method == "PATCH" else None
            assert_refused(client.request(method, at(path, name), json=body), 404, "not_found")
    put = client.put(at(f"{library}/documents", name), json={"chunks": [{"embedding": X}]})
    assert_refused(put, 404, "not_found")
    assert_refused(client.post(f"{at('/libraries', name)}/query", json={"vector": X}), 404, "not_found")


def test_an_id_in_use_is_409(client: httpx.Client, shared: str) -> None:
    response = client.post("/libraries", json={"id": shared, "name": "Again"})
    assert shared in assert_refused(response, 409, "conflict", "/id")["detail"]
    assert client.get(f"/libraries/{shared}").json()["name"] == "Shared"
    document = {"id": "doc", "chunks": [{"embedding": X}]}
    assert_refused(client.post(f"/libraries/{shared}/documents", json=document), 409, "conflict", "/id")
    chunk = {"chunks": [{"id": "alone", "embedding": X}], "mode": "insert"}
    assert_refused(client.post(f"/libraries/{shared}/chunks", json=chunk), 409, "conflict", "/chunks/0/id")


@pytest.mark.parametrize("kind", ["library", "document", "chunk"])
def test_of_clients_that_make_the_same_id_at_once_one_succeeds(server: Server, library: str, kind: str) -> None:
    barrier = Barrier(4)
    path = f"/libraries/{library}"

    def make(client: httpx.Client, name: str) -> httpx.Response:
        barrier.wait()
        if kind == "library":
            return client.post("/libraries", json={"id": f"{library}-{name}", "name": "N"})
        chunk = {"id": name, "embedding": X}
        if kind == "document":
            return client.post(f"{path}/documents", json={"id": name, "chunks": [chunk]})
        return client.post(f"{path}/chunks", json={"chunks": [chunk], "mode": "insert"})

    with server.client() as client, ThreadPoolExecutor(4) as threads:
        for n in range(10):
            responses = list(threads.map(make, [client] * 4, [str(n)] * 4))
            winners = [response for response in responses if response.is_success]
            assert len(winners) == 1, [response.text for response in responses]
            for response in responses:
                if response not in winners:
                    assert response.status_code == 409
                    assert response.json()["code"] == "conflict"
