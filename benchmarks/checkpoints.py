"""How long checkpoints of the write-ahead log have let writers wait, as the server's metrics tell."""

import re

from benchmarks.client import call
from benchmarks.report import Row, at_most

_BUCKET = re.compile(r'^vectordb_checkpoint_seconds_bucket\{le="(.*?)"\} (\S+)$', re.MULTILINE)


def stops(port: int) -> Row:
    """How many took longer than 100 ms."""
    counts = {bound: float(count) for bound, count in _BUCKET.findall(call(port, "GET", "/metrics").decode())}
    total = counts.get("+Inf", 0)
    late = total - counts.get("0.1", 0)
    return Row("checkpoints that stopped writers for more than 100 ms", late, "", "all", total, at_most(0))
