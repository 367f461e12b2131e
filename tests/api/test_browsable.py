"""The API in a browser: pages that lead on, editors whose contents work, nothing from anywhere else."""

import itertools
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.server import Server

_numbers = itertools.count()


class Page(HTMLParser):
    """What a person finds on a page: its text, links, editors by method, and what it loads."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        assert response.headers["Content-Type"] == "text/html; charset=utf-8", response.text
        self.status = response.status_code
        self.links: dict[str, str] = {}
        self.addresses: list[str] = []
        self.loads: list[str] = []
        self.editors: dict[str, str] = {}
        self.open: set[str] = set()
        self.can_delete = False
        self.text = ""
        self._inside: list[tuple[str, dict[str, str]]] = []
        self._is_open = False
        self.feed(response.text)

    @property
    def answer(self) -> Any:
        """The JSON that the page shows."""
        return json.loads(self.text[self.text.index("{") : self.text.rindex("}") + 1])

    def body(self, method: str) -> Any:
        """What an editor holds."""
        return json.loads(self.editors[method])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "link", "img") and (url := given.get("src") or given.get("href")):
            self.loads.append(url)
        elif tag == "a":
            self.addresses.append(given["href"])
        elif tag == "details":
            self._is_open = "open" in given
        elif tag == "form" and given.get("data-method") == "DELETE":
            self.can_delete = True
        if tag in ("a", "form", "textarea", "script", "style", "pre"):
            self._inside.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1][0] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        tag, given = self._inside[-1] if self._inside else ("", {})
        if tag == "textarea":
            method = self._inside[-2][1]["data-method"]
            self.editors[method] = data.removeprefix("\n")
            if self._is_open:
                self.open.add(method)
        elif tag == "a":
            self.links[data.strip().strip('"')] = given["href"]
        if tag not in ("textarea", "script", "style"):
            self.text += data


@pytest.fixture
def browser(server: Server) -> Iterator[httpx.Client]:
    """A client that asks for pages, and sends bodies as the pages' script does."""
    headers = {"Accept": "text/html; q=1.0, */*", "Content-Type": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as browser:
        yield browser


@pytest.fixture
def empty(client: httpx.Client) -> str:
    """The id of a new library that has no dimension yet."""
    library_id = f"browsable-{next(_numbers)}"
    client.post("/libraries", json={"id": library_id, "name": "Empty"}).raise_for_status()
    return library_id


@pytest.fixture
def full(client: httpx.Client, library: str) -> str:
    """The id of a library with the document `doc` of two chunks and the chunk `alone`."""
    document = {
        "id": "doc",
        "title": "Title",
        "metadata": {"kind": "novel"},
        "chunks": [
            {"id": "first", "text": "One", "embedding": [1, 0, 0], "metadata": {"page": 1}},
            {"id": "second", "text": "Two", "embedding": [0, 1, 0]},
        ],
    }
    client.post(f"/libraries/{library}/documents", json=document).raise_for_status()
    alone = {"id": "alone", "text": "Alone", "embedding": [0, 0, 1], "metadata": {"page": 3}}
    client.post(f"/libraries/{library}/chunks", json={"chunks": [alone]}).raise_for_status()
    return library


def of_dimension(client: httpx.Client, dimension: int) -> str:
    """The id of a new library with that dimension and one chunk."""
    library_id = f"browsable-{next(_numbers)}"
    body = {"id": library_id, "name": "Test", "dimension": dimension}
    client.post("/libraries", json=body).raise_for_status()
    chunk = {"id": "the-one", "embedding": [1.0] * dimension}
    client.post(f"/libraries/{library_id}/chunks", json={"chunks": [chunk]}).raise_for_status()
    return library_id


def path(library_id: str, *parts: str) -> str:
    """The path of something in a library."""
    return "/".join(["/api/v1/libraries", library_id, *parts])


def test_the_pages_lead_from_the_root_to_a_chunk_and_back(browser: httpx.Client, full: str) -> None:
    root = Page(browser.get("/", follow_redirects=True))
    assert root.links["libraries"] == "/api/v1/libraries"
    assert root.links["Reference"] == "/api/docs"
    assert root.links["Admin"] == "/admin/"
    libraries = Page(browser.get(root.links["libraries"], params={"limit": 500}))
    library = Page(browser.get(libraries.links[full]))
    assert {name: library.links[name] for name in ("documents", "chunks", "query", "stats")} == {
        name: path(full, name) for name in ("documents", "chunks", "query", "stats")
    }
    document = Page(browser.get(Page(browser.get(library.links["documents"])).links["doc"]))
    chunks = Page(browser.get(document.links["its chunks"]))
    assert [item["id"] for item in chunks.answer["items"]] == ["first", "second"]
    chunk = Page(browser.get(chunks.links["first"]))
    assert chunk.links["doc"] == path(full, "documents", "doc")
    assert chunk.links[full] == chunk.links["the library"] == path(full)


def reached(browser: httpx.Client, start: str) -> set[str]:
    """The addresses below `start` that its links, and theirs, lead to; what lies elsewhere is looked at once."""
    seen: set[str] = set()
    to_see = [start]
    while to_see:
        url = to_see.pop()
        if url in seen:
            continue
        seen.add(url)
        response = browser.get(url, follow_redirects=True)
        assert response.status_code == 200, url
        if url.startswith(start) and "format=json" not in url:
            to_see += [str(httpx.URL(url).join(link)) for link in Page(response).addresses]
    return seen


def test_every_link_of_every_page_leads_somewhere(browser: httpx.Client, full: str) -> None:
    parts = (["documents"], ["documents", "doc"], ["chunks"], ["chunks", "alone"], ["query"], ["stats"])
    assert {path(full, *some) for some in parts} < reached(browser, path(full))


def test_odd_ids_have_links_that_work(browser: httpx.Client, client: httpx.Client) -> None:
    odd = "a?b#c%41&=é<\"'+"
    quoted = quote(odd, safe="")
    client.post("/libraries", json={"id": odd, "name": odd, "dimension": 3}).raise_for_status()
    body = {"id": odd, "title": odd, "chunks": [{"id": odd, "embedding": [1, 0, 0]}]}
    client.post(f"/libraries/{quoted}/documents", json=body).raise_for_status()
    parts = (["documents", quoted], ["chunks", quoted])
    assert {path(quoted, *some) for some in parts} < reached(browser, path(quoted))
    document = Page(browser.get(path(quoted, "documents", quoted)))
    chunks = Page(browser.get(document.links["its chunks"]))
    assert [item["id"] for item in chunks.answer["items"]] == [odd]
    assert chunks.links["the library"] == path(quoted)


@pytest.mark.parametrize("start", ["/api/v1/", "/api/v1/libraries", "/api/docs", "/admin/login/"])
def test_pages_load_local_files_only(browser: httpx.Client, start: str) -> None:
    response = browser.get(start)
    page = Page(response)
    assert page.loads
    for url in page.loads:
        if url != "data:,":
            assert url.startswith(("/static/", "/admin/jsi18n/", "/api/")), url
            assert browser.get(url).status_code == 200, url


def test_the_reference_reads_the_schema_of_this_server(browser: httpx.Client) -> None:
    assert '"/api/schema"' in browser.get("/api/docs").text.replace("'", '"')
    assert browser.get("/api/schema").json()["openapi"].startswith("3.1")


def test_an_answer_is_shown_as_it_is(browser: httpx.Client, client: httpx.Client, full: str) -> None:
    for url in (path(full), path(full, "chunks?include=embedding"), path(full, "documents/doc"), path(full, "stats")):
        shown, plain = Page(browser.get(url)).answer, browser.get(url, headers={"Accept": "application/json"}).json()
        for answer in (shown, plain):
            answer.get("index", {}).pop("built_at", None)
        assert shown == plain
    query = {"vector": [1, 0, 0], "k": 2, "include": ["text", "metadata", "embedding", "document"]}
    shown = Page(browser.post(path(full, "query"), json=query)).answer
    assert shown["results"] == client.post(f"/libraries/{full}/query", json=query).json()["results"]


def test_what_is_stored_is_shown_as_text(browser: httpx.Client, client: httpx.Client, library: str) -> None:
    odd = "<script>alert(1)</script>&amp;<b>"
    metadata = {odd: [odd], "id": "chunk", "document_id": odd}
    chunk = {"id": "chunk", "text": odd, "embedding": [1, 0, 0], "metadata": metadata}
    client.post(f"/libraries/{library}/chunks", json={"chunks": [chunk]}).raise_for_status()
    page = Page(browser.get(path(library, "chunks", "chunk")))
    assert (page.answer["text"], page.answer["metadata"]) == (odd, metadata)
    assert page.body("PATCH") == {"metadata": metadata}
    assert odd not in page.links
    response = browser.post(path(library, "query"), content=f'{{"chunk_id": "{odd}'.encode())
    assert Page(response).editors["POST"] == f'{{"chunk_id": "{odd}'


def test_a_list_leads_to_its_next_page_and_back_to_its_first(browser: httpx.Client, full: str) -> None:
    url = path(full, "chunks?limit=1&include=embedding")
    ids, page = [], Page(browser.get(url))
    assert "First page" not in page.links
    while True:
        ids += [item["id"] for item in page.answer["items"]]
        assert "embedding" in page.answer["items"][0]
        if "Next page" not in page.links:
            break
        assert page.links[page.answer["next_cursor"]] == page.links["Next page"]
        page = Page(browser.get(httpx.URL(url).join(page.links["Next page"])))
    assert ids == ["first", "second", "alone"]
    first = Page(browser.get(httpx.URL(url).join(page.links["First page"])))
    assert [item["id"] for item in first.answer["items"]] == ["first"]


def test_a_page_offers_its_plain_json(browser: httpx.Client, full: str) -> None:
    url = path(full, "chunks?limit=1")
    plain = browser.get(httpx.URL(url).join(Page(browser.get(url)).links["as plain JSON"]))
    assert plain.headers["Content-Type"] == "application/json"
    assert len(plain.json()["items"]) == 1


POST_ONLY = ["query", "query/batch", "chunks/get", "chunks/delete", "chunks/count", "documents/batch"]


@pytest.mark.parametrize("part", POST_ONLY)
def test_a_path_that_takes_post_only_says_so_and_offers_an_editor(browser: httpx.Client, full: str, part: str) -> None:
    page = Page(browser.get(path(full, part)))
    assert page.status == 200
    assert "This path answers POST only." in page.text
    assert page.open == {"POST"} == set(page.editors)
    assert not page.can_delete


@pytest.mark.parametrize("part", POST_ONLY)
def test_programs_are_still_told_that_there_is_nothing_to_get(browser: httpx.Client, full: str, part: str) -> None:
    answer = browser.get(path(full, part), headers={"Accept": "application/json"})
    assert answer.status_code == (405 if "query" in part else 404)
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("part", ["", "query", "chunks", "chunks/count", "documents/batch"])
def test_the_pages_of_a_library_that_does_not_exist_are_errors(browser: httpx.Client, part: str) -> None:
    page = Page(browser.get(path("nowhere", part) if part else path("nowhere")))
    assert page.status in (404, 405)
    assert page.editors == {}
    assert not page.can_delete


PAGES = ["chunks", "documents", *POST_ONLY]


@pytest.mark.parametrize("part", PAGES)
@pytest.mark.parametrize("library_kind", ["empty", "full", 1, 3, 16, 17, 384])
def test_the_contents_of_every_editor_work_as_they_are(
    browser: httpx.Client, client: httpx.Client, request: pytest.FixtureRequest, library_kind: str | int, part: str
) -> None:
    if isinstance(library_kind, int):
        library = of_dimension(client, library_kind)
    else:
        library = request.getfixturevalue(library_kind)
    before = client.post(f"/libraries/{library}/chunks/count", json={}).json()["count"]
    for _ in range(2):
        page = Page(browser.get(path(library, part)))
        answer = Page(browser.post(path(library, part), content=page.editors["POST"]))
        assert answer.status in (200, 201), answer.text
        assert "POST" in answer.open
    after = client.post(f"/libraries/{library}/chunks/count", json={}).json()["count"]
    assert after >= before


def test_the_library_of_the_example_can_be_made_more_than_once(browser: httpx.Client) -> None:
    for _ in range(2):
        body = Page(browser.get("/api/v1/libraries")).editors["POST"]
        page = Page(browser.post("/api/v1/libraries", content=body))
        assert page.status == 201
        assert Page(browser.get(page.links[page.answer["id"]])).answer == page.answer


def test_an_editor_asks_for_what_is_there(browser: httpx.Client, full: str) -> None:
    query = Page(browser.get(path(full, "query")))
    assert query.body("POST") == {"chunk_id": "first", "k": 5}
    answer = Page(browser.post(path(full, "query"), content=query.editors["POST"]))
    assert [result["id"] for result in answer.answer["results"]] == ["second", "alone"]
    assert answer.links["second"] == path(full, "chunks", "second")
    assert Page(browser.get(path(full, "chunks/get"))).body("POST")["ids"] == ["first", "second"]


@pytest.mark.parametrize("parts", [[], ["documents", "doc"], ["chunks", "alone"]])
def test_a_patch_begins_with_what_is_there(browser: httpx.Client, full: str, parts: list[str]) -> None:
    url = path(full, *parts)
    page = Page(browser.get(url))
    assert page.body("PATCH").items() <= page.answer.items()
    assert page.open == set()
    answer = Page(browser.patch(url, content=page.editors["PATCH"]))
    assert answer.status == 200
    changed = {name for name, value in answer.answer.items() if value != page.answer[name]}
    assert changed <= {"updated_at"}


def test_a_put_begins_with_what_is_there(browser: httpx.Client, client: httpx.Client, full: str) -> None:
    url = path(full, "documents", "doc")
    answer = Page(browser.put(url, content=Page(browser.get(url)).editors["PUT"]))
    counts = {name: answer.answer[name] for name in ("created", "updated", "unchanged", "deleted")}
    assert counts == {"created": 0, "updated": 0, "unchanged": 2, "deleted": 0}
    chunks = [{"text": str(i), "embedding": [1, 0, 0]} for i in range(50)]
    client.post(f"/libraries/{full}/documents", json={"id": "long", "chunks": chunks}).raise_for_status()
    url = path(full, "documents", "long")
    assert Page(browser.put(url, content=Page(browser.get(url)).editors["PUT"])).status == 400
    assert Page(browser.get(url)).answer["chunk_count"] == 50


def test_an_editor_keeps_what_was_typed(browser: httpx.Client, full: str) -> None:
    typed = '{"chunk_id": "first",\n "k": 0}'
    refused = Page(browser.post(path(full, "query"), content=typed))
    assert refused.status == 400
    assert "/k must be an integer from 1 to 1000" in refused.text
    assert refused.editors == {"POST": typed}
    accepted = Page(browser.post(path(full, "query"), content=typed.replace("0", "1")))
    assert (accepted.status, accepted.editors) == (200, {"POST": typed.replace("0", "1")})
    unread = Page(browser.patch(path(full, "chunks", "first"), content=b'{"metadata": '))
    assert (unread.status, unread.editors) == (400, {"PATCH": '{"metadata": '})


def test_a_very_long_body_is_not_put_back(browser: httpx.Client, full: str) -> None:
    chunk = {"id": "long", "text": "x" * 200_000, "embedding": [1, 0, 0]}
    page = Page(browser.post(path(full, "chunks"), json={"chunks": [chunk]}))
    assert page.status == 200
    assert page.editors.get("POST", "") == ""


def test_what_is_deleted_says_so(browser: httpx.Client, full: str) -> None:
    for parts in (["chunks", "alone"], ["documents", "doc"], []):
        url = path(full, *parts)
        assert Page(browser.get(url)).can_delete
        page = Page(browser.delete(url))
        assert page.status == 200
        assert "204 No Content" in page.text
        assert "It is deleted." in page.text
        assert (page.editors, page.can_delete) == ({}, False)
        assert Page(browser.get(url)).status == 404


def test_the_answer_to_a_post_does_not_offer_to_delete(browser: httpx.Client, full: str) -> None:
    assert not Page(browser.post(path(full, "chunks/count"), content=b"{}")).can_delete
