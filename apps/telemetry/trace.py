"""W3C Trace Context <https://www.w3.org/TR/trace-context/>: the trace that a request belongs to, passed on unchanged.

The server records no spans of its own. It takes `traceparent` and `tracestate`, names itself as the parent of the calls
that it makes, and says in its log which trace a line belongs to. A header that breaks the standard is ignored.
"""

import os
import re
from typing import NamedTuple

# Later versions may have more fields behind these.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(r"[\x20-\x7e\t]{1,512}")


class Trace(NamedTuple):
    """A trace, and what this request is in it: `span_id`. `flags` and `state` are the client's."""

    trace_id: str
    span_id: str
    flags: str
    state: str

    @property
    def parent(self) -> str:
        """The `traceparent` of the calls that this request makes."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def headers(self) -> dict[str, str]:
        """The headers of the calls that this request makes."""
        return {"traceparent": self.parent} | ({"tracestate": self.state} if self.state else {})


def parse_trace(traceparent: str, tracestate: str = "") -> Trace | None:
    """The trace of a request with these headers; None where there is none, or one that the standard forbids."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0") and parent_id.strip("0")):
        return None
    # The only flags that version 00 knows: sampled, and random.
    flags = f"{int(flags, 16) & 3:02x}"
    return Trace(trace_id, os.urandom(8).hex(), flags, tracestate if _TRACESTATE.fullmatch(tracestate) else "")
