"""Index types by way of the API: chosen, built, changed while queries go on, tuned, and honest in their answers."""

import threading
from typing import Any

import httpx
import numpy as np
import pytest

from apps.engine.indexes.registry import AUTO, INDEX_TYPES, search_parameters
from tests.api.problems import assert_refused
from tests.api.vectors import base64_of
from tests.server import Server, until

DIMENSION = 16
ROWS = 3000
EXACT = {"brute_force", "kd_tree"}


def rows() -> np.ndarray:
    """Clusters, so that approximate indexes have something to work on."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((60, DIMENSION))
    return (centres[rng.integers(0, 60, ROWS)] + 0.3 * rng.standard_normal((ROWS, DIMENSION))).astype(np.float32)


def filled(client: httpx.Client, **settings: Any) -> str:
    """The path of a library with all rows; row n is the chunk `n`."""
    body = {"name": "N", "dimension": DIMENSION} | settings
    path = f"/libraries/{client.post('/libraries', json=body).raise_for_status().json()['id']}"
    vectors = rows()
    for start in range(0, ROWS, 1500):
        chunks = [{"id": str(n), "embedding": base64_of(vectors[n])} for n in range(start, start + 1500)]
        client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    return path


def index_of(client: httpx.Client, path: str) -> dict[str, Any]:
    index: dict[str, Any] = client.get(f"{path}/stats").json()["index"]
    return index


def wait_until_built(client: httpx.Client, path: str, kind: str) -> dict[str, Any]:
    def is_built() -> bool:
        index = index_of(client, path)
        assert index["state"] != "failed", index["error"]
        kinds = {segment["kind"] for segment in index["segments"]}
        return index["state"] == "ready" and not index["rows_pending"] and kinds == {kind}

    until(is_built, f"all rows are in segments of the type {kind}")
    return index_of(client, path)


def ids(answer: dict[str, Any]) -> set[str]:
    return {result["id"] for result in answer["results"]}


def recall(client: httpx.Client, path: str, **options: Any) -> float:
    """The share of the true ten nearest that a query finds, over some rows."""
    found = 0
    for n in range(0, ROWS, 150):
        query = {"vector": (rows()[n] + 0.05).tolist(), "k": 10, "include": []}
        answer = client.post(f"{path}/query", json=query | options).json()
        truth = client.post(f"{path}/query", json=query | {"exact": True}).json()
        assert truth["meta"]["exact"]
        assert answer["meta"]["revision"] == truth["meta"]["revision"]
        found += len(ids(answer) & ids(truth))
    return found / (ROWS // 150 * 10)


@pytest.fixture(scope="module", params=INDEX_TYPES)
def built(client: httpx.Client, request: pytest.FixtureRequest) -> tuple[str, str]:
    """The path of a library, whose index is of the type."""
    path = filled(client, index_type=request.param)
    wait_until_built(client, path, request.param)
    return path, request.param


@pytest.mark.any_database
def test_a_type_is_built_and_answers(client: httpx.Client, built: tuple[str, str]) -> None:
    path, kind = built
    index = index_of(client, path)
    assert (index["kind"], index["rows_indexed"], index["rows_dead"]) == (kind, ROWS, 0)
    assert sum(segment["rows"] for segment in index["segments"]) == ROWS
    assert all(segment["bytes"] > segment["resident_bytes"] > 0 for segment in index["segments"])
    meta = client.post(f"{path}/query", json={"vector": rows()[0].tolist()}).json()["meta"]
    # Where a scan is quicker, or all rows are compared, that is what answered.
    assert meta["index"] == (kind if kind in EXACT or not meta["exact"] else "brute_force")
    assert 0 < meta["scanned"] <= ROWS * 2
    if kind in EXACT:
        assert meta["exact"]
    assert recall(client, path) >= (1.0 if kind in EXACT else 0.9)


@pytest.mark.any_database
def test_new_rows_are_found_at_once_and_dead_ones_no_more(client: httpx.Client, built: tuple[str, str]) -> None:
    path, _ = built
    far = np.full(DIMENSION, -9, np.float32)
    client.post(f"{path}/chunks", json={"chunks": [{"id": "new", "embedding": base64_of(far)}]}).raise_for_status()
    query = {"vector": far.tolist(), "k": 1}
    assert ids(client.post(f"{path}/query", json=query).json()) == {"new"}
    client.delete(f"{path}/chunks/new").raise_for_status()
    assert "new" not in ids(client.post(f"{path}/query", json=query).json())


@pytest.mark.any_database
def test_search_parameters_are_taken_and_checked(client: httpx.Client, built: tuple[str, str]) -> None:
    path, kind = built
    query = {"vector": rows()[0].tolist(), "k": 5}
    for parameter in search_parameters(kind).values():
        for value in (parameter.low, parameter.high):
            body = query | {"search_params": {parameter.name: value}}
            assert len(client.post(f"{path}/query", json=body).raise_for_status().json()["results"]) == 5
        for value in (parameter.low - 1, parameter.high + 1, str(parameter.low), True, 1.5, None):
            response = client.post(f"{path}/query", json=query | {"search_params": {parameter.name: value}})
            assert_refused(response, 400, "invalid", f"/search_params/{parameter.name}")
    response = client.post(f"{path}/query", json=query | {"search_params": {"depth": 1}})
    assert_refused(response, 400, "invalid", "/search_params/depth")


@pytest.mark.any_database
def test_batches_agree_with_single_queries(client: httpx.Client, built: tuple[str, str]) -> None:
    path, _ = built
    queries = [{"vector": row.tolist(), "k": 3, "exact": n % 2 == 0} for n, row in enumerate(rows()[:8])]
    batch = client.post(f"{path}/query/batch", json={"queries": queries}).raise_for_status().json()["results"]
    for query, answer in zip(queries, batch, strict=True):
        single = client.post(f"{path}/query", json=query).json()
        assert single["results"] == answer["results"]
        assert single["meta"]["exact"] == answer["meta"]["exact"]


def test_the_type_is_changed_while_queries_go_on(server: Server, client: httpx.Client) -> None:
    path = filled(client)
    stop = threading.Event()
    broken: list[Any] = []

    def ask() -> None:
        vector = rows()[7].tolist()
        with server.client() as other:
            while not stop.is_set():
                answer = other.post(f"{path}/query", json={"vector": vector, "k": 1})
                if answer.status_code != 200 or ids(answer.json()) != {"7"}:
                    broken.append(answer.text)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for kind in INDEX_TYPES:
            response = client.post(f"{path}/reindex", json={"index_type": kind})
            assert response.status_code == 202
            assert response.json()["kind"] == kind
            wait_until_built(client, path, kind)
            assert client.get(path).json()["index_type"] == kind
        client.patch(path, json={"index_type": AUTO}).raise_for_status()
        wait_until_built(client, path, index_of(client, path)["kind"])
    finally:
        stop.set()
        thread.join()
    assert not broken


@pytest.mark.any_database
def test_a_type_that_does_not_suit_is_warned_about(client: httpx.Client) -> None:
    for dimension, warned in ((20, False), (21, True)):
        body = {"name": "N", "index_type": "kd_tree", "dimension": dimension}
        path = f"/libraries/{client.post('/libraries', json=body).json()['id']}"
        assert bool(index_of(client, path)["warning"]) is warned


def test_reindex_refuses_what_a_library_refuses(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}/reindex"
    assert_refused(client.post(path, json={"index_type": "annoy"}), 400, "invalid", "/index_type")
    assert_refused(client.post(path, json={"index_params": {"depth": 1}}), 400, "invalid", "/index_params/depth")
    assert_refused(client.post(path, json={"k": 1}), 400, "invalid", "/k")
    assert client.post(path, json={}).status_code == 202


@pytest.mark.any_database
def test_parameters_belong_to_a_type(client: httpx.Client) -> None:
    created = client.post("/libraries", json={"name": "N", "index_type": "hnsw", "index_params": {"m": 8}})
    path = f"/libraries/{created.raise_for_status().json()['id']}"
    assert created.json()["index_params"] == {"m": 8}
    assert_refused(client.patch(path, json={"index_params": {"m": 0}}), 400, "invalid", "/index_params/m")
    assert client.patch(path, json={"index_type": "lsh"}).raise_for_status().json()["index_params"] == {}
    assert_refused(client.patch(path, json={"index_params": {"m": 8}}), 400, "invalid", "/index_params/m")
