"""Log lines and metrics where no server is needed: their forms, and how a process takes over another one's numbers."""

import json
import logging
from collections.abc import Iterator

import pytest
from django.http import Http404
from django.test import RequestFactory
from pytest_django.fixtures import Settings

from apps.access.requests import NOBODY, SERVER, Refused
from apps.operations.metrics import show
from apps.telemetry import instruments, metrics, slots
from apps.telemetry.logs import formatter

pytestmark = pytest.mark.any_database

FORGED = "a\n2026-01-01 ERROR forged\r\x1b[2J\x7f\u2028\x9b"


@pytest.fixture
def counted() -> Iterator[None]:
    """Numbers of this process that a test may change."""
    before = {name: one.series for name, one in instruments.Instrument.by_name.items()}
    instruments.begin_with({})
    yield
    for name, series in before.items():
        instruments.Instrument.by_name[name].series = series


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("apps.some", logging.ERROR, __file__, 1, "%s", (message,), info)
    made.request_id = "-"
    return made


@pytest.mark.parametrize("message", [FORGED, "a lone \udcff surrogate", 'quotes " and ='])
def test_a_line_of_json_holds_any_message(message: str) -> None:
    line = formatter("json").format(record(message))
    assert line.isprintable()
    assert json.loads(line)["event"] == message
    assert json.loads(line)["level"] == "error"


def test_a_traceback_for_people_is_indented() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        lines = formatter("console").format(record(FORGED, error)).split("\n")
    assert lines[0].split(" ")[1:3] == ["ERROR", "apps.some"]
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(line.isprintable() for line in lines)


def test_a_process_goes_on_from_the_numbers_of_one_that_ended(counted: None, settings: Settings) -> None:
    first = slots.Slot("test", lambda: metrics.MAINTAINING.set(1))
    metrics.SLOW_QUERIES.add(3)
    metrics.SEAL_SECONDS.observe(0.02)
    metrics.SEAL_SECONDS.observe(1e6)
    first.write()
    second = slots.Slot("test", lambda: None)
    assert second.name != first.name
    assert metrics.SLOW_QUERIES.series == {}
    metrics.SLOW_QUERIES.add(1)
    second.write()
    instruments.begin_with({})
    assert slots.collect()["vectordb_slow_queries_total"] == {(): [4]}
    seconds = slots.collect()["vectordb_seal_seconds"][()]
    assert (seconds[1], seconds[-2], seconds[-1]) == (1, 1, 1000000.02)
    assert slots.collect()["vectordb_maintenance_running"] == {(): [1]}
    # The process ends, and with it its lock.
    first._file.close()
    third = slots.Slot("test", lambda: None)
    assert third.name == first.name
    metrics.SLOW_QUERIES.add(1)
    third.write()
    instruments.begin_with({})
    assert slots.collect()["vectordb_slow_queries_total"] == {(): [5]}
    assert "vectordb_maintenance_running" not in slots.collect()
    for slot in (second, third):
        slot._file.close()
    slots.clear()
    assert "vectordb_slow_queries_total" not in slots.collect()


def test_a_second_server_on_a_folder_leaves_what_the_first_uses() -> None:
    slot, news = slots.Slot("test", lambda: None), slots.runtime_folder() / "job-news"
    news.touch()
    slots.clear()
    assert news.exists()
    slot._file.close()
    slots.clear()
    assert not news.exists()


def test_metrics_are_for_who_may_see_them(settings: Settings) -> None:
    request = RequestFactory().get("/metrics")
    settings.METRICS = "off"
    with pytest.raises(Http404):
        show(request)
    settings.METRICS = "admin"
    request.principal = NOBODY  # type: ignore[attr-defined]
    with pytest.raises(Refused) as refused:
        show(request)
    assert refused.value.code == "unauthorized"


@pytest.mark.django_db(databases=["default", "snapshot"])
@pytest.mark.parametrize(("who", "openness"), [(SERVER, "admin"), (NOBODY, "open")])
def test_metrics_are_shown(settings: Settings, who: object, openness: str) -> None:
    request = RequestFactory().get("/metrics")
    request.principal = who  # type: ignore[attr-defined]
    settings.METRICS = openness
    assert b"vectordb_database_up 1.0" in show(request).content
