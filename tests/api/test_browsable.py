"""The API in a browser: pages that lead on, forms that are empty, nothing from anywhere else."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.problems import assert_refused
from tests.server import Server

pytestmark = pytest.mark.any_database


class Page(HTMLParser):
    """What a person finds on a page: its text, links, forms, and what it loads."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        assert response.headers["Content-Type"] == "text/html; charset=utf-8", response.text
        self.status = response.status_code
        self.links: dict[str, str] = {}
        self.loads: list[str] = []
        # What the field of each form holds, and the example behind it, by the methods that the form sends.
        self.contents: dict[str, str] = {}
        self.examples: dict[str, str] = {}
        self.text = ""
        self._inside: list[tuple[str, dict[str, str]]] = []
        self._field: tuple[str, str] | None = None
        self.deletes_without_question = False
        self.feed(response.text)

    @property
    def answer(self) -> Any:
        """The JSON that the page shows."""
        return json.loads(self.text[self.text.index("{") : self.text.rindex("}") + 1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "link", "img") and (url := given.get("src") or given.get("href")):
            self.loads.append(url)
        elif tag == "textarea":
            self._field = "", given.get("placeholder", "")
        elif tag == "button" and self._field is not None:
            method = given.get("data-method") or self._form().get("data-method") or self._form().get("method", "")
            self.contents[method], self.examples[method] = self._field
        if tag == "form" and given.get("data-method") == "DELETE":
            self.deletes_without_question |= not any("modal" in one.get("class", "") for _, one in self._inside)
        if tag in ("a", "div", "form", "textarea", "script", "style", "pre", "ul"):
            self._inside.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1][0] == tag:
            self._inside.pop()
        if tag == "form":
            self._field = None

    def handle_data(self, data: str) -> None:
        tag, given = self._inside[-1] if self._inside else ("", {})
        if tag == "textarea" and self._field is not None:
            self._field = self._field[0] + data.strip(), self._field[1]
        elif tag == "a":
            self.links[data.strip()] = given["href"]
        if any(name == "pre" for name, _ in self._inside):
            self.text += data

    def _form(self) -> dict[str, str]:
        return next(given for tag, given in reversed(self._inside) if tag == "form")


@pytest.fixture
def browser(server: Server) -> Iterator[httpx.Client]:
    """A client that asks for pages, and sends bodies as the pages' script does."""
    headers = {"Accept": "text/html; q=1.0, */*", "Content-Type": "application/json"} | server.authorization
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as browser:
        yield browser


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
    assert chunk.answer["id"] == "first"
    assert (chunk.links["Chunks"], chunk.links["Library"]) == (path(full, "chunks"), path(full))


def follow_links(browser: httpx.Client, start: str) -> set[str]:
    """The addresses below `start` that its links, and theirs, lead to; each page is looked at once."""
    seen: set[str] = set()
    to_see = [start]
    while to_see:
        url = to_see.pop()
        if url in seen:
            continue
        seen.add(url)
        response = browser.get(url, follow_redirects=True)
        if "format=json" in url or "Content-Disposition" in response.headers:
            continue
        page = Page(response)
        # What only takes POST is an error with a form.
        assert page.status == 200 or (page.status in (404, 405) and "POST" in page.contents), url
        links = [str(httpx.URL(url).join(link)) for link in page.links.values()]
        to_see += [link for link in links if link.startswith(start)]
    return seen


def test_every_link_of_every_page_leads_somewhere(browser: httpx.Client, full: str) -> None:
    parts = (["documents"], ["documents", "doc"], ["chunks"], ["chunks", "alone"], ["query"], ["stats"])
    assert {path(full, *some) for some in parts} < follow_links(browser, path(full))


