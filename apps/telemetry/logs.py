"""The form of all log lines: those of this program, Django, gunicorn, uvicorn and other libraries.

`json` is one object a line, `console` is for people. Neither lets what a client sent begin a line of its own:
characters that are not printable are escaped, and the lines of a traceback are indented.
"""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from apps.telemetry.observation import current_observation

# Fields of a line that come first, in this order.
_FIRST = ("timestamp", "level", "logger", "event")
_TIMESTAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def formatter(form: str) -> logging.Formatter:
    """The formatter of the handler of the standard library's loggers, for Django's setting LOGGING."""
    add: list[Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _TIMESTAMP, _add_request]
    return ProcessorFormatter(
        foreign_pre_chain=[*add, structlog.processors.format_exc_info],
        processors=[ProcessorFormatter.remove_processors_meta, _renderer(form)],
    )


def make_logger(form: str, level: str) -> structlog.typing.FilteringBoundLogger:
    """A logger of lines that are written often: it does without the standard library's."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr),
        processors=[structlog.processors.add_log_level, _TIMESTAMP, _renderer(form)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    # Without this, each line would make a logger of its own.
    return logger.bind()


def _add_request(logger: Any, method: str, event: EventDict) -> EventDict:
    """The ids of the request at hand."""
    request_id = getattr(event["_record"], "request_id", "-")
    if request_id != "-":
        event["request_id"] = request_id
    observation = current_observation.get()
    if observation is not None and observation.trace is not None:
        event["trace_id"] = observation.trace.trace_id
    return event


def _renderer(form: str) -> Processor:
    return _render_json if form == "json" else _render_for_people


def _render_json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    try:
        line = orjson.dumps(event, default=str).decode()
    except TypeError:
        line = "\n"  # a lone surrogate, or a large number
    return line if line.isprintable() else json.dumps(event, default=str).replace("\x7f", "\\u007f")


def _render_for_people(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    exception = event.pop("exception", "")
    event["level"] = event["level"].upper()
    words = [str(event.pop(name)) for name in _FIRST if name in event]
    words += [f"{name}={_quote(value)}" for name, value in event.items()]
    lines = [" ".join(words)]
    if exception:
        lines += [f"    {line}" for line in exception.split("\n") if line]
    return "\n".join([line if line.isprintable() else _escape(line) for line in lines])


def _quote(value: Any) -> str:
    # By its very type: each line passes here ten times.
    if type(value) in (int, float, bool):
        return str(value)
    if type(value) is str and value and not _needs_quotes(value):
        return value
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:
        return json.dumps(value, default=str)


_needs_quotes = re.compile(r"[\s\"=]").search


def _escape(line: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
