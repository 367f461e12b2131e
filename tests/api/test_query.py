"""Queries find the nearest chunks: compared with plain float64 arithmetic, on ordinary and on awkward vectors."""

from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.api.problems import assert_refused
from tests.api.vectors import METRICS, base64_of, distances_of, scores_of

DIMENSION = 8
ROWS = 300


def ordinary() -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((ROWS, DIMENSION)).astype(np.float32)


def awkward() -> NDArray[np.float32]:
    """Duplicates, opposites, tiny, huge, nearly equal."""
    rng = np.random.default_rng(8)
    rows = rng.standard_normal((ROWS, DIMENSION))
    rows[50:100] = rows[:50]
    rows[100:120] = -rows[:20]
    rows[120:140] *= 1e-30
    rows[140:160] *= 1e14
    rows[160:200] = rows[0] * (1 + np.arange(40)[:, None] * 1e-7)
    rows[200:210] = np.eye(DIMENSION)[0]
    return rows.astype(np.float32)


DATA = {"ordinary": ordinary(), "awkward": awkward()}


@pytest.fixture(scope="module", params=[(metric, data) for metric in METRICS for data in DATA], ids="-".join)
def case(client: httpx.Client, request: pytest.FixtureRequest) -> tuple[str, str, NDArray[np.float32]]:
    """A library's path, its metric and its rows; row n is the chunk `n`. It was written in three requests, between
    which it was queried, and a third of its rows were written twice."""
    metric, data = request.param
    body = {"name": "N", "metric": metric, "dimension": DIMENSION}
    path = f"/libraries/{client.post('/libraries', json=body).json()['id']}"
    rows = DATA[data]
    for part in np.array_split(np.arange(ROWS), 3):
        chunks = [{"id": str(n), "embedding": base64_of(rows[n] if n % 3 else rows[n] + 1)} for n in part]
        client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
        client.post(f"{path}/query", json={"vector": [1] * DIMENSION}).raise_for_status()
    again = [{"id": str(n), "embedding": rows[n].astype(float).tolist()} for n in range(0, ROWS, 3)]
    client.post(f"{path}/chunks", json={"chunks": again}).raise_for_status()
    return path, metric, rows


