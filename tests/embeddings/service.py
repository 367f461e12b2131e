"""A service on the loopback address: it answers what a test tells it to, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import pytest
from pytest_django.fixtures import Settings

from apps.embeddings import registry
from apps.embeddings.config import Config


class Answer(NamedTuple):
    """What the service says; a body that is not bytes is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = {}
    content_type: str = "application/json"


class Asked(NamedTuple):
    """What the service was asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


def _nothing(_: dict[str, Any]) -> Answer:
    return Answer({}, 500)


HANG = Answer(None, status=0)
BREAK = Answer(None, status=-1)


@contextmanager
def embedding_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, usual: Callable[[dict[str, Any]], Answer]
) -> Iterator["Service"]:
    """A service that is the server's provider `openai`, and answers as `usual`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Service() as running:
        settings.EMBEDDINGS = Config(first_wait=0.001, openai_base_url=f"{running.url}/v1", openai_api_key="k")
        running.usual = usual
        yield running
    registry.forget()


class Service:
    """Answers `next_answers` one after the other, and then what `usual` makes of the body of each request."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.next_answers: list[Answer] = []
        self.usual: Callable[[dict[str, Any]], Answer] = _nothing
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(service) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append(Asked(self.path, headers, body))
                answer = service.next_answers.pop(0) if service.next_answers else service.usual(body)
                if answer is HANG:
                    service._over.wait(10)
                if answer in (HANG, BREAK):
                    return
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler
