"""A worker of one thread answers whatever happens to a request, and is ended only by what shall end it."""

import email.utils
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from gunicorn.app.base import Application
from gunicorn.config import Config
from gunicorn.glogging import Logger

from apps.operations.arrival import Arrival
from apps.operations.workers import OneThread
from tests.server import ROOT, Server, until

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


def test_who_takes_too_long_at_once_is_told_and_logged(worker: OneThread, caplog: pytest.LogCaptureFixture) -> None:
    worker.use(_Failing(SystemExit(1)))
    _, body = answer(worker)
    assert "VECTORDB_REQUEST_TIMEOUT" in body["detail"]
    assert "Traceback" in caplog.text


def test_what_shall_end_the_worker_does(worker: OneThread) -> None:
    worker.use(_Failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
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


class _ShortWay:
    """An application that answers at once."""

    django: Any = None

    def at_once(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        return "200 OK", [], b"{}"


def date(worker: OneThread) -> str:
    """The header `Date` of an answer."""
    request = Arrival(1000)
    assert request.add(b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    lines = worker.answer(request, _ADDRESS, _ADDRESS).decode().split("\r\n")
    [found] = [line.removeprefix("Date: ") for line in lines if line.startswith("Date: ")]
    return found


def test_an_answer_at_once_has_the_date_of_now(worker: OneThread, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.use(_ShortWay())
    before = int(time.time())
    now = email.utils.parsedate_to_datetime(date(worker)).timestamp()
    assert before <= now <= time.time()
    # The example of RFC 9110, and what follows.
    for second, text in ((784111777.0, "37"), (784111777.99, "37"), (784111778.0, "38")):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda second=second: second)
            assert date(worker) == f"Sun, 06 Nov 1994 08:49:{text} GMT"


def takes_a_while(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """An application that works for as many seconds as the query says, and answers by which process it is."""
    time.sleep(float(environ["QUERY_STRING"]))
    answer = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


class _TakesAWhileAtOnce:
    """The same by the short way."""

    django = staticmethod(takes_a_while)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """gunicorn wants this of an application."""
        return takes_a_while(environ, start_response)

    def at_once(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        [answer] = takes_a_while(environ, lambda *_: None)
        return "200 OK", [("Content-Length", str(len(answer)))], answer


takes_a_while_at_once = _TakesAWhileAtOnce()


@pytest.fixture
def url(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """gunicorn with one worker, which is ended a second after it showed life, and the application of that name."""
    application = getattr(request, "param", "takes_a_while")
    server = Server(folder)
    options = ["--worker-class", "apps.operations.workers.OneThread", "--timeout", "1", "--no-control-socket"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "--bind", f"127.0.0.1:{server.port}", f"{__name__}:{application}"],
        env=server.environ | {"DJANGO_SETTINGS_MODULE": "vectordb.settings"},
        cwd=ROOT,
    )
    try:
        until(lambda: is_listening(server.port), "gunicorn listens")
        yield server.url
    finally:
        process.terminate()
        process.wait(timeout=60)
        server.drop_database()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answering(url: str, seconds: float = 0) -> httpx.Response:
    return httpx.get(f"{url}/?{seconds}", timeout=60, trust_env=False)


def test_a_worker_that_is_busy_with_many_short_requests_is_not_ended(url: str) -> None:
    """They are all there at once, so that it does not come to wait for the next one in between."""
    worker = answering(url).text
    address = httpx.URL(url)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((address.host, address.port), 60)) for _ in range(9)]
        for client in clients:
            client.sendall(b"GET /?0.4 HTTP/1.1\r\nHost: localhost\r\n")
        assert answering(url).text == worker, "who came before has been taken in"
        for client in clients:
            client.sendall(b"\r\n")
        for client in clients:
            with client.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body.decode() == worker
    assert answering(url).text == worker


@pytest.mark.parametrize("url", ["takes_a_while", "takes_a_while_at_once"], indirect=True)
def test_a_worker_that_is_busy_with_one_request_for_too_long_is_ended(url: str) -> None:
    worker = answering(url).text
    told = answering(url, seconds=50)
    assert (told.status_code, told.json()["code"]) == (500, "internal_error")
    assert "VECTORDB_REQUEST_TIMEOUT" in told.json()["detail"]
    assert answering(url).text != worker