def test_odd_ids_have_links_that_work(browser: httpx.Client, client: httpx.Client) -> None:
    odd = "a?b#c%41&=é<\"'+"
    odder = f"batch//{odd} x/"
    quoted, inside = quote(odd, safe=""), quote(odder, safe="")
    client.post("/libraries", json={"id": odd, "name": odd, "dimension": 3}).raise_for_status()
    body = {"id": odder, "title": odd, "chunks": [{"id": odder, "embedding": [1, 0, 0]}]}
    client.post(f"/libraries/{quoted}/documents", json=body).raise_for_status()
    parts = (["documents", inside], ["chunks", inside])
    assert {path(quoted, *some) for some in parts} < follow_links(browser, path(quoted))
    document = Page(browser.get(path(quoted, "documents", inside)))
    assert document.links["Documents"] == path(quoted, "documents")
    assert "Document Batch" not in document.links
    chunks = Page(browser.get(document.links["its chunks"]))
    assert [item["id"] for item in chunks.answer["items"]] == [odder]
    library = Page(browser.get(document.links["Library"]))
    assert library.answer["id"] == odd


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
    script = Page(browser.get("/api/docs")).loads[-1]
    assert '"/api/schema"' in browser.get(script).text.replace("'", '"')
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
    response = browser.get(path(library, "chunks", "chunk"))
    page = Page(response)
    assert (page.answer["text"], page.answer["metadata"]) == (odd, metadata)
    assert odd not in page.links
    assert "<script>alert" not in response.text
    refused = browser.post(path(library, "query"), content=f'{{"chunk_id": "{odd}"}}'.encode())
    assert Page(refused).status == 404
    assert "<script>alert" not in refused.text


def test_a_list_leads_to_its_next_page(browser: httpx.Client, full: str) -> None:
    url = path(full, "chunks?limit=1&include=embedding")
    ids, page = [], Page(browser.get(url))
    while True:
        ids += [item["id"] for item in page.answer["items"]]
        assert "embedding" in page.answer["items"][0]
        if "next page" not in page.links:
            break
        page = Page(browser.get(httpx.URL(url).join(page.links["next page"])))
    assert ids == ["first", "second", "alone"]


def test_a_list_in_an_order_leads_to_its_chunks(browser: httpx.Client, full: str) -> None:
    body = {"order_by": [{"field": "@id"}], "limit": 2}
    page = Page(browser.post(path(full, "chunks/list"), json=body))
    assert [item["id"] for item in page.answer["items"]] == ["alone", "first"]
    assert Page(browser.get(page.links["first"])).answer["id"] == "first"
    # The cursor goes into the form.
    assert page.answer["next_cursor"] is not None
    assert "next page" not in page.links


def test_a_page_offers_its_plain_json(browser: httpx.Client, full: str) -> None:
    url = path(full, "chunks?limit=1")
    plain = browser.get(httpx.URL(url).join(Page(browser.get(url)).links["json"]))
    assert plain.headers["Content-Type"] == "application/json"
    assert len(plain.json()["items"]) == 1


POST_ONLY = [
    "query",
    "query/batch",
    "chunks/get",
    "chunks/delete",
    "chunks/count",
    "chunks/list",
    "chunks/fields",
    "chunks/facets",
    "chunks/update",
    "documents/batch",
]


@pytest.mark.parametrize("part", POST_ONLY)
def test_a_path_that_takes_post_only_has_a_form_for_it(browser: httpx.Client, full: str, part: str) -> None:
    page = Page(browser.get(path(full, part)))
    assert page.status in (404, 405)
    assert json.loads(page.examples["POST"])


@pytest.mark.parametrize("part", POST_ONLY)
def test_programs_are_told_that_there_is_nothing_to_get(browser: httpx.Client, full: str, part: str) -> None:
    answer = browser.get(path(full, part), headers={"Accept": "application/json"})
    assert answer.status_code == (405 if "query" in part else 404)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_nothing_is_prefilled_and_nothing_is_deleted_without_a_question(browser: httpx.Client, full: str) -> None:
    parts = ["", "/documents", "/documents/doc", "/chunks", "/chunks/alone", "/reindex", "/reembed"]
    parts += [f"/{part}" for part in POST_ONLY]
    for url in ("/api/v1/libraries", *(f"{path(full)}{part}" for part in parts)):
        page = Page(browser.get(url))
        assert page.contents, url
        # Queries write nothing.
        assert url.endswith(("/query", "/query/batch")) or set(page.contents.values()) == {""}, url
        assert not page.deletes_without_question, url
    assert {"PUT", "PATCH"} <= Page(browser.get(path(full, "documents", "doc"))).contents.keys()


def test_the_examples_work_and_leave_alone_what_is_there(
    browser: httpx.Client, client: httpx.Client, full: str
) -> None:
    before = client.get(f"/libraries/{full}/chunks").json()["items"]
    for part in ("chunks", "documents", "documents/batch", *POST_ONLY):
        answer = Page(browser.post(path(full, part), content=Page(browser.get(path(full, part))).examples["POST"]))
        assert answer.status in (200, 201), answer.text
    again = Page(browser.get(path(full, "chunks"))).examples["POST"]
    assert Page(browser.post(path(full, "chunks"), content=again)).status == 409
    items = client.get(f"/libraries/{full}/chunks").json()["items"]
    assert items[: len(before)] == before


