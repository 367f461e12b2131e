"""A search token learns nothing of what its filter leaves out: its answers are those of a library without the rest."""

import json
import os
import re
import subprocess
import time
from typing import Any

import httpx
import pytest

from tests.access.callers import bearer, in_hours, make_key, make_token
from tests.api.problems import assert_refused
from tests.server import ROOT, Server

WHOLE, INSIDE = "tokens-whole", "tokens-inside"
WORDS = ("apple", "rose", "tea")

QUERIES: dict[str, dict[str, Any]] = {
    "vector": {"vector": [1, 0.3], "k": 100},
    "exact": {"vector": [1, 0.3], "k": 100, "exact": True},
    "words": {"text": "apple rose", "mode": "lexical", "k": 100},
    "a phrase": {"text": '"apple apple"', "mode": "lexical", "k": 100},
    "hybrid": {"vector": [1, 0.3], "text": "apple rose", "mode": "hybrid", "k": 100},
    "like another": {"chunk_id": "in-3", "k": 100},
    "like another, by words": {"chunk_id": "in-3", "mode": "lexical", "k": 100},
    "filtered": {"vector": [1, 0.3], "filter": {"number": {"$lt": 20}}, "k": 100},
    "filtered for what is outside": {"vector": [1, 0.3], "filter": {"tenant": 2}, "k": 100},
    "filtered against": {"vector": [1, 0.3], "filter": {"$not": {"tenant": 1}}, "k": 100},
    "filtered by text": {"vector": [1, 0.3], "filter": {"@text": {"$contains": "rose"}}, "k": 100},
    "filtered afterwards": {"vector": [1, 0.3], "filter": {"number": {"$lt": 20}}, "filter_mode": "post", "k": 5},
    "groups": {"vector": [1, 0.3], "group_by": "colour", "group_size": 5, "k": 100},
    "groups of documents": {"vector": [1, 0.3], "group_by": "document", "group_size": 9, "k": 100},
    "boosts": {"vector": [1, 0.3], "boost": [{"filter": {"tenant": 2}, "weight": 1}], "k": 100},
    "a decay": {
        "vector": [1, 0.3],
        "boost": [{"field": "number", "decay": {"half_life": 2, "origin": 3}, "weight": 1}],
    },
    "mmr": {"vector": [1, 0.3], "mmr": {"lambda": 0.5, "fetch_k": 50}, "k": 20},
    "pages": {"vector": [1, 0.3], "offset": 5, "k": 100},
    "a threshold": {"vector": [1, 0.3], "score_threshold": 0.9, "k": 100},
}


def chunk(where: str, number: int) -> dict[str, Any]:
    tenant = 1 if where == "in" else 2
    text = f"{WORDS[number % 3]} apple {WORDS[number % 2]}" if where == "in" else "apple rose secret " * 3
    metadata = {"tenant": tenant, "number": number, "colour": ("red", "green")[number % 2] if where == "in" else "blue"}
    return {"id": f"{where}-{number}", "text": text, "embedding": [1 + number, number % 7], "metadata": metadata}


@pytest.fixture(scope="module")
def libraries(server: Server) -> None:
    """One library with rows inside and outside of the filter, and one with those inside alone."""
    with server.client() as client:
        for library in (WHOLE, INSIDE):
            client.post("/libraries", json={"id": library, "name": library, "dimension": 2}).raise_for_status()
            inside = [chunk("in", number) for number in range(30)]
            outside = [chunk("out", number) for number in range(60)] if library == WHOLE else []
            for document, some in (("mine", inside[:10]), ("theirs", outside[:10])):
                if some:
                    body = {"id": document, "chunks": some}
                    client.post(f"/libraries/{library}/documents", json=body).raise_for_status()
            # Mixed, so that they lie in the same parts of the index.
            rest = [
                one for pair in zip(outside[10:], [*inside[10:], *[None] * 30], strict=False) for one in pair if one
            ]
            body = {"chunks": rest if library == WHOLE else inside[10:]}
            client.post(f"/libraries/{library}/chunks", json=body).raise_for_status()


