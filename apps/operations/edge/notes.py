"""The line of a request in the log, and its counts in the metrics. Written in one place, when the answer is sent."""

from http import HTTPMethod
from typing import NamedTuple

from django.conf import settings

from apps.telemetry import metrics
from apps.telemetry.logs import Lines
from apps.telemetry.observation import Observation

# A client may send any word as a method; there must be no more series than these.
_METHODS = frozenset(HTTPMethod)


class Outcome(NamedTuple):
    """What became of a request: the status of its answer, and the bytes of its body and of that of the answer."""

    status: int
    received: int
    sent: int


class Notes:
    """Takes a note of each request that is answered, in the event loop's thread."""

    def __init__(self) -> None:
        self._lines = Lines(settings.LOG_FORMAT, settings.LOG_LEVEL)
        self._is_logged, self._is_counted = settings.LOG_REQUESTS, settings.METRICS != "off"
        self._slow = settings.SLOW_QUERY_MS / 1000

    def take(
        self, observation: Observation, request_id: str, address: str, method: str, outcome: Outcome, seconds: float
    ) -> None:
        """Note a request of the client at `address` that was answered after `seconds`."""
        if self._is_counted:
            _count(observation, method if method in _METHODS else "other", outcome, seconds)
        if self._slow and seconds >= self._slow and observation.describe is not None:
            self._tell_slow(observation, request_id, outcome, seconds)
        if self._is_logged:
            self._tell(observation, request_id, address, method, outcome, seconds)

    def _tell(
        self, observation: Observation, request_id: str, address: str, method: str, outcome: Outcome, seconds: float
    ) -> None:
        fields: dict[str, object] = {
            "request_id": request_id,
            "key": observation.key,
            "address": address,
            "method": method,
            "route": observation.route,
            "library": observation.library,
            "status": outcome.status,
            "ms": round(seconds * 1000, 3),
            "bytes_in": outcome.received,
            "bytes_out": outcome.sent,
        }
        if observation.scanned is not None:
            fields["scanned"], fields["plan"] = observation.scanned, observation.plan
        if observation.trace is not None:
            fields["trace_id"], fields["span_id"] = observation.trace.trace_id, observation.trace.span_id
        self._lines.write("info", "request", fields)

    def _tell_slow(self, observation: Observation, request_id: str, outcome: Outcome, seconds: float) -> None:
        assert observation.describe is not None
        if self._is_counted:
            metrics.SLOW_QUERIES.add()
        fields: dict[str, object] = {
            "request_id": request_id,
            "library": observation.library,
            "status": outcome.status,
            "ms": round(seconds * 1000, 3),
            "scanned": observation.scanned or 0,
            "plan": observation.plan,
            "stages": {name: round(taken * 1000, 3) for name, taken in observation.stages.items()},
        }
        if observation.trace is not None:
            fields["trace_id"] = observation.trace.trace_id
        self._lines.write("warning", "slow query", {**fields, **observation.describe()})


def _count(observation: Observation, method: str, outcome: Outcome, seconds: float) -> None:
    metrics.REQUESTS.add(1, observation.route, method, str(outcome.status))
    metrics.REQUEST_SECONDS.observe(seconds, observation.route)
    metrics.REQUEST_BYTES.add(outcome.received)
    metrics.RESPONSE_BYTES.add(outcome.sent)
    metrics.STAGE_SECONDS.observe_all(observation.stages)
    if observation.scanned:
        metrics.SCANNED.add(observation.scanned)
    if settings.METRICS_LIBRARIES and observation.library and outcome.status < 400:
        label = metrics.library_label(observation.library, metrics.LIBRARY_REQUESTS.series)
        metrics.LIBRARY_REQUESTS.add(1, label)
        metrics.LIBRARY_SECONDS.add(seconds, label)
        metrics.LIBRARY_SCANNED.add(observation.scanned or 0, label)
