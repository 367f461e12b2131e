"""What is noted about a request while it is answered. The HTTP edge logs and counts it when the answer is sent."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from apps.telemetry.trace import Trace


class Observation:
    """One request. Whoever knows something sets it; a request runs in one thread at a time.

    route     the pattern of its path
    key       what names the API key, never its secret
    library   the id of the library that is in its path
    scanned   the number of vectors and words that its queries were compared with
    plan      what its first query did
    stages    the seconds of its stages
    describe  makes the shape of its queries, which holds no text, no vector and no value
    """

    __slots__ = ("describe", "key", "library", "plan", "route", "scanned", "stages", "trace")

    def __init__(self, trace: Trace | None = None) -> None:
        self.trace = trace
        self.route = "(none)"
        self.key = self.library = self.plan = ""
        self.scanned: int | None = None
        self.stages: Mapping[str, float] = {}
        self.describe: Callable[[], Mapping[str, Any]] | None = None


current_observation: ContextVar[Observation | None] = ContextVar("observation", default=None)


def trace_headers() -> dict[str, str]:
    """The headers by which a call belongs to the trace of the request at hand, if it has one."""
    observation = current_observation.get()
    return {} if observation is None or observation.trace is None else observation.trace.headers()
