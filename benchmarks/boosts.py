"""What boosts over 200 candidates add to a query: over HTTP by one client, in turns with the query without them, and
with one that shows 200 results, without text and metadata.
"""

from collections import defaultdict
from typing import Any

from benchmarks.client import Connection
from benchmarks.dataset import as_base64
from benchmarks.report import Row, above_at_most
from benchmarks.testbed import ALL, Testbed, query_path, warm
from benchmarks.timing import milliseconds_each, progress, quantile

DEPTH = 200
_PER_BLOCK = 25
# A block's first queries find the caches as the other side left them.
_DROPPED = 5
_NONE, _MANY = "without boosts", f"k = {DEPTH} without boosts"
_AGE = {"field": "@created_at", "decay": {"half_life": 604_800}, "weight": 0.1}
_NUMBER = {"field": "synonyms", "decay": {"half_life": 2, "origin": 4}, "weight": 0.1}
_TOPIC = {"filter": {"topic": "noun.animal"}, "weight": 0.1}
_BOOSTS: dict[str, list[dict[str, Any]]] = {
    "by age": [_AGE],
    "by a number": [_NUMBER],
    "by a filter": [_TOPIC],
    "by all three": [_AGE, _NUMBER, _TOPIC],
}
_OPTIONS: dict[str, dict[str, Any]] = {
    _NONE: {},
    _MANY: {"k": DEPTH, "include": []},
    **{name: {"boost": boosts, "depth": DEPTH} for name, boosts in _BOOSTS.items()},
}


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    times: defaultdict[str, list[float]] = defaultdict(list)
    with testbed.serving(testbed.filled_auto) as server, Connection(server.port) as connection:
        warm(server, data)

        def query(body: bytes) -> bytes:
            return connection.call("POST", query_path(ALL), body)

        for turn in progress(range(testbed.repeat(20, 3)), "boosts"):
            block = [(turn * _PER_BLOCK + i) % len(data.queries) for i in range(_PER_BLOCK)]
            for name, options in _OPTIONS.items():
                bodies = [data.query_body(place, as_base64, **options) for place in block]
                times[name] += milliseconds_each(query, bodies)[_DROPPED:]
    reference, many = (quantile(times[name], 0.5) for name in (_NONE, _MANY))
    rows = []
    for name in _BOOSTS:
        middle = quantile(times[name], 0.5)
        rows.append(Row(f"query p50, boost {name}", middle, "ms", _NONE, reference, above_at_most(0.3)))
        rows.append(Row(f"query p50, boost {name}", middle, "ms", _MANY, many))
    return rows