def test_the_form_of_an_import_sends_what_an_import_takes(browser: httpx.Client, library: str) -> None:
    answer = browser.get(path(library, "import"))
    types = re.findall(r'<option value="([^"]+)"', answer.text)
    example = Page(answer).examples["POST"]
    sent = browser.post(path(library, "import"), content=example, headers={"Content-Type": types[0]})
    assert sent.status_code == 202, sent.text


def test_a_query_is_one_click_away_and_leads_to_what_it_finds(browser: httpx.Client, full: str) -> None:
    url = path(full, "query")
    first = Page(browser.get(url)).contents["POST"]
    assert json.loads(first)["text"]
    assert Page(browser.post(url, content=first)).status == 200
    found = Page(browser.post(url, content=b'{"text": "one", "mode": "lexical"}'))
    assert found.contents["POST"] == '{"text": "one", "mode": "lexical"}'
    chunk = Page(browser.get(found.links["first"]))
    assert chunk.answer["id"] == "first"
    assert Page(browser.get(chunk.links["its document"])).answer["id"] == "doc"
    with_vector = Page(browser.get(httpx.URL(found.links["first"]).join(chunk.links["its embedding"])))
    assert with_vector.answer["embedding"] == [1, 0, 0]
    refused = Page(browser.post(url, content=b'{"text": "one", "mode": "words"}'))
    assert (refused.status, refused.contents["POST"]) == (400, '{"text": "one", "mode": "words"}')


def test_chunks_read_by_their_ids_lead_to_them(browser: httpx.Client, full: str) -> None:
    found = Page(browser.post(path(full, "chunks", "get"), json={"ids": ["alone"]}))
    assert Page(browser.get(found.links["alone"])).status == 200


def test_long_vectors_are_folded_for_people_only(browser: httpx.Client, client: httpx.Client) -> None:
    library = client.post("/libraries", json={"name": "wide", "dimension": 256}).raise_for_status().json()["id"]
    vector = [0.5, -0.25, 1e-7, 2.0] * 64
    text = "[\n1,\n2\n]"
    metadata = {"numbers": [1, 2, 3], "words": [str(i) for i in range(20)]}
    chunk = {"id": "c", "text": text, "embedding": vector, "metadata": metadata}
    client.post(f"/libraries/{library}/chunks", json={"chunks": [chunk]}).raise_for_status()
    url = path(library, "chunks", "c?include=text&include=metadata&include=embedding")
    page, plain = Page(browser.get(url)), client.get(f"/libraries/{library}/chunks/c?include=embedding").json()
    first, second, third, fourth, rest = page.answer["embedding"]
    assert ([first, second, third, fourth], rest) == (plain["embedding"][:4], "... 252 more numbers")
    assert page.answer["metadata"] == metadata
    assert page.answer["text"] == text
    assert '"numbers": [1, 2, 3]' in page.text
    assert len(plain["embedding"]) == 256


@pytest.mark.parametrize("wrong", ["/api/v2/collections", "/nothing/here", "/api/v1/libraries/a/nothing"])
def test_a_wrong_path_is_a_page_with_ways_on(browser: httpx.Client, wrong: str) -> None:
    page = Page(browser.get(wrong))
    assert page.status == 404
    assert wrong in page.answer["detail"]
    assert {"libraries", "reference"} <= page.links.keys()
    for name in ("libraries", "reference", *(["/api/v1/libraries"] if "collections" in wrong else [])):
        assert browser.get(page.links[name]).status_code == 200
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        answer = browser.request(method, wrong, headers={"Accept": "*/*"})
        assert_refused(answer, 404, "not_found")
        assert "Allow" not in answer.headers
        assert answer.headers["Vary"] == "Accept"


def test_the_root_leads_to_all_that_the_server_has(browser: httpx.Client) -> None:
    links = Page(browser.get("/api/v1/")).links
    for name in ("libraries", "reference", "schema", "health", "ready", "admin"):
        assert browser.get(links[name], follow_redirects=True).status_code == 200, name


def test_what_is_deleted_says_so(browser: httpx.Client, full: str) -> None:
    for parts in (["chunks", "alone"], ["documents", "doc"], []):
        url = path(full, *parts)
        page = Page(browser.delete(url))
        assert page.status == 200
        assert "204 No Content" in page.text
        assert Page(browser.get(url)).status == 404
