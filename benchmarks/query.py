"""Exact search over HTTP by one client, beside numpy's own scan; and whether the answers are the true neighbours.

Blocks of queries over HTTP and by numpy alternate, so that both see the same machine. numpy runs in this process, on
the same matrix, with as many threads as it likes.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from benchmarks.client import call
from benchmarks.dataset import Dataset, as_array, as_base64
from benchmarks.report import Row, above_at_most, at_least
from benchmarks.testbed import ALL, Testbed, query_path, warm
from benchmarks.timing import milliseconds_each, progress, quantile

K = 10
_PER_BLOCK = 25
_TOLERANCE = 1e-6
_NUMPY = "numpy: matrix @ query, argpartition"
# A block's first queries find the caches and the processor's clock as the other side left them.
_DROPPED = 5


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    with testbed.serving(testbed.filled) as server:
        warm(server, data)
        return _latency(testbed, server.port) + _recall(testbed, server.port)


def numpy_scan(data: Dataset, query: int, k: int = K) -> np.ndarray:
    """The `k` nearest rows, in no order."""
    scores = data.vectors @ data.queries[query]
    return np.argpartition(scores, len(scores) - k)[-k:]


def _latency(testbed: Testbed, port: int) -> list[Row]:
    data = testbed.data
    took_ms: list[float] = []

    def over_http(body: bytes) -> bytes:
        return call(port, "POST", query_path(ALL), body)

    ways: dict[str, Callable[[Sequence[int]], list[float]]] = {
        "numpy": lambda block: milliseconds_each(lambda query: numpy_scan(data, query), block),
        "array": lambda block: milliseconds_each(over_http, [data.query_body(query, as_array) for query in block]),
        "base64": lambda block: milliseconds_each(over_http, [data.query_body(query, as_base64) for query in block]),
    }
    times: defaultdict[str, list[float]] = defaultdict(list)
    names = list(ways)
    for turn in progress(range(testbed.repeat(20, 3)), "query"):
        block = [(turn * _PER_BLOCK + i) % len(data.queries) for i in range(_PER_BLOCK)]
        for name in names[turn % 3 :] + names[: turn % 3]:
            times[name] += ways[name](block)[_DROPPED:]
        took_ms += [_answer(port, data, query, K)["meta"]["took_ms"] for query in block]
    numpy_p50, numpy_p95 = quantile(times["numpy"], 0.5), quantile(times["numpy"], 0.95)
    return [
        Row("query p50, vector as array", quantile(times["array"], 0.5), "ms", _NUMPY, numpy_p50, above_at_most(1.5)),
        Row("query p95, vector as array", quantile(times["array"], 0.95), "ms", _NUMPY, numpy_p95),
        Row("query p50, vector as base64", quantile(times["base64"], 0.5), "ms", _NUMPY, numpy_p50),
        Row("query p50 in the server (meta.took_ms)", quantile(took_ms, 0.5), "ms", _NUMPY, numpy_p50),
    ]


def _recall(testbed: Testbed, port: int) -> list[Row]:
    """Recall of single queries and of batches. A row counts if it is as near as the k-th true neighbour, so ties cost
    nothing; its distance is computed here, not taken from the answer."""
    data = testbed.data
    single = testbed.repeat(1000, 50)
    answers = [_answer(port, data, query, 100) for query in progress(range(single), "recall")]
    per_batch = 250
    batches = []
    for start in progress(range(0, testbed.repeat(len(data.queries), per_batch), per_batch), "recall of batches"):
        bodies = [data.query_body(query, as_base64, 100) for query in range(start, start + per_batch)]
        body = b'{"queries":[' + b",".join(bodies) + b"]}"
        batches += orjson.loads(call(port, "POST", f"{query_path(ALL)}/batch", body))["results"]
    return [
        Row("recall@10", _recall_at(10, data, answers), "", wanted=at_least(1)),
        Row("recall@100", _recall_at(100, data, answers), "", wanted=at_least(1)),
        Row("recall@100 in batches", _recall_at(100, data, batches), "", wanted=at_least(1)),
    ]


def _answer(port: int, data: Dataset, query: int, k: int) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(call(port, "POST", query_path(ALL), data.query_body(query, as_array, k)))
    return answer


def _recall_at(k: int, data: Dataset, answers: Sequence[dict[str, Any]]) -> float:
    """The share of the true `k` nearest that `answers`, those of the first queries, have at their head."""
    right = 0
    for query, answer in enumerate(answers):
        rows = sorted({data.positions[result["id"]] for result in answer["results"][:k]})
        scores = data.vectors[rows].astype(np.float64) @ data.queries[query].astype(np.float64)
        right += int(np.count_nonzero(scores >= data.scores[query, k - 1] - _TOLERANCE))
    return right / (k * len(answers))