@pytest.fixture(scope="module")
def token(server: Server, libraries: None) -> dict[str, str]:
    """A token of the rows inside."""
    with server.client() as client:
        key = make_key(client, "read", libraries=["tokens-*"])
        return bearer(make_token(client, key, libraries=[WHOLE], filter={"tenant": 1}))


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer, but for what differs from one library or request to the next."""
    for one in answer["results"]:
        one.pop("created_at", None)
    meta = {name: value for name, value in answer["meta"].items() if name not in ("took_ms", "revision", "scanned")}
    return {"results": answer["results"], "meta": meta}


@pytest.mark.parametrize("name", QUERIES)
def test_answers_are_those_of_a_library_without_the_other_rows(
    client: httpx.Client, token: dict[str, str], name: str
) -> None:
    body = QUERIES[name]
    restricted = client.post(f"/libraries/{WHOLE}/query", json=body, headers=token).raise_for_status().json()
    alone = client.post(f"/libraries/{INSIDE}/query", json=body).raise_for_status().json()
    assert (restricted["meta"]["revision"], restricted["meta"]["scanned"]) == (0, 30)
    assert without_times(restricted) == without_times(alone)
    [in_batch] = client.post(f"/libraries/{WHOLE}/query/batch", json={"queries": [body]}, headers=token).json()[
        "results"
    ]
    assert without_times(in_batch) == without_times(restricted)


@pytest.mark.parametrize(
    "filter", [{}, {"number": {"$lt": 20}}, {"tenant": 2}, {"tenant": {"$ne": 1}}, {"@id": "out-1"}]
)
def test_counts_too(client: httpx.Client, token: dict[str, str], filter: dict[str, Any]) -> None:
    counts = [
        client.post(f"/libraries/{library}/chunks/count", json={"filter": filter}, headers=headers).json()
        for library, headers in ((WHOLE, token), (INSIDE, {}))
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
def test_a_chunk_outside_is_as_one_that_is_not_there(client: httpx.Client, token: dict[str, str], mode: str) -> None:
    problems = []
    for chunk_id in ("out-1", "out-9"):
        for path, body, at in (
            ("query", {"chunk_id": chunk_id, "mode": mode}, "/chunk_id"),
            ("query/batch", {"queries": [{"chunk_id": chunk_id, "mode": mode}]}, "/queries/0/chunk_id"),
        ):
            answers = [
                client.post(f"/libraries/{library}/{path}", json=body, headers=headers)
                for library, headers in ((WHOLE, token), (INSIDE, {}))
            ]
            problems += [assert_refused(answer, 404, "not_found", at) for answer in answers]
            for problem in problems[-2:]:
                del problem["request_id"]
            assert problems[-1] == problems[-2]
    assert client.post(f"/libraries/{WHOLE}/query", json={"chunk_id": "out-1"}).status_code == 200


def test_the_filter_is_followed_when_rows_change(client: httpx.Client, token: dict[str, str]) -> None:
    def count() -> int:
        return int(client.post(f"/libraries/{WHOLE}/chunks/count", json={}, headers=token).json()["count"])

    moved = client.patch(f"/libraries/{WHOLE}/chunks/out-59", json={"metadata": {"tenant": 1}})
    assert moved.status_code == 200
    assert count() == 31
    found = client.post(f"/libraries/{WHOLE}/query", json={"chunk_id": "out-59"}, headers=token)
    assert found.status_code == 200
    client.patch(f"/libraries/{WHOLE}/chunks/out-59", json={"metadata": {"tenant": 2}}).raise_for_status()
    assert count() == 30


def test_what_is_included_is_the_most_that_is_shown(client: httpx.Client, libraries: None) -> None:
    key = make_key(client, "read")
    token = bearer(make_token(client, key, libraries=[INSIDE], include=["text", "metadata.number"]))

    def ask(**options: Any) -> httpx.Response:
        return client.post(f"/libraries/{INSIDE}/query", json={"vector": [1, 0], "k": 1} | options, headers=token)

    [result] = ask().raise_for_status().json()["results"]
    assert (set(result) & {"text", "metadata", "embedding", "document"}, set(result["metadata"])) == (
        {"text", "metadata"},
        {"number"},
    )
    [result] = ask(include=["text"]).raise_for_status().json()["results"]
    assert "metadata" not in result
    assert ask(group_by="number").status_code == ask(group_by="document").status_code == 200
    for options in (
        {"include": ["metadata"]},
        {"include": ["text", "embedding"]},
        {"include": ["metadata.numbers"]},
        {"include": ["document"]},
        {"group_by": "colour"},
        {"group_by": "@document.colour"},
    ):
        assert_refused(ask(**options), 403, "forbidden")


def test_a_token_reaches_no_further_than_its_key(client: httpx.Client, libraries: None) -> None:
    key = make_key(client, "read", libraries=["tokens-*"])
    wide = bearer(make_token(client, key, libraries=["*"]))
    count = {"headers": wide, "json": {}}
    assert client.post(f"/libraries/{INSIDE}/chunks/count", **count).status_code == 200
    client.patch(f"/keys/{key['id']}", json={"libraries": [WHOLE]}).raise_for_status()
    assert client.post(f"/libraries/{INSIDE}/chunks/count", **count).status_code == 404
    assert client.post(f"/libraries/{WHOLE}/chunks/count", **count).status_code == 200
    body = {"libraries": ["elsewhere"], "expires_at": in_hours(1)}
    refused = client.post(f"/keys/{key['id']}/search-token", json=body)
    assert_refused(refused, 400, "invalid", "/libraries/0")


def test_a_token_ends(client: httpx.Client, libraries: None) -> None:
    key = make_key(client, "read")
    token = bearer(make_token(client, key, libraries=[INSIDE], expires_at=in_hours(1.5 / 3600)))
    statuses = set()
    while 401 not in statuses:
        statuses.add(client.post(f"/libraries/{INSIDE}/chunks/count", json={}, headers=token).status_code)
        time.sleep(0.05)
    assert statuses <= {200, 401}


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"expires_at": None}, "/expires_at"),
        ({"expires_at": in_hours(25)}, "/expires_at"),
        ({"expires_at": in_hours(-1)}, "/expires_at"),
        ({"libraries": []}, "/libraries"),
        ({"libraries": ["a b"]}, "/libraries/0"),
        ({"filter": {"a": {"$near": 1}}}, "/filter/a/$near"),
        ({"include": ["vector"]}, "/include/0"),
        ({"scopes": ["read"]}, "/scopes"),
    ],
)
def test_what_makes_no_token(client: httpx.Client, body: dict[str, Any], at: str) -> None:
    key = make_key(client, "read")
    body = {"libraries": ["*"], "expires_at": in_hours(1)} | body
    assert_refused(client.post(f"/keys/{key['id']}/search-token", json=body), 400, "invalid", at)


def test_a_token_must_fit_into_a_header(client: httpx.Client) -> None:
    key = make_key(client, "read")
    body = {"libraries": ["*"], "expires_at": in_hours(1), "filter": {"a": "b" * 3000}}
    assert_refused(client.post(f"/keys/{key['id']}/search-token", json=body), 400, "invalid")


def test_who_may_make_tokens(client: httpx.Client) -> None:
    key, other = make_key(client, "read"), make_key(client, "write")
    body = {"libraries": ["*"], "expires_at": in_hours(1)}
    statuses = [
        client.post(f"/keys/{key['id']}/search-token", json=body, headers=bearer(caller["key"])).status_code
        for caller in (key, other, make_key(client, "admin"), make_key(client, "admin", libraries=["*"]))
    ]
    assert statuses == [200, 403, 200, 403]
    token = make_token(client, key, libraries=["*"])
    assert client.post(f"/keys/{key['id']}/search-token", json=body, headers=bearer(token)).status_code == 403


def test_the_examples_of_the_docs_make_a_key_and_a_token_of_it(server: Server, client: httpx.Client) -> None:
    page = (ROOT / "docs/access.md").read_text().replace("localhost:8000", server.url)
    page = page.replace("data/admin_key", str(server.folder / "admin_key"))

    def run(script: str, **variables: str) -> dict[str, Any]:
        environ = os.environ | {"NO_PROXY": "*"} | variables
        ended = subprocess.run(["bash", "-euc", script], env=environ, capture_output=True, check=True)
        answer: dict[str, Any] = json.loads(ended.stdout)
        return answer

    makes_key, makes_token = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    key = run(makes_key)
    token = bearer(run(makes_token, KEY=key["key"])["token"])
    client.post("/libraries", json={"id": "docs-en", "name": "Docs", "dimension": 2}).raise_for_status()
    assert client.post("/libraries/docs-en/chunks/count", json={}, headers=token).json()["count"] == 0
    client.delete("/libraries/docs-en").raise_for_status()
    client.delete(f"/keys/{key['id']}").raise_for_status()
