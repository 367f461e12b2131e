"""A worker of one thread answers whatever happens to a request, and is ended only by what shall end it."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from gunicorn.app.base import Application
from gunicorn.config import Config
from gunicorn.glogging import Logger

from apps.operations.arrival import Arrival
from apps.operations.workers import OneThread

_ADDRESS = ("127.0.0.1", 8000)


class _Failing:
    """An application that fails by `error`, at once or as WSGI's application."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def at_once(self, environ: dict[str, Any]) -> None:
        raise self._error

    def django(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise self._error


@pytest.fixture
def worker() -> Iterator[OneThread]:
    config = Config()
    worker = OneThread(0, 0, [], Application, 30, config, Logger(config))
    yield worker
    worker.tmp.close()


def answer(worker: OneThread) -> tuple[bytes, Any]:
    """The status line and the body of the answer to a request."""
    request = Arrival(1000)
    assert request.add(b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    head, _, body = worker.answer(request, _ADDRESS, _ADDRESS).partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], orjson.loads(body)


@pytest.mark.parametrize("error", [ValueError("a"), TimeoutError("a"), BlockingIOError("a"), BrokenPipeError("a")])
def test_what_fails_at_once_is_told_and_logged(
    worker: OneThread, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    worker.use(_Failing(error))
    status, body = answer(worker)
    assert (status, body["code"]) == (b"HTTP/1.1 500 Internal Server Error", "internal_error")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_what_shall_end_the_worker_does(worker: OneThread, error: BaseException) -> None:
    worker.use(_Failing(error))
    with pytest.raises(type(error)):
        answer(worker)


@pytest.mark.parametrize(
    ("error", "words"), [(ValueError("a"), "This is a bug"), (SystemExit(1), "VECTORDB_REQUEST_TIMEOUT")]
)
def test_what_fails_in_gunicorn_is_told_and_logged(
    worker: OneThread, error: BaseException, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker.wsgi = _Failing(error).django
    status, body = answer(worker)
    assert (status, body["code"]) == (b"HTTP/1.1 500 Internal Server Error", "internal_error")
    assert words in body["detail"]
    assert "Error handling request POST /a" in caplog.text
    assert "Traceback" in caplog.text
