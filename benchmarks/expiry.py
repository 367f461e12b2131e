"""What rows that expire cost queries: two servers whose library `all` is the same but that 1% of its rows have an
`expires_at`, asked in turns over HTTP by one client.

First these times lie far ahead, each at another second; then some rows expire in each second of the measurement.
"""

import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, as_base64
from benchmarks.report import Row, times_at_least
from benchmarks.testbed import ALL, ROWS_PER_WRITE, Testbed, chunks_path, query_path, wait_until_built, warm
from benchmarks.timing import milliseconds_each, progress

SHARE = 100
_PER_BLOCK = 25
# A block's first queries find the caches as the other side left them.
_DROPPED = 5
_NONE, _LATER, _NOW = "nothing expires", "1% of rows expire later", "1% of rows expire one after another"


def run(testbed: Testbed) -> list[Row]:
    data, rows = testbed.data, []
    plain, expiring = testbed.copy_of_filled(), testbed.copy_of_filled()
    with testbed.serving(plain) as reference, testbed.serving(expiring) as server:
        turns = testbed.repeat(20, 3)
        for name, first, apart in ((_LATER, 86_400.0, 1.0), (_NOW, 1.0, turns * 0.5 / (len(data) // SHARE))):
            _set_expiry(server.port, data, first, apart)
            for each in (reference, server):
                call_json(each.port, "POST", f"/api/v1/libraries/{ALL}/reindex", {})
                wait_until_built(each.port, ALL)
                warm(each, data)
            times: defaultdict[str, list[float]] = defaultdict(list)
            for turn in progress(range(turns), f"expiry, {name}"):
                sides = [(_NONE, reference.port), (name, server.port)]
                for side, port in sides if turn % 2 else reversed(sides):
                    bodies = [
                        data.query_body((turn * _PER_BLOCK + i) % len(data.queries), as_base64)
                        for i in range(_PER_BLOCK)
                    ]
                    times[side] += milliseconds_each(lambda body, port=port: _query(port, body), bodies)[_DROPPED:]
            rates = {side: 1000 * len(some) / sum(some) for side, some in times.items()}
            rows.append(Row(f"queries, {name}", rates[name], "1/s", _NONE, rates[_NONE], times_at_least(0.95)))
    return rows


def _query(port: int, body: bytes) -> bytes:
    return call(port, "POST", query_path(ALL), body)


def _set_expiry(port: int, data: Dataset, first: float, apart: float) -> None:
    """Let every hundredth row expire: the first one `first` seconds from now, each other one `apart` after the last."""
    now = datetime.fromtimestamp(time.time(), UTC)
    changes = [
        {"id": row["id"], "expires_at": (now + timedelta(seconds=first + i * apart)).isoformat()}
        for i, row in enumerate(data.rows[::SHARE])
    ]
    for start in range(0, len(changes), ROWS_PER_WRITE):
        body = {"chunks": changes[start : start + ROWS_PER_WRITE], "mode": "update"}
        call_json(port, "POST", chunks_path(ALL), body)
