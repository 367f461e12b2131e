"""Lists in the order of fields: pages are slices of one order, which is that of a plain sort, whatever is written
meanwhile."""

import base64
import json
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

# By id, in order of creation.
ROWS: dict[str, dict[str, Any]] = {
    "a": {"n": 2, "kind": "x", "deep": {"t": "é"}},
    "b": {"n": 10},
    "c": {"n": "10", "kind": "y"},
    "d": {"kind": "x"},
    "e": {"n": None, "kind": "X"},
    "f": {"n": 2.5, "kind": "y"},
    "g": {"n": [1], "kind": "x"},
    "h": {"n": True, "kind": None},
    "i": {"n": 2.0, "kind": "x", "deep": {"t": "e"}},
    "j": {"n": {"m": 1}, "kind": "x", "file.name": 3},
    "k": {"n": -1, "kind": "y", "file.name": 1},
}


@pytest.fixture
def path(client: httpx.Client, library: str) -> str:
    """The chunks of a library of ROWS, written in two requests, some in a document."""
    path = f"/libraries/{library}"
    client.post(f"{path}/documents", json={"id": "d", "chunks": [chunk(name) for name in "ab"]}).raise_for_status()
    for names in ("cdefg", "hijk"):
        client.post(f"{path}/chunks", json={"chunks": [chunk(name) for name in names]}).raise_for_status()
    return f"{path}/chunks"


def chunk(name: str, **metadata: Any) -> dict[str, Any]:
    return {"id": name, "embedding": [1, len(name), 0], "metadata": metadata or ROWS[name]}


def pages(client: httpx.Client, path: str, **body: Any) -> list[list[str]]:
    """The ids of a list, page by page."""
    found, cursor = [], ""
    while cursor is not None:
        asked = body | ({"cursor": cursor} if cursor else {})
        page = client.post(f"{path}/list", json=asked).raise_for_status().json()
        assert page.keys() == {"items", "next_cursor"}
        found.append([item["id"] for item in page["items"]])
        cursor = page["next_cursor"]
    return found


def by(*fields: str) -> list[dict[str, str]]:
    """An order; a field with a minus is descending."""
    return [{"field": field.lstrip("-"), "direction": "desc" if field.startswith("-") else "asc"} for field in fields]


ORDERS = {
    ("n",): "ehkaifbcgjd",
    ("-n",): "jgcbfaikhed",
    ("kind",): "headgijcfkb",
    ("-kind",): "cfkadgijehb",
    ("-kind", "n"): "kfcaigjdehb",
    ("-kind", "-n"): "cfkjgaidehb",
    ("deep.t", "-@id"): "iakjhgfedcb",
    ("-file\\.name",): "jkabcdefghi",
    ("@id",): "abcdefghijk",
    ("-@id",): "kjihgfedcba",
    ("@document_id", "-@id"): "kjihgfedcba",
    ("-@document_id",): "abcdefghijk",
    ("no", "-@created_at", "@id"): "hijkcdefgab",
}


@pytest.mark.parametrize(("order", "expected"), ORDERS.items(), ids=str)
def test_pages_are_slices_of_the_order(client: httpx.Client, path: str, order: tuple[str, ...], expected: str) -> None:
    for limit in (1, 3, 11, 50):
        found = pages(client, path, order_by=by(*order), limit=limit)
        assert found == [list(expected[start : start + limit]) for start in range(0, len(expected), limit)]


def test_without_an_order_a_list_is_that_of_get(client: httpx.Client, path: str) -> None:
    assert pages(client, path, limit=4) == [list("abcd"), list("efgh"), list("ijk")]
    assert pages(client, path, limit=4, filter={"kind": "x"}) == [list("adgi"), ["j"]]
    assert pages(client, path, limit=1, document_id="d") == [["a"], ["b"]]
    assert pages(client, path, limit=1, document_id="d", filter={"n": 2}) == [["a"]]
    answer = client.post(f"{path}/list", json={"include": ["text", "embedding"], "vectors": "base64"}).json()
    assert answer == client.get(path, params={"include": ["text", "embedding"], "vectors": "base64"}).json()


def test_an_order_is_one_of_what_matches(client: httpx.Client, path: str) -> None:
    assert pages(client, path, order_by=by("-n"), filter={"kind": "x"}, limit=2) == [["j", "g"], ["a", "i"], ["d"]]
    assert pages(client, path, order_by=by("-n"), document_id="d") == [["b", "a"]]
    assert pages(client, path, order_by=by("n"), filter={"kind": "z"}) == [[]]
    answer = client.post(f"{path}/list", json={"order_by": by("n"), "include": ["metadata.n"], "limit": 1}).json()
    assert answer["items"][0]["metadata"] == {"n": None}
    assert "text" not in answer["items"][0]


