"""Filters over HTTP: query, list, count and delete agree, before and after the rows are in index files."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.problems import assert_refused
from tests.server import Server, until

pytestmark = pytest.mark.any_database

ROWS = 1200
FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"number": 7}, lambda row: row["number"] == 7),
    ({"colour": "red"}, lambda row: row.get("colour") == "red"),
    ({"colour": {"$ne": "red"}}, lambda row: row.get("colour") != "red"),
    ({"number": {"$gte": 10, "$lt": 20}}, lambda row: 10 <= row["number"] < 20),
    ({"tags": {"$contains": "b"}}, lambda row: "b" in row["tags"]),
    ({"$or": [{"number": {"$lt": 3}}, {"nested.deep": True}]}, lambda row: row["number"] < 3 or row["nested"]["deep"]),
    ({"$not": {"colour": {"$in": ["red", "blue"]}}}, lambda row: row.get("colour") not in ("red", "blue")),
    ({"colour": {"$exists": False}}, lambda row: "colour" not in row),
    ({"number": -1}, lambda row: row["number"] < 0),
]


def metadata(number: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "number": number,
        "tags": ["a", "b"] if number % 3 else ["a"],
        "nested": {"deep": number % 100 == 0},
    }
    if number % 4:
        found["colour"] = ["red", "green", "blue"][number % 3]
    return found


def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=["in the tail", "in a segment"])
def filled(request: pytest.FixtureRequest, server: Server) -> str:
    """A library with rows in memory or in index files, every second in a document."""
    library = f"filtered-{request.param.split()[-1]}"
    with server.client() as client:
        client.post("/libraries", json={"id": library, "name": "Filtered", "dimension": 3}).raise_for_status()
        rows = vectors().tolist()
        document = {"id": "even", "chunks": [{"id": "first", "embedding": [1, 1, 1], "metadata": {"in": "document"}}]}
        client.post(f"/libraries/{library}/documents", json=document).raise_for_status()
        chunks = [
            {"id": f"row-{number}", "text": f"number {number}", "embedding": rows[number], "metadata": metadata(number)}
            | ({} if number % 2 else {"document_id": "even"})
            for number in range(ROWS)
        ]
        few = 600 if request.param == "in the tail" else ROWS
        client.post(f"/libraries/{library}/chunks", json={"chunks": chunks[:few]}).raise_for_status()
        if request.param == "in a segment":
            until(lambda: is_sealed(client, library), "the rows are in a segment")
    return library


def is_sealed(client: httpx.Client, library: str) -> bool:
    index = client.get(f"/libraries/{library}/stats").json()["index"]
    return bool(index["segments"]) and index["rows_pending"] == 0


def rows_of(client: httpx.Client, library: str) -> int:
    return int(client.post(f"/libraries/{library}/chunks/count", json={}).json()["count"]) - 1


@pytest.mark.parametrize(("condition", "matches"), FILTERS, ids=lambda value: str(value)[:60])
def test_query_list_and_count_agree(client: httpx.Client, filled: str, condition: dict[str, Any], matches: Any) -> None:
    path = f"/libraries/{filled}"
    expected = [f"row-{number}" for number in range(rows_of(client, filled)) if matches(metadata(number))]
    # The chunk of the document has none of the fields.
    others = {"colour": {"$ne": "red"}}, {"$not": {"colour": {"$in": ["red", "blue"]}}}, {"colour": {"$exists": False}}
    if condition in others:
        expected.insert(0, "first")
    assert client.post(f"{path}/chunks/count", json={"filter": condition}).json() == {"count": len(expected)}
    listed: list[str] = []
    query: dict[str, Any] = {"filter": json.dumps(condition), "limit": 100}
    while True:
        page = client.get(f"{path}/chunks", params=query).json()
        listed += [chunk["id"] for chunk in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == expected
    answer = client.post(f"{path}/query", json={"vector": [1, 2, 3], "k": 1000, "filter": condition}).json()
    assert sorted(result["id"] for result in answer["results"]) == sorted(expected)[:1000]
    assert answer["meta"]["exact"]
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)


def test_the_nearest_that_match_are_found(client: httpx.Client, filled: str) -> None:
    query = {"vector": [1, -2, 0.5], "k": 5, "include": []}
    everything = client.post(f"/libraries/{filled}/query", json=query | {"k": 1000}).json()["results"]
    red = [
        one["id"] for one in everything if one["id"] != "first" and metadata(int(one["id"][4:])).get("colour") == "red"
    ]
    for mode in ("auto", "pre"):
        options = {"filter": {"colour": "red"}, "filter_mode": mode}
        answer = client.post(f"/libraries/{filled}/query", json=query | options).json()
        assert [result["id"] for result in answer["results"]] == red[:5]
        assert "filter (" in answer["meta"]["plan"]
    after = client.post(
        f"/libraries/{filled}/query", json=query | {"filter": {"colour": "red"}, "filter_mode": "post"}
    ).json()
    nearest = {one["id"] for one in everything[:5]}
    assert [result["id"] for result in after["results"]] == [one for one in red if one in nearest]
    assert after["meta"]["incomplete"]
    assert not after["meta"]["exact"]


def test_queries_of_a_batch_have_filters_of_their_own(client: httpx.Client, filled: str) -> None:
    conditions = [{}, {"colour": "red"}, {"colour": "blue"}, {"colour": "red"}, {"number": 3}]
    queries = [{"vector": [1, 1, index], "k": 4, "filter": each} for index, each in enumerate(conditions)]
    together = client.post(f"/libraries/{filled}/query/batch", json={"queries": queries}).json()["results"]
    for query, answer in zip(queries, together, strict=True):
        alone = client.post(f"/libraries/{filled}/query", json=query).json()
        assert alone["results"] == answer["results"]


def test_own_fields_can_be_filtered(client: httpx.Client, filled: str) -> None:
    path = f"/libraries/{filled}/chunks/count"

    def count(condition: dict[str, Any]) -> int:
        return int(client.post(path, json={"filter": condition}).raise_for_status().json()["count"])

    assert count({"@id": "row-5"}) == 1
    assert count({"@id": {"$prefix": "row-"}}) == rows_of(client, filled)
    assert count({"@document_id": "even"}) == rows_of(client, filled) // 2 + 1
    assert count({"@document_id": None}) == rows_of(client, filled) // 2
    assert count({"@created_at": {"$gt": "2020-01-01T00:00:00Z"}}) == rows_of(client, filled) + 1
    assert count({"@created_at": {"$lt": "2020-01-01T00:00:00+01:00"}}) == 0
    created = client.get(f"/libraries/{filled}/chunks/row-5").json()["created_at"]
    assert count({"@created_at": {"$gte": created}, "@id": "row-5"}) == 1
    assert count({"@created_at": {"$gt": created}, "@id": "row-5"}) == 0


def test_a_list_takes_document_and_filter(client: httpx.Client, filled: str) -> None:
    query = {"filter": '{"number": {"$lt": 10}}', "document_id": "even"}
    listed = client.get(f"/libraries/{filled}/chunks", params=query).json()["items"]
    assert [chunk["metadata"]["number"] for chunk in listed] == [0, 2, 4, 6, 8]
    assert_refused(
        client.get(f"/libraries/{filled}/chunks", params=query | {"document_id": "odd"}), 400, "invalid", "/document_id"
    )


def test_values_are_counted(client: httpx.Client, filled: str) -> None:
    path, rows = f"/libraries/{filled}/chunks/facets", rows_of(client, filled)
    colours = [metadata(number).get("colour") for number in range(rows)]
    found = client.post(path, json={"field": "colour"}).json()
    assert {one["value"]: one["count"] for one in found["facets"]} == {
        colour: colours.count(colour) for colour in ("red", "green", "blue")
    }
    assert (found["values"], found["chunks"]) == (3, rows + 1)
    few = client.post(path, json={"field": "tags", "filter": {"number": {"$lt": 6}}, "limit": 1}).json()
    assert few == {"facets": [{"value": "a", "count": 6}], "values": 2, "chunks": 6}


def test_values_are_searched_and_come_page_by_page(client: httpx.Client, filled: str) -> None:
    path = f"/libraries/{filled}/chunks/facets"

    def values(**body: Any) -> tuple[list[Any], int]:
        found = client.post(path, json=body).raise_for_status().json()
        return [one["value"] for one in found["facets"]], found["values"]

    assert values(field="colour", search="RE", order_by="value") == (["green", "red"], 2)
    assert values(field="colour", order_by="value") == (["blue", "green", "red"], 3)
    assert values(field="colour", order_by="value", offset=1, limit=1) == (["green"], 3)
    by_count, total = values(field="colour")
    assert values(field="colour", offset=2) == (by_count[2:], total)
    assert values(field="colour", offset=3) == ([], 3)
    assert values(field="number", search="1") == ([], 0)
    ids, total = values(field="@id", search="OW-1", order_by="value", limit=3)
    assert (ids, total > 3) == (["row-1", "row-10", "row-100"], True)
    for field, value in (("order_by", "name"), ("offset", -1), ("offset", 1_000_001), ("search", 1)):
        assert_refused(client.post(path, json={"field": "colour", field: value}), 400, "invalid", f"/{field}")


def test_fields_are_summarized(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    rows: list[dict[str, Any]] = [
        {"n": 1, "tags": ["a", 2], "file.name": "x", "deep": {"a": None}},
        {"n": 2.5, "tags": [], "deep": {"a": True}},
        {"n": 3.0, "tags": ["a", {"b": 1}], "deep": "none"},
        {"n": "3"},
    ]
    chunks = [{"id": f"{i}", "embedding": [1, i, 0], "metadata": metadata} for i, metadata in enumerate(rows)]
    client.post(f"{path}/documents", json={"id": "d", "metadata": {"year": 1999}, "chunks": chunks}).raise_for_status()
    fields = {
        "n": (4, 4, {"integer": [2, 1, 3], "number": [1, 2.5, 2.5], "string": [1, "3", "3"]}),
        "tags": (3, 2, {"array": [3]}),
        "deep": (3, 1, {"object": [2], "string": [1, "none", "none"]}),
        "deep.a": (2, 2, {"boolean": [1], "null": [1]}),
        "file\\.name": (1, 1, {"string": [1, "x", "x"]}),
        "@document.year": (4, 1, {"integer": [4, 1999, 1999]}),
        "@id": (4, 4, {"string": [4, "0", "3"]}),
        "no": (0, 0, {}),
    }

    def summaries(**body: Any) -> tuple[dict[str, Any], int]:
        answer = client.post(f"{path}/chunks/fields", json=body).raise_for_status().json()
        found = {
            one["field"]: (
                one["count"],
                one["distinct"],
                {kind: [*each.values()] for kind, each in one["types"].items()},
            )
            for one in answer["fields"]
        }
        assert len(found) == len(answer["fields"])
        return found, answer["omitted"]

    # Those that most chunks have come first.
    first = ["@document.year", "n", "deep", "tags", "deep.a", "file\\.name"]
    found, omitted = summaries()
    assert (list(found), omitted) == (first, 0)
    assert found == {name: fields[name] for name in first}
    found, omitted = summaries(fields=[*fields, "n"])
    assert (list(found), found, omitted) == (list(fields), fields, 0)
    assert summaries(filter={"deep.a": True}, fields=["n"]) == ({"n": (1, 1, {"number": [1, 2.5, 2.5]})}, 0)
    assert summaries(filter={"n": "3"}) == (
        {"@document.year": (1, 1, {"integer": [1, 1999, 1999]}), "n": (1, 1, {"string": [1, "3", "3"]})},
        0,
    )
    assert summaries(filter={"n": None}) == summaries(fields=[]) == ({}, 0)
    for value, pointer in ((["n", "@created_at"], "/fields/1"), (["$or"], "/fields/0"), (["n"] * 501, "/fields")):
        assert_refused(client.post(f"{path}/chunks/fields", json={"fields": value}), 400, "invalid", pointer)


def test_no_more_fields_are_summarized_than_fit(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}/chunks"
    chunks = [
        {"embedding": [1, i, 0], "metadata": {"common": 1, **{f"{i}-{n}": n for n in range(300)}}} for i in range(2)
    ]
    client.post(path, json={"chunks": chunks}).raise_for_status()
    answer = client.post(f"{path}/fields", json={}).raise_for_status().json()
    assert (answer["fields"][0]["field"], len(answer["fields"]), answer["omitted"]) == ("common", 500, 101)


def test_what_is_changed_is_found_by_what_it_is_now(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}/chunks"
    chunks = [{"id": f"{i}", "embedding": [1, i, 0], "metadata": {"state": "old"}} for i in range(5)]
    client.post(path, json={"chunks": chunks}).raise_for_status()
    old, new = {"filter": {"state": "old"}}, {"filter": {"state": "new"}}
    assert client.post(f"{path}/count", json=old).json() == {"count": 5}
    for i in range(3):
        client.patch(f"{path}/{i}", json={"metadata": {"state": "new"}}).raise_for_status()
        assert client.post(f"{path}/count", json=old).json() == {"count": 4 - i}
        assert client.post(f"{path}/count", json=new).json() == {"count": i + 1}
    client.delete(f"{path}/0").raise_for_status()
    assert client.post(f"{path}/count", json=new).json() == {"count": 2}


def test_what_matches_is_deleted_and_nothing_else(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}/chunks"
    chunks = [{"id": f"{i}", "embedding": [1, i, 0], "metadata": {"even": i % 2 == 0}} for i in range(9)]
    client.post(path, json={"chunks": chunks}).raise_for_status()
    assert client.post(f"{path}/delete", json={"filter": {"even": True}}).json() == {"deleted": 5}
    assert [chunk["id"] for chunk in client.get(path).json()["items"]] == ["1", "3", "5", "7"]
    assert client.post(f"{path}/delete", json={"filter": {"even": True}}).json() == {"deleted": 0}
    assert_refused(client.post(f"{path}/delete", json={"filter": {}}), 400, "invalid", "/filter")
    assert_refused(client.post(f"{path}/delete", json={"filter": {"even": False}, "ids": ["1"]}), 400, "invalid", "")
    assert client.post(f"{path}/count", json={}).json() == {"count": 4}


@pytest.mark.parametrize(
    ("condition", "pointer"),
    [
        ({"x": {"$in": 3}}, "/filter/x/$in"),
        ({"x": {"$like": "a%"}}, "/filter/x/$like"),
        ({"$and": []}, "/filter/$and"),
        ({"$or": [{"a": 1}, {"b": {"$gt": True}}]}, "/filter/$or/1/b/$gt"),
        ({"@name": "x"}, "/filter/@name"),
        ({"@created_at": {"$gt": "yesterday"}}, "/filter/@created_at/$gt"),
        ({"a/b": {"$prefix": 1}}, "/filter/a~1b/$prefix"),
        ({"x": {"deep": 1}}, "/filter/x/deep"),
        ({"x": {"$gt": 2**64}}, "/filter/x/$gt"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_filter_is_pointed_at(
    client: httpx.Client, library: str, condition: dict[str, Any], pointer: str
) -> None:
    path = f"/libraries/{library}"
    assert_refused(
        client.post(f"{path}/query", json={"vector": [1, 0, 0], "filter": condition}), 400, "invalid", pointer
    )
    assert_refused(client.post(f"{path}/chunks/count", json={"filter": condition}), 400, "invalid", pointer)
    assert_refused(client.post(f"{path}/chunks/delete", json={"filter": condition}), 400, "invalid", pointer)
    assert_refused(client.get(f"{path}/chunks", params={"filter": json.dumps(condition)}), 400, "invalid", pointer)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"a"', "{'a': 1}"])
def test_a_list_takes_a_filter_in_json_only(client: httpx.Client, library: str, text: str) -> None:
    assert_refused(client.get(f"/libraries/{library}/chunks", params={"filter": text}), 400, "invalid", "/filter")


def test_a_parameter_is_given_once(client: httpx.Client, library: str) -> None:
    params = [("filter", '{"n": 3}'), ("filter", '{"n": 4}')]
    assert_refused(client.get(f"/libraries/{library}/chunks", params=params), 400, "invalid", "/filter")


@pytest.mark.parametrize("field", ["@created_at", "@name", "$or", "$eq"])
def test_values_are_counted_of_fields_that_have_some(client: httpx.Client, library: str, field: str) -> None:
    path = f"/libraries/{library}/chunks"
    client.post(path, json={"chunks": [{"id": "a", "embedding": [1, 0, 0]}]}).raise_for_status()
    assert_refused(client.post(f"{path}/facets", json={"field": field}), 400, "invalid", "/field")
    for own, value in (("@id", "a"), ("@document_id", None)):
        answer = client.post(f"{path}/facets", json={"field": own}).json()
        assert answer["facets"] == [{"value": value, "count": 1}]
