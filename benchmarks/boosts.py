"""What boosts over 200 candidates add to a query: over HTTP by one client, in turns with the query without them."""

from collections import defaultdict
from typing import Any

from benchmarks.client import call
from benchmarks.dataset import as_base64
from benchmarks.report import Row, above_at_most
from benchmarks.testbed import ALL, Testbed, query_path, warm
from benchmarks.timing import milliseconds_each, progress, quantile

DEPTH = 200
_PER_BLOCK = 25
# A block's first queries find the caches as the other side left them.
_DROPPED = 5
_NONE = "without boosts"
_BOOSTS: dict[str, list[dict[str, Any]]] = {
    _NONE: [],
    "by age": [{"field": "@created_at", "decay": {"half_life": 604_800}, "weight": 0.1}],
    "by a number": [{"field": "synonyms", "decay": {"half_life": 2, "origin": 4}, "weight": 0.1}],
    "by a filter": [{"filter": {"topic": "noun.animal"}, "weight": 0.1}],
}
_CASES = _BOOSTS | {"by all three": [boost for boosts in _BOOSTS.values() for boost in boosts]}


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    times: defaultdict[str, list[float]] = defaultdict(list)
    with testbed.serving(testbed.filled_auto) as server:
        warm(server, data)

        def query(body: bytes) -> bytes:
            return call(server.port, "POST", query_path(ALL), body)

        for turn in progress(range(testbed.repeat(20, 3)), "boosts"):
            for name, boosts in _CASES.items():
                options = {"boost": boosts, "depth": DEPTH} if boosts else {}
                block = [(turn * _PER_BLOCK + i) % len(data.queries) for i in range(_PER_BLOCK)]
                bodies = [data.query_body(place, as_base64, **options) for place in block]
                times[name] += milliseconds_each(query, bodies)[_DROPPED:]
    reference = quantile(times[_NONE], 0.5)
    return [
        Row(f"query p50, boost {name}", quantile(some, 0.5), "ms", _NONE, reference, above_at_most(0.3))
        for name, some in times.items()
        if name != _NONE
    ]
