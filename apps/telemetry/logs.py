"""The form of all log lines: those of this program, Django, gunicorn, uvicorn and other libraries.

`json` is one object a line, `console` is for people. Neither lets what a client sent begin a line of its own:
characters that are not printable are escaped, and the lines of a traceback are indented.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from apps.telemetry.observation import current_observation

# Fields of a line that come first, in this order.
_FIRST = ("timestamp", "level", "logger", "event")
_LEVELS = {name.lower(): level for name, level in logging.getLevelNamesMapping().items()}


def formatter(form: str) -> logging.Formatter:
    """The formatter of the handler of the standard library's loggers, for Django's setting LOGGING."""
    add: list[Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _add_time, _add_request]
    return ProcessorFormatter(
        foreign_pre_chain=[*add, structlog.processors.format_exc_info],
        processors=[ProcessorFormatter.remove_processors_meta, _renderer(form)],
    )


class Lines:
    """Writes lines that come often, in the form of all others, to standard error. Loggers, the standard library's or
    structlog's, would take as long again as to make the line."""

    def __init__(self, form: str, level: str) -> None:
        self._render, self._least = _renderer(form), _LEVELS[level]
        self._write = structlog.WriteLogger(sys.stderr).msg

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line, if those of its level are."""
        if _LEVELS[level] >= self._least:
            self._write(self._render(None, level, {"timestamp": _now(), "level": level, "event": event, **fields}))


def _now() -> str:
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_as_text(second)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=1)
def _as_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _add_time(logger: Any, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = _now()
    return event


def _add_request(logger: Any, method: str, event: EventDict) -> EventDict:
    """The ids of the request at hand."""
    request_id = getattr(event["_record"], "request_id", "-")
    if request_id != "-":
        event["request_id"] = request_id
    observation = current_observation.get()
    if observation is not None and observation.trace is not None:
        event["trace_id"] = observation.trace.trace_id
    return event


def _renderer(form: str) -> Callable[[Any, str, EventDict], str]:
    return _render_json if form == "json" else _render_for_people


def _render_json(logger: Any, method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=str).decode()
    except TypeError:
        line = "\n"  # a lone surrogate, or a large number
    return line if line.isprintable() else json.dumps(event, default=str).replace("\x7f", "\\u007f")


def _render_for_people(logger: Any, method: str, event: EventDict) -> str:
    exception = event.pop("exception", "")
    event["level"] = event["level"].upper()
    first = " ".join([str(event.pop(name)) for name in _FIRST if name in event])
    others = "".join([f" {name}={_quote(value)}" for name, value in event.items()])
    lines = [first + others]
    if exception:
        lines += [f"    {line}" for line in exception.split("\n") if line]
    return "\n".join([line if line.isprintable() else _escape(line) for line in lines])


def _quote(value: Any) -> str:
    # By its very type: each line passes here ten times.
    if type(value) is str:
        if value and not _needs_quotes(value):
            return value
    elif type(value) in (int, float, bool):
        return str(value)
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:
        return json.dumps(value, default=str)


_needs_quotes = re.compile(r"[\s\"=]").search


def _escape(line: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
