"""Change of metadata by ids or by a filter: all modes, all chunks or none, and nothing of concurrent writers lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest

from apps.libraries.services.metadata import merge_patch
from tests.api.problems import assert_refused
from tests.server import Server

# More than are changed in one step.
ROWS = 700
WRITERS = 8


def fill(client: httpx.Client, chunks: str, rows: list[dict[str, Any]]) -> None:
    """Chunks c0, c1, ... with these metadata."""
    body = [{"id": f"c{i}", "embedding": [1, 0, 0], "metadata": row} for i, row in enumerate(rows)]
    client.post(chunks, json={"chunks": body}).raise_for_status()


def stored(client: httpx.Client, chunks: str) -> dict[str, dict[str, Any]]:
    """The metadata of all chunks, by id."""
    ids = [f"c{i}" for i in range(ROWS)]
    return {item["id"]: item["metadata"] for item in client.post(f"{chunks}/get", json={"ids": ids}).json()["items"]}


BEFORE = {"a": {"x": 1, "y": 2}, "b": "old", "big": 1e300, "n": 2**64 - 1}
MODES = {
    None: ({"a": {"z": 3}, "b": None}, {"a": {"z": 3}, "b": None, "big": 1e300, "n": 2**64 - 1}),
    "set": ({"a": {"z": 3}, "b": None}, {"a": {"z": 3}, "b": None, "big": 1e300, "n": 2**64 - 1}),
    "merge": ({"a": {"x": None, "z": 3}, "b": None}, {"a": {"y": 2, "z": 3}, "big": 1e300, "n": 2**64 - 1}),
    "replace": ({"a": {"x": None}}, {"a": {"x": None}}),
}


@pytest.mark.parametrize("which", [{"ids": ["c1", "nobody", "c0"]}, {"filter": {"b": "old"}}], ids=["ids", "filter"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_mode_says_how_metadata_change(
    client: httpx.Client, chunks: str, which: dict[str, Any], mode: str | None
) -> None:
    fill(client, chunks, [BEFORE, BEFORE, {"b": "other"}])
    before = client.get(f"{chunks}/c0").json()
    given, after = MODES[mode]
    body = {**which, "metadata": given} | ({} if mode is None else {"metadata_mode": mode})
    assert client.post(f"{chunks}/update", json=body).json() == {"updated": 2}
    assert stored(client, chunks) == {"c0": after, "c1": after, "c2": {"b": "other"}}
    changed = client.get(f"{chunks}/c0?include=embedding").json()
    assert changed["updated_at"] > before["updated_at"]
    assert changed["embedding"] == [1, 0, 0]
    # Filters see it at once.
    assert client.post(f"{chunks}/count", json={"filter": {"b": "old"}}).json()["count"] == 0
    assert client.post(f"{chunks}/count", json={"filter": {"a.y": 2}}).json()["count"] == (2 if mode == "merge" else 0)


def test_all_chunks_may_be_changed(client: httpx.Client, chunks: str) -> None:
    fill(client, chunks, [{"n": i} for i in range(ROWS)])
    body: dict[str, Any] = {"filter": {}, "metadata": {"all": True}}
    assert client.post(f"{chunks}/update", json=body).json() == {"updated": ROWS}
    assert stored(client, chunks) == {f"c{i}": {"n": i, "all": True} for i in range(ROWS)}
    body = {"filter": {"nothing": "has this"}, "metadata": {}}
    assert client.post(f"{chunks}/update", json=body).json() == {"updated": 0}


def test_what_is_so_already_is_not_written(client: httpx.Client, chunks: str) -> None:
    fill(client, chunks, [{"n": 1, "a": {"b": 2}}, {"n": 2}])
    stats = f"{chunks.removesuffix('/chunks')}/stats"
    before = client.get(f"{chunks}/c0").json(), client.get(stats).json()["revision"]
    for change in ({"metadata": {"n": 1}}, {"metadata": {"a": {"b": 2}}, "metadata_mode": "merge"}, {"metadata": {}}):
        assert client.post(f"{chunks}/update", json={"ids": ["c0"]} | change).json() == {"updated": 1}
    assert (client.get(f"{chunks}/c0").json(), client.get(stats).json()["revision"]) == before


def test_an_expiry_alone_leaves_metadata_as_they_are(client: httpx.Client, chunks: str) -> None:
    fill(client, chunks, [{"n": 1}])
    body = {"filter": {"n": 1}, "expires_at": "2999-01-01T00:00:00Z"}
    assert client.post(f"{chunks}/update", json=body).json() == {"updated": 1}
    chunk = client.get(f"{chunks}/c0").json()
    assert (chunk["metadata"], chunk["expires_at"][:4]) == ({"n": 1}, "2999")


def test_metadata_past_a_limit_are_refused_and_nothing_is_written(client: httpx.Client, chunks: str) -> None:
    rows: list[dict[str, Any]] = [{"n": i} for i in range(ROWS)]
    # In the second step.
    rows[-1]["text"] = "x" * 40_000
    fill(client, chunks, rows)
    body = {"filter": {"n": {"$gte": 1}}, "metadata": {"more": "y" * 30_000}}
    problem = assert_refused(client.post(f"{chunks}/update", json=body), 400, "invalid", "/metadata")
    assert f"'c{ROWS - 1}'" in problem["detail"]
    assert "VECTORDB_MAX_METADATA_BYTES" in problem["detail"]
    assert stored(client, chunks) == {f"c{i}": row for i, row in enumerate(rows)}


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"metadata": {}}, ""),
        ({"ids": ["c0"], "filter": {}, "metadata": {}}, ""),
        ({"ids": ["c0"]}, "/metadata"),
        ({"ids": ["c0"], "metadata_mode": "replace", "expires_at": None}, "/metadata"),
        ({"ids": ["c0"], "metadata": None}, "/metadata"),
        ({"ids": ["c0"], "metadata": []}, "/metadata"),
        ({"ids": ["c0"], "metadata": {"a": "\0"}}, "/metadata/a"),
        ({"ids": ["c0"], "metadata": {}, "metadata_mode": "patch"}, "/metadata_mode"),
        ({"ids": ["c0"], "metadata": {}, "text": "x"}, "/text"),
        ({"filter": {"a": {"$near": 1}}, "metadata": {}}, "/filter/a/$near"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(client: httpx.Client, shared: str, body: dict[str, Any], pointer: str) -> None:
    assert_refused(client.post(f"/libraries/{shared}/chunks/update", json=body), 400, "invalid", pointer)


def test_the_word_of_the_path_is_an_id_too(client: httpx.Client, chunks: str) -> None:
    client.post(chunks, json={"chunks": [{"id": "update", "embedding": [1, 0, 0]}]}).raise_for_status()
    assert client.patch(f"{chunks}/update", json={"metadata": {"a": 1}}).json()["metadata"] == {"a": 1}


def test_of_writers_at_once_nothing_is_lost(server: Server, client: httpx.Client, chunks: str) -> None:
    fill(client, chunks, [{"n": i} for i in range(ROWS)])
    barrier = Barrier(WRITERS)

    def write(number: int) -> int:
        """Leave a mark on all chunks, and take those that are nobody's yet; return how many."""
        taken = 0
        with server.client() as own:
            barrier.wait()
            for turn in range(5):
                mark = {"filter": {}, "metadata": {f"writer-{number}": turn}}
                assert own.post(f"{chunks}/update", json=mark).json() == {"updated": ROWS}
                free = {"owner": {"$exists": False}, "n": {"$lt": (turn + 1) * ROWS // 5}}
                take = {"filter": free, "metadata": {"owner": number}, "metadata_mode": "merge"}
                taken += own.post(f"{chunks}/update", json=take).raise_for_status().json()["updated"]
        return taken

    with ThreadPoolExecutor(WRITERS) as threads:
        taken = list(threads.map(write, range(WRITERS)))
    rows = stored(client, chunks).values()
    assert all(row[f"writer-{number}"] == 4 for row in rows for number in range(WRITERS))
    assert [sum(row["owner"] == number for row in rows) for number in range(WRITERS)] == taken
    assert sum(taken) == ROWS
    facets = client.post(f"{chunks}/facets", json={"field": "owner"}).json()["facets"]
    assert {one["value"]: one["count"] for one in facets} == {i: n for i, n in enumerate(taken) if n}


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    json.loads(Path(__file__).with_name("rfc7396.json").read_text()),
    ids=str,
)
def test_merging_is_that_of_rfc_7396(target: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(target, patch) == merged