def test_what_does_not_change_comes_once_whatever_is_written_between_pages(client: httpx.Client, path: str) -> None:
    order = {"order_by": by("kind", "-n"), "limit": 3}
    first = client.post(f"{path}/list", json=order).json()
    assert [item["id"] for item in first["items"]] == list("hej")
    # The last of the page is gone; one goes before the cursor, one behind it; others are new on both sides.
    client.delete(f"{path}/j").raise_for_status()
    client.patch(f"{path}/g", json={"metadata": {"kind": "A"}}).raise_for_status()
    client.patch(f"{path}/e", json={"metadata": {"kind": "z"}}).raise_for_status()
    new = [chunk("new-1", kind="W"), chunk("new-2", kind="x", n=5), chunk("new-3", kind="y")]
    client.post(path, json={"chunks": new}).raise_for_status()
    rest = []
    cursor = first["next_cursor"]
    while cursor is not None:
        page = client.post(f"{path}/list", json=order | {"cursor": cursor}).raise_for_status().json()
        rest += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert rest == ["new-2", "a", "i", "d", "c", "f", "k", "new-3", "e", "b"]


def test_a_cursor_is_of_one_list(client: httpx.Client, path: str) -> None:
    asked = {"order_by": by("n"), "filter": {"kind": "x"}, "limit": 1}
    cursor = client.post(f"{path}/list", json=asked).json()["next_cursor"]
    # How many and what is shown may change.
    again = client.post(f"{path}/list", json=asked | {"cursor": cursor, "limit": 2, "include": []})
    assert [item["id"] for item in again.json()["items"]] == ["i", "g"]
    of_get = client.get(path, params={"limit": 1}).json()["next_cursor"]
    plain = client.post(f"{path}/list", json={"limit": 1}).json()["next_cursor"]
    others: list[dict[str, Any]] = [
        {"order_by": by("-n")},
        {"order_by": by("n", "kind")},
        {"order_by": []},
        {"filter": {}},
        {"filter": {"kind": "y"}},
        {"document_id": "d"},
        *({"cursor": other} for other in ("", "x", "é", of_get, plain, cursor[:-3], cursor + "AAAA")),
    ]
    for other in others:
        assert_refused(client.post(f"{path}/list", json=asked | {"cursor": cursor} | other), 400, "invalid", "/cursor")


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"values": []},
        {"values": [None, None]},
        {"values": {"a": 1}},
        {"values": [5]},
        {"values": ["A"]},
        {"values": [encoded(b"\x03")]},
        {"values": [encoded(b"\x03" + b"\xff" * 10)]},
        {"values": [encoded(b"\x04text")]},
        {"place": []},
        {"place": ["1", "1"]},
        {"place": ["-1"]},
        {"place": ["9" * 19]},
        {"place": [1]},
    ],
    ids=str,
)
def test_a_cursor_that_was_changed_is_refused(client: httpx.Client, path: str, change: dict[str, Any]) -> None:
    asked = {"order_by": by("@created_at"), "limit": 1}
    cursor = client.post(f"{path}/list", json=asked).json()["next_cursor"]
    digest, values, place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    changed = json.dumps([digest, change.get("values", values), change.get("place", place)])
    asked["cursor"] = base64.urlsafe_b64encode(changed.encode()).decode().rstrip("=")
    assert_refused(client.post(f"{path}/list", json=asked), 400, "invalid", "/cursor")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"order_by": [{"field": "@text"}]}, "/order_by/0/field"),
        ({"order_by": [{"field": "a"}, {"field": "$or"}]}, "/order_by/1/field"),
        ({"order_by": [{"direction": "asc"}]}, "/order_by/0/field"),
        ({"order_by": [{"field": "a", "direction": "down"}]}, "/order_by/0/direction"),
        ({"order_by": "n"}, "/order_by"),
        ({"order_by": [{"field": "a"}] * 9}, "/order_by"),
        ({"limit": 501}, "/limit"),
        ({"limit": 0}, "/limit"),
        ({"document_id": "no", "order_by": [{"field": "a"}]}, "/document_id"),
        ({"document_id": "no"}, "/document_id"),
        ({"document_id": None}, "/document_id"),
        ({"cursor": None}, "/cursor"),
    ],
    ids=str,
)
def test_a_list_that_cannot_be_made_is_refused(
    client: httpx.Client, library: str, body: dict[str, Any], pointer: str
) -> None:
    assert_refused(client.post(f"/libraries/{library}/chunks/list", json=body), 400, "invalid", pointer)
