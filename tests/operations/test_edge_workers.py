"""Workers that are kept busy, hang, are killed, replaced and stopped, while clients have requests for them."""

import http.client
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.api.problems import assert_refused
from tests.operations.sleeper import THREADS, TIMEOUT
from tests.server import ROOT, Server, serving, until
from tests.sockets import connect, read_all, read_response


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gunicorn with one worker that runs the sleeper."""
    server = Server(tmp_path_factory.mktemp("sleeper") / "data")
    options = [
        "--worker-class",
        "apps.operations.edge.worker.Worker",
        "--graceful-timeout",
        "10",
        "--no-control-socket",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "--bind", f"127.0.0.1:{server.port}", "tests.operations.sleeper"],
        env=server.environ | {"DJANGO_SETTINGS_MODULE": "vectordb.settings"},
        cwd=ROOT,
    )
    try:
        until(lambda: answers(server.url, process), "gunicorn answers")
        yield server.url
    finally:
        process.terminate()
        process.wait(timeout=60)
        server.drop_database()


def answers(url: str, process: "subprocess.Popen[bytes] | None" = None) -> bool:
    assert process is None or process.poll() is None, "it has ended"
    try:
        return ask(url, "/health").status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, path: str = "/") -> httpx.Response:
    return httpx.get(url + path, timeout=60, trust_env=False)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as pool:
        yield pool


@pytest.mark.any_database
def test_health_is_answered_while_all_threads_are_busy(url: str, pool: ThreadPoolExecutor) -> None:
    busy = [pool.submit(ask, url, "/?2") for _ in range(THREADS)]
    while not all(future.done() for future in busy):
        assert ask(url, "/health").json() == {"status": "ok"}
    worker = ask(url).text
    assert {future.result().text for future in busy} == {worker}


@pytest.mark.any_database
def test_a_worker_that_is_busy_with_many_short_requests_is_not_ended(url: str, pool: ThreadPoolExecutor) -> None:
    worker = ask(url).text
    assert {answer.text for answer in pool.map(lambda _: ask(url, "/?0.4"), range(20))} == {worker}


@pytest.mark.any_database
@pytest.mark.parametrize("path", ["/", "/routed"])
@pytest.mark.parametrize("failure", ["bug", "exit"])
def test_what_fails_is_told_and_ends_no_thread(url: str, path: str, failure: str) -> None:
    worker = ask(url).text
    for _ in range(THREADS + 1):
        assert "This is a bug" in assert_refused(ask(url, f"{path}?{failure}"), 500, "internal_error")["detail"]
    assert ask(url, path).text == worker


@pytest.mark.any_database
@pytest.mark.parametrize("length", [1, 9999])
def test_an_answer_has_the_length_that_its_head_says(url: str, length: int) -> None:
    """That of a file is from when the server started. More bytes would be a part of the next answer."""
    worker = ask(url).text
    with httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        assert [client.get(path).text for path in (f"/length/{length}", "/")] == [worker, worker]


@pytest.mark.any_database
@pytest.mark.parametrize("path", ["/", "/routed"])
def test_a_request_that_hangs_ends_with_its_worker_and_others_do_not(
    url: str, path: str, pool: ThreadPoolExecutor
) -> None:
    worker = ask(url).text
    hanging = pool.submit(ask, url, f"{path}?1000")
    others: list[Future[httpx.Response]] = []
    while not hanging.done():
        others.append(pool.submit(ask, url, "/?1"))
        others[-1].result()
    assert "VECTORDB_REQUEST_TIMEOUT" in assert_refused(hanging.result(), 500, "internal_error")["detail"]
    assert {other.result().status_code for other in others} == {200}
    until(lambda: answers(url) and ask(url).text != worker, "another worker answers")


@pytest.mark.any_database
def test_a_request_whose_client_is_gone_before_its_turn_is_not_run(url: str, pool: ThreadPoolExecutor) -> None:
    worker = ask(url).text
    with ExitStack() as stack:
        for path in ["/?2"] * THREADS + ["/?1000"] * THREADS:
            address = urlsplit(url)
            client = stack.enter_context(socket.create_connection((address.hostname, address.port)))
            # To close is then to reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
            # What came before is read when this is answered.
            assert ask(url, "/health").status_code == 200
    # A request that runs for so long would end the worker within the time of these.
    assert {answer.text for answer in pool.map(lambda _: ask(url, "/?2"), range(2 * TIMEOUT))} == {worker}


class Load:
    """Clients that send one request after the other until they are stopped, and note what failed."""

    def __init__(self, server: Server, pool: ThreadPoolExecutor, *, keep: bool) -> None:
        self._server = server
        self._keep = keep
        self._stop = Event()
        self.answered = 0
        self.failed: list[BaseException] = []
        self._clients = [pool.submit(self._run) for _ in range(4)]

    def __enter__(self) -> "Load":
        until(lambda: self.answered > 100, "requests are answered")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.result()

    def _run(self) -> None:
        headers = self._server.authorization | ({} if self._keep else {"Connection": "close"})
        with closing(http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)) as connection:
            while not self._stop.is_set():
                try:
                    connection.request("GET", "/api/v1/libraries", headers=headers)
                    with connection.getresponse() as response:
                        assert response.status == 200
                        response.read()
                    self.answered += 1
                except ConnectionRefusedError:
                    # The server has ended.
                    return
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(error)
                    connection.close()


@pytest.fixture(params=[True, False], ids=["keep-alive", "new connections"])
def keep(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture
def running(shared: Server) -> Server:
    """A server that tests may stop."""
    return shared if shared.process is not None else shared.start()


@pytest.mark.any_database
def test_each_worker_takes_its_share_of_those_who_connect_at_once(running: Server) -> None:
    with running.clients_of_each_worker(1):
        # By now each takes connections.
        workers = running.workers()
    until(lambda: not sum(connections_of(workers)), "all have been let go")
    fewest, rounds, clients = 0, 10, 8
    for _ in range(rounds):
        with ExitStack() as stack:
            for _ in range(clients):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", running.port))
            until(lambda: sum(connections_of(workers)) == clients, "all have been taken")
            fewest += min(connections_of(workers))
        until(lambda: not sum(connections_of(workers)), "all have been let go")
    assert fewest > rounds * clients / 6


def connections_of(workers: Sequence[psutil.Process]) -> list[int]:
    return [sum(one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections()) for worker in workers]


def test_a_reload_under_load_fails_no_request(running: Server, keep: bool, pool: ThreadPoolExecutor) -> None:
    before = set(running.workers())
    with Load(running, pool, keep=keep) as load:
        running.master().send_signal(signal.SIGHUP)
        until(lambda: len(running.workers()) == 2 and not before & set(running.workers()), "the workers are others")
        answered = load.answered
        until(lambda: load.answered > answered + 100, "the new ones answer")
    assert load.failed == []


def test_a_worker_that_is_killed_takes_only_its_own_connections(running: Server, pool: ThreadPoolExecutor) -> None:
    before = set(running.workers())
    with running.clients_of_each_worker(2) as clients:
        running.workers()[0].kill()
        until(lambda: len(running.workers()) == 2 and set(running.workers()) != before, "there are two workers again")
        for client in clients:
            try:
                assert client.get("/libraries").status_code == 200
            except httpx.TransportError:
                # The pool notices, and connects again.
                assert client.get("/libraries").status_code == 200


@pytest.mark.any_database
def test_a_stop_under_load_fails_no_request(running: Server, keep: bool, pool: ThreadPoolExecutor) -> None:
    with Load(running, pool, keep=keep) as load:
        assert running.stop() == 0
    assert load.failed == []


@pytest.mark.any_database
def test_a_worker_whose_loop_hangs_is_replaced(folder: Path) -> None:
    timeouts = {"VECTORDB_REQUEST_TIMEOUT": 5, "VECTORDB_BUSY_TIMEOUT": 1, "VECTORDB_EMBEDDING_TIMEOUT": 1}
    with serving(folder, VECTORDB_WORKERS=1, **timeouts) as server:
        (before,) = server.workers()
        before.suspend()
        until(lambda: server.workers() not in ([], [before]), "another worker has come")
        with server.client() as client:
            assert client.get("/libraries").status_code == 200


@pytest.mark.any_database
def test_a_stop_lets_those_finish_who_have_begun(running: Server, pool: ThreadPoolExecutor) -> None:
    with ExitStack() as stack:
        silent = connect(running, stack)
        begun = connect(running, stack, b"GET /health HTTP/1.1\r\n")
        with running.client() as client:
            assert client.get("/libraries").status_code == 200
        stopping = pool.submit(running.stop)
        # The port is free when the server takes nobody in any more.
        while True:
            try:
                socket.create_connection(("127.0.0.1", running.port)).close()
            except OSError:
                break
        begun.sendall(b"Host: localhost\r\n\r\n")
        assert read_response(begun).status_code == 200
        assert read_all(silent) == b""
        assert stopping.result() == 0
