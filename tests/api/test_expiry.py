"""From `expires_at` on, a chunk or a document is in no answer of any path, as if it were deleted."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

PAST, FUTURE = "2001-01-01T00:00:00Z", "2101-01-01T00:00:00+02:00"
SHOWN_PAST, SHOWN_FUTURE = "2001-01-01T00:00:00.000000Z", "2100-12-31T22:00:00.000000Z"
# Each of these is gone: by itself, with its document, and though its document stays.
GONE = ["own", "inherited", "of-living"]
LEFT = ["plain", "later", "of-later", "also-of-living"]


def chunk(chunk_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": chunk_id, "text": f"whale {chunk_id}", "embedding": [1, 0, 0], "metadata": {"n": chunk_id}} | fields


@pytest.fixture
def path(client: httpx.Client, library: str) -> str:
    """The path of a library in which some chunks have expired."""
    path = f"/libraries/{library}"
    documents = [
        {"id": "dead", "expires_at": PAST, "chunks": [chunk("inherited", expires_at=FUTURE)]},
        {"id": "later", "expires_at": FUTURE, "metadata": {"kind": "d"}, "chunks": [chunk("of-later")]},
        {"id": "living", "chunks": [chunk("of-living", expires_at=PAST), chunk("also-of-living", expires_at=None)]},
    ]
    client.post(f"{path}/documents/batch", json={"documents": documents}).raise_for_status()
    chunks = [chunk("own", expires_at=PAST), chunk("plain"), chunk("later", expires_at=FUTURE)]
    client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    return path


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def ids_of(items: list[dict[str, Any]]) -> list[str]:
    return sorted(item["id"] for item in items)


@pytest.mark.parametrize(
    "query",
    [
        {"vector": [1, 0, 0]},
        {"vector": [1, 0, 0], "exact": True},
        {"vector": [1, 0, 0], "filter": {"n": {"$exists": True}}},
        {"vector": [1, 0, 0], "filter": {"n": {"$exists": True}}, "filter_mode": "post"},
        {"text": "whale", "mode": "lexical"},
        {"text": "whale", "vector": [1, 0, 0], "mode": "hybrid"},
        {"vector": [1, 0, 0], "mmr": {"lambda": 0.5}},
        {"vector": [1, 0, 0], "group_by": "n"},
        {"vector": [1, 0, 0], "boost": [{"field": "@created_at", "decay": {"half_life": 60}, "weight": 0.1}]},
    ],
)
def test_no_query_finds_what_has_expired(client: httpx.Client, path: str, query: dict[str, Any]) -> None:
    assert ids_of(post(client, f"{path}/query", **query)["results"]) == sorted(LEFT)
    [answer] = post(client, f"{path}/query/batch", queries=[query])["results"]
    assert ids_of(answer["results"]) == sorted(LEFT)


def test_groups_of_documents_and_words_know_only_what_is_left(client: httpx.Client, path: str) -> None:
    answer = post(client, f"{path}/query", vector=[1, 0, 0], group_by="document", group_size=5)
    assert ids_of(answer["results"]) == sorted(LEFT)
    answer = post(client, f"{path}/query", text='"whale own"', mode="lexical")
    assert answer["results"] == []
    assert answer["meta"]["scanned"] == 0


def test_no_list_count_or_facet_has_it(client: httpx.Client, path: str) -> None:
    assert ids_of(client.get(f"{path}/chunks").json()["items"]) == sorted(LEFT)
    filter = {"n": {"$exists": True}}
    filtered = client.get(f"{path}/chunks", params={"filter": '{"n": {"$exists": true}}'}).json()["items"]
    assert ids_of(filtered) == sorted(LEFT)
    assert ids_of(client.get(f"{path}/chunks", params={"document_id": "living"}).json()["items"]) == ["also-of-living"]
    assert client.get(f"{path}/chunks", params={"document_id": "dead"}).status_code == 400
    assert post(client, f"{path}/chunks/count") == post(client, f"{path}/chunks/count", filter=filter) == {"count": 4}
    facets = post(client, f"{path}/chunks/facets", field="n")
    assert ids_of([{"id": one["value"]} for one in facets["facets"]]) == sorted(LEFT)
    ordered = post(client, f"{path}/chunks/list", order_by=[{"field": "n"}])["items"]
    assert [item["id"] for item in ordered] == sorted(LEFT)
    [field] = post(client, f"{path}/chunks/fields", fields=["n"])["fields"]
    assert (field["count"], field["distinct"]) == (4, 4)
    documents = client.get(f"{path}/documents").json()["items"]
    assert {item["id"]: item["chunk_count"] for item in documents} == {"later": 1, "living": 1}
    filtered = client.get(f"{path}/documents", params={"filter": '{"@id": {"$exists": true}}'}).json()["items"]
    assert filtered == documents
    stats = client.get(f"{path}/stats").json()
    assert (stats["documents"], stats["chunks"], stats["index"]["rows_pending"]) == (2, 4, 4)


def test_reading_it_by_its_id_says_that_it_is_not_there(client: httpx.Client, path: str) -> None:
    found = post(client, f"{path}/chunks/get", ids=[*GONE, *LEFT])
    assert (ids_of(found["items"]), found["missing"]) == (sorted(LEFT), GONE)
    for name in GONE:
        at = f"{path}/chunks/{name}"
        assert [client.get(at).status_code, client.delete(at).status_code] == [404, 404]
        assert client.patch(at, json={"expires_at": None}).status_code == 404
        assert client.post(f"{path}/query", json={"chunk_id": name}).status_code == 404
        update = {"chunks": [{"id": name, "metadata": {}}], "mode": "update"}
        assert client.post(f"{path}/chunks", json=update).status_code == 404
    at = f"{path}/documents/dead"
    assert [client.get(at).status_code, client.delete(at).status_code] == [404, 404]
    assert client.patch(at, json={"expires_at": None}).status_code == 404
    assert client.get(f"{path}/documents/living").json()["chunk_count"] == 1
    attach = {"chunks": [chunk("plain", document_id="dead")]}
    assert client.post(f"{path}/chunks", json=attach).json()["errors"][0]["pointer"] == "/chunks/0/document_id"


def test_no_change_by_ids_or_filter_reaches_it(client: httpx.Client, path: str) -> None:
    everything = {"n": {"$exists": True}}
    assert post(client, f"{path}/chunks/update", ids=[*GONE, "plain"], metadata={"m": 1}) == {"updated": 1}
    assert post(client, f"{path}/chunks/update", filter=everything, metadata={"m": 2}) == {"updated": 4}
    assert post(client, f"{path}/chunks/delete", ids=[*GONE, "plain"]) == {"deleted": 1}
    assert post(client, f"{path}/chunks/delete", filter=everything) == {"deleted": 3}


def test_its_id_is_free(client: httpx.Client, path: str) -> None:
    written = post(client, f"{path}/chunks", chunks=[chunk("own"), chunk("of-living"), chunk("plain")])
    assert (written["created"], written["updated"]) == (2, 1)
    assert client.get(f"{path}/chunks/of-living").json()["document_id"] is None
    assert post(client, f"{path}/chunks", chunks=[chunk("inherited")], mode="insert")["created"] == 1
    assert client.get(f"{path}/chunks/inherited").json()["created_at"] > SHOWN_PAST
    dead = client.post(f"{path}/documents", json={"id": "dead", "chunks": [chunk("new")]})
    assert dead.status_code == 201
    assert ids_of(client.get(f"{path}/chunks", params={"document_id": "dead"}).json()["items"]) == ["new"]


def test_a_put_makes_it_anew(client: httpx.Client, path: str) -> None:
    dead = client.put(f"{path}/documents/dead", json={"chunks": [chunk("inherited"), chunk("own")]})
    assert (dead.status_code, dead.json()["created"]) == (201, 2)
    living = client.put(f"{path}/documents/living", json={"chunks": [chunk("of-living"), chunk("also-of-living")]})
    counts = {name: living.json()[name] for name in ("created", "updated", "unchanged", "deleted")}
    assert counts == {"created": 1, "updated": 0, "unchanged": 1, "deleted": 0}


def test_another_expiry_is_a_change_and_the_same_one_is_none(client: httpx.Client, library: str) -> None:
    at = f"/libraries/{library}/documents/d"
    nameless = {"text": "t", "embedding": [0, 1, 0]}

    def put(expires_at: str | None) -> tuple[int, int, list[str]]:
        chunks = [chunk("a", expires_at=expires_at), nameless | {"expires_at": expires_at}]
        answer = client.put(at, json={"chunks": chunks}).raise_for_status().json()
        return answer["updated"], answer["unchanged"], answer["chunk_ids"]

    _, _, ids = put(None)
    assert put(None) == (0, 2, ids)
    assert put(FUTURE) == (2, 0, ids)
    assert put(FUTURE) == (0, 2, ids)
    shown = client.get(f"/libraries/{library}/chunks", params={"document_id": "d"}).json()["items"]
    assert [item["expires_at"] for item in shown] == [SHOWN_FUTURE] * 2


def test_a_put_that_ends_a_document_still_finds_what_it_has(client: httpx.Client, path: str) -> None:
    body = {"chunks": [chunk("also-of-living"), chunk("new")], "expires_at": PAST}
    answer = client.put(f"{path}/documents/living", json=body).raise_for_status().json()
    assert (answer["created"], answer["updated"], answer["unchanged"]) == (1, 0, 1)
    assert client.get(f"{path}/documents/living").status_code == 404
    assert client.get(f"{path}/chunks/new").status_code == 404


def test_it_is_read_back_and_kept_unless_it_is_named(client: httpx.Client, path: str) -> None:
    later = f"{path}/chunks/later"

    def shown() -> str | None:
        found: str | None = client.get(later).json()["expires_at"]
        return found

    assert shown() == SHOWN_FUTURE
    tag = client.get(later).headers["ETag"]
    assert client.patch(later, json={"metadata": {"m": 1}}).json()["expires_at"] == SHOWN_FUTURE
    post(client, f"{path}/chunks", chunks=[{"id": "later", "metadata": {}}], mode="update")
    assert shown() == SHOWN_FUTURE
    assert client.patch(later, json={"expires_at": None}).json()["expires_at"] is None
    assert client.get(later).headers["ETag"] != tag
    post(client, f"{path}/chunks/update", ids=["later"], metadata={}, expires_at=FUTURE)
    assert shown() == SHOWN_FUTURE
    post(client, f"{path}/chunks", chunks=[chunk("later")])
    assert shown() is None
    document = f"{path}/documents/later"
    assert client.get(document).json()["expires_at"] == SHOWN_FUTURE
    assert client.patch(document, json={"title": "T"}).json()["expires_at"] == SHOWN_FUTURE
    assert client.patch(document, json={"expires_at": None}).json()["expires_at"] is None


def test_what_is_given_a_time_in_the_past_is_gone_at_once(client: httpx.Client, path: str) -> None:
    answer = client.patch(f"{path}/chunks/plain", json={"expires_at": PAST})
    assert (answer.status_code, answer.json()["expires_at"]) == (200, SHOWN_PAST)
    assert client.get(f"{path}/chunks/plain").status_code == 404
    assert client.patch(f"{path}/documents/living", json={"expires_at": PAST}).json()["expires_at"] == SHOWN_PAST
    tag = client.get(f"{path}/chunks/later").headers["ETag"]
    post(client, f"{path}/chunks/update", filter={"@id": "later"}, metadata={}, expires_at=PAST)
    assert client.patch(f"{path}/chunks/later", json={}, headers={"If-Match": tag}).status_code == 412
    assert ids_of(post(client, f"{path}/query", vector=[1, 0, 0])["results"]) == ["of-later"]
    assert ids_of(client.get(f"{path}/chunks").json()["items"]) == ["of-later"]


def test_filters_see_the_earlier_of_both_times(client: httpx.Client, path: str) -> None:
    def found(condition: Any) -> list[str]:
        return ids_of(client.post(f"{path}/query", json={"vector": [1, 0, 0], "filter": condition}).json()["results"])

    assert found({"@expires_at": {"$exists": False}}) == ["also-of-living", "plain"]
    assert found({"@expires_at": FUTURE}) == found({"@expires_at": {"$gt": PAST}}) == ["later", "of-later"]
    client.patch(f"{path}/documents/living", json={"expires_at": "2050-01-01T00:00:00Z"}).raise_for_status()
    client.patch(f"{path}/chunks/also-of-living", json={"expires_at": FUTURE}).raise_for_status()
    assert found({"@expires_at": {"$lt": "2051-01-01T00:00:00Z"}}) == ["also-of-living"]


@pytest.mark.parametrize(
    "value", ["2101-01-01", "2101-01-01T00:00:00", "soon", 1, True, "2101-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00"]
)
def test_what_is_no_time_is_refused(client: httpx.Client, library: str, value: Any) -> None:
    path = f"/libraries/{library}"
    bodies = {
        "/chunks": ({"chunks": [chunk("a", expires_at=value)]}, "/chunks/0/expires_at"),
        "/documents": ({"expires_at": value, "chunks": [chunk("a")]}, "/expires_at"),
    }
    for at, (body, pointer) in bodies.items():
        answer = client.post(f"{path}{at}", json=body)
        assert answer.status_code == 400
        [error] = answer.json()["errors"]
        assert error["pointer"] == pointer
        assert "null" in error["detail"]
    assert post(client, f"{path}/chunks/count") == {"count": 0}


def test_pages_go_on_while_things_expire(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    names = [f"c{i:02}" for i in range(20)]
    post(client, f"{path}/chunks", chunks=[chunk(name) for name in names])
    for body in ({}, {"filter": {"n": {"$exists": True}}}, {"order_by": [{"field": "n", "direction": "asc"}]}):
        seen: list[str] = []
        cursor = None
        expired: set[str] = set()
        while cursor is not None or not seen:
            page = post(client, f"{path}/chunks/list", limit=3, **body, **({"cursor": cursor} if cursor else {}))
            some, cursor = [item["id"] for item in page["items"]], page["next_cursor"]
            seen += some
            # One that was shown, the last one included, and one that was not.
            fresh = {some[-1], names[(names.index(some[-1]) + 2) % 20]} - expired
            expired |= fresh
            post(client, f"{path}/chunks/update", ids=sorted(fresh), metadata={}, expires_at=PAST)
        assert len(set(seen)) == len(seen)
        assert set(seen) >= set(names) - expired
        post(client, f"{path}/chunks", chunks=[chunk(name) for name in names])


def test_every_worker_sees_it_end_in_time(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    end = datetime.now(UTC) + timedelta(seconds=1)
    expires_at = end.isoformat()
    document = {"id": "d", "expires_at": expires_at, "chunks": [chunk("in-document")]}
    client.post(f"{path}/documents", json=document).raise_for_status()
    post(client, f"{path}/chunks", chunks=[chunk("own", expires_at=expires_at), chunk("plain")])

    def found() -> list[list[str]]:
        return [
            ids_of(post(client, f"{path}/query", vector=[1, 0, 0])["results"]),
            ids_of(client.get(f"{path}/chunks").json()["items"]),
            ids_of(post(client, f"{path}/chunks/get", ids=["in-document", "own", "plain"])["items"]),
        ]

    while datetime.now(UTC) < end:
        before = datetime.now(UTC)
        answers = found()
        if datetime.now(UTC) < end:
            assert answers == [["in-document", "own", "plain"]] * 3
        elif before >= end:
            assert answers == [["plain"]] * 3
        time.sleep(0.02)
    for _ in range(20):
        with httpx.Client(base_url=client.base_url, headers=client.headers) as another:
            assert ids_of(post(another, f"{path}/query", vector=[1, 0, 0])["results"]) == ["plain"]
        assert found() == [["plain"]] * 3


def test_chunks_make_a_new_document_where_the_one_they_name_has_expired(client: httpx.Client, path: str) -> None:
    attached = chunk("plain", document_id="dead")
    assert post(client, f"{path}/chunks", chunks=[attached], create_documents=True)["updated"] == 1
    assert client.get(f"{path}/documents/dead").json()["expires_at"] is None
    assert ids_of(client.get(f"{path}/chunks", params={"document_id": "dead"}).json()["items"]) == ["plain"]


def test_an_insert_that_skips_ids_in_use_takes_those_of_what_has_expired(client: httpx.Client, path: str) -> None:
    chunks = [chunk(name) for name in ("own", "plain", "inherited")]
    written = post(client, f"{path}/chunks", chunks=chunks, mode="insert", on_invalid="skip")
    assert written["ids"] == ["own", "inherited"]
    assert [skipped["index"] for skipped in written["skipped"]] == [1]


def test_a_chunk_without_a_vector_expires_too(client: httpx.Client, path: str) -> None:
    words = {"text": "whale", "mode": "lexical"}
    post(client, f"{path}/chunks", chunks=[chunk("bare", embedding=None, expires_at=FUTURE)])
    assert ids_of(post(client, f"{path}/query", **words)["results"]) == sorted([*LEFT, "bare"])
    assert post(client, f"{path}/chunks/count", filter={"@expires_at": FUTURE}) == {"count": 3}
    client.patch(f"{path}/chunks/bare", json={"expires_at": PAST}).raise_for_status()
    assert ids_of(post(client, f"{path}/query", **words)["results"]) == sorted(LEFT)
    assert post(client, f"{path}/chunks/count") == {"count": 4}
