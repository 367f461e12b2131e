"""The trace of a request goes on in calls of providers, as W3C Trace Context says."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apps.embeddings.services import embed
from apps.telemetry.observation import Observation, current_observation
from apps.telemetry.trace import parse_trace
from tests.embeddings.service import Answer, Service

pytestmark = pytest.mark.any_database

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def observation() -> Iterator[Observation]:
    """The request at hand."""
    observation = Observation()
    token = current_observation.set(observation)
    yield observation
    current_observation.reset(token)


def test_a_trace_goes_on(configure: Callable[..., Any], service: Service, observation: Observation) -> None:
    configure(openai_base_url=service.url, openai_api_key="key")
    service.usual = lambda _: Answer({"data": [{"index": 0, "embedding": [1.0, 0.0]}]})
    embed("openai", "a", ["text"], "document")
    assert "traceparent" not in service.asked[-1].headers
    observation.trace = parse_trace(f"00-{TRACE}-{PARENT}-01", "vendor=1")
    assert observation.trace is not None
    embed("openai", "a", ["text"], "document")
    headers = service.asked[-1].headers
    assert headers["traceparent"] == f"00-{TRACE}-{observation.trace.span_id}-01"
    assert headers["tracestate"] == "vendor=1"
    assert observation.trace.span_id != PARENT


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{PARENT}-00", "00"),
        (f"00-{TRACE}-{PARENT}-ff", "03"),
        (f"cc-{TRACE}-{PARENT}-01-more", "01"),
        (f"cc-{TRACE}-{PARENT}-01", "01"),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-01\n", None),
        (f"00-{TRACE}-{PARENT}", None),
        ("", None),
    ],
)
def test_headers_that_break_the_standard_are_ignored(header: str, flags: str | None) -> None:
    trace = parse_trace(header, "a\x00")
    assert (None if trace is None else (trace.trace_id, trace.flags, trace.state)) == (
        None if flags is None else (TRACE, flags, "")
    )