def queries(rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Some stored rows, some other vectors."""
    others = np.random.default_rng(9).standard_normal((4, DIMENSION)) * [[1], [1e-20], [1e14], [100]]
    return [*rows[[0, 60, 125, 150, 170, 205]], *others.astype(np.float32)]


def query(client: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    """The results of a query."""
    response = client.post(f"{path}/query", json=body)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_results_are_the_nearest_with_their_scores_and_distances(
    client: httpx.Client, case: tuple[str, str, NDArray[np.float32]], k: int
) -> None:
    path, metric, rows = case
    for vector in queries(rows):
        results = query(client, path, vector=vector.astype(float).tolist(), k=k, include=[])
        expected = scores_of(metric, rows, vector)
        assert len(results) == min(k, ROWS) == len({result["id"] for result in results})
        scores = np.array([result["score"] for result in results])
        of_those = expected[[int(result["id"]) for result in results]]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(scores, of_those, rtol=1e-6, atol=1e-7 * min(scale, 1))
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][:k], rtol=1e-6, atol=1e-7 * min(scale, 1))
        distances = [result["distance"] for result in results]
        np.testing.assert_allclose(distances, distances_of(metric, scores), rtol=1e-6, atol=1e-7)
        ranked = [(-result["score"], int(result["id"])) for result in results]
        assert ranked == sorted(ranked)


def test_single_and_batch_base64_and_array_agree(
    client: httpx.Client, case: tuple[str, str, NDArray[np.float32]]
) -> None:
    path, _, rows = case
    bodies: list[dict[str, Any]] = []
    for vector in queries(rows):
        bodies += [
            {"vector": vector.astype(float).tolist(), "k": 20},
            {"vector": base64_of(vector), "k": 20},
            {"vector": base64_of(vector), "k": 5, "offset": 15, "include": ["embedding"], "exact": True},
        ]
    bodies += [{"chunk_id": str(n), "k": 7} for n in (0, 60, 200)]
    batch = client.post(f"{path}/query/batch", json={"queries": bodies}).raise_for_status().json()["results"]
    single = [query(client, path, **body) for body in bodies]
    assert [answer["results"] for answer in batch] == single
    assert single[0::3][:-1] == single[1::3][:-1]
    assert [result["id"] for result in single[0][15:]] == [result["id"] for result in single[2]]


def test_more_like_a_chunk_leaves_the_chunk_itself_out(
    client: httpx.Client, case: tuple[str, str, NDArray[np.float32]]
) -> None:
    path, _, rows = case
    for n in (0, 60, 125, 205):
        everything = query(client, path, vector=base64_of(rows[n]), k=1000)
        others = [result for result in everything if result["id"] != str(n)]
        assert query(client, path, chunk_id=str(n), k=1000) == others
        assert query(client, path, chunk_id=str(n), k=1) == others[:1]
        assert query(client, path, chunk_id=str(n), k=20, offset=13) == others[13:33]


def test_offset_cuts_the_same_list(client: httpx.Client, case: tuple[str, str, NDArray[np.float32]]) -> None:
    path, _, rows = case
    vector = base64_of(rows[170])
    everything = query(client, path, vector=vector, k=1000)
    pages = [query(client, path, vector=vector, k=64, offset=offset) for offset in range(0, ROWS + 64, 64)]
    assert [result for page in pages for result in page] == everything
    assert query(client, path, vector=vector, k=10, offset=9990) == []


def test_the_threshold_keeps_what_reaches_it(client: httpx.Client, case: tuple[str, str, NDArray[np.float32]]) -> None:
    path, _, rows = case
    vector = base64_of(rows[60])
    everything = query(client, path, vector=vector, k=1000)
    for rank in (0, 5, 100, ROWS - 1):
        threshold = everything[rank]["score"]
        kept = [result for result in everything if result["score"] >= threshold]
        assert query(client, path, vector=vector, k=1000, score_threshold=threshold) == kept
        page = query(client, path, vector=vector, k=3, offset=2, score_threshold=threshold)
        assert page == kept[2:5]
    above = float(np.nextafter(everything[0]["score"], np.inf))
    assert query(client, path, vector=vector, score_threshold=above) == []
    assert query(client, path, vector=vector, score_threshold=None) == everything[:10]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_vectors_tie_and_come_in_order_of_creation(client: httpx.Client, metric: str) -> None:
    body = {"name": "Ties", "metric": metric, "dimension": 5}
    path = f"/libraries/{client.post('/libraries', json=body).json()['id']}"
    same, other = [0.1, 0.2, 0.3, 0.4, 0.5], [5.5, -4.4, 3.3, -2.2, 1.1]
    wanted: list[str] = []

    def check() -> None:
        for _ in range(4):  # several, so that both workers answer
            results = query(client, path, vector=same, k=1000, score_threshold=first_score - 1e-3)
            assert [result["id"] for result in results] == wanted
            assert len({(result["score"], result["distance"]) for result in results}) == 1
            assert query(client, path, vector=same, k=3) == results[:3]

    def write(*ids: str, embedding: list[float] = same, **more: Any) -> None:
        chunks = [{"id": name, "embedding": embedding} | more for name in ids]
        client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()

    write("z", "y", "x", "far-1", "w")
    write("far-1", "far-2", embedding=other)
    first_score = query(client, path, vector=same, k=1)[0]["score"]
    wanted += ["z", "y", "x", "w"]
    check()
    document = {"chunks": [{"id": name, "embedding": same} for name in ("n", "m")]}
    client.post(f"{path}/documents", json=document).raise_for_status()
    write(*(f"many-{n}" for n in range(100)))
    wanted += ["n", "m", *(f"many-{n}" for n in range(100))]
    check()
    write("x", "many-50", metadata={"changed": True})
    write("y", "many-7", embedding=other)
    still_equal = [name for name in wanted if name not in ("y", "many-7")]
    found = query(client, path, vector=same, k=len(still_equal))
    assert [result["id"] for result in found] == still_equal
    write("many-7", "y")
    client.patch(f"{path}/chunks/z", json={"embedding": same, "text": "changed"}).raise_for_status()
    check()
    client.delete(f"{path}/chunks/z").raise_for_status()
    write("z")
    wanted.append(wanted.pop(0))
    check()


def test_a_query_sees_what_was_written_just_before(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    for n in range(10):
        write = {"chunks": [{"id": "moving", "text": str(n), "embedding": [1, n, 0]}]}
        client.post(f"{path}/chunks", json=write).raise_for_status()
        [found] = query(client, path, vector=[1, n, 0])
        assert (found["text"], found["score"]) == (str(n), pytest.approx(1))


@pytest.mark.parametrize("dimension", [None, 3])
def test_an_empty_library_has_no_results(client: httpx.Client, dimension: int | None) -> None:
    body = {"name": "Empty"} | ({} if dimension is None else {"dimension": dimension})
    path = f"/libraries/{client.post('/libraries', json=body).json()['id']}"
    answer = client.post(f"{path}/query", json={"vector": [1, 2, 3]}).json()
    assert answer["results"] == []
    assert (answer["meta"]["exact"], answer["meta"]["scanned"], answer["meta"]["revision"]) == (True, 0, 0)
    batch = client.post(f"{path}/query/batch", json={"queries": [{"vector": [1, 2, 3]}] * 2}).json()
    assert [answer["results"] for answer in batch["results"]] == [[], []]
    assert_refused(client.post(f"{path}/query", json={"chunk_id": "no"}), 404, "not_found", "/chunk_id")
