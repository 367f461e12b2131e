"""What the client makes of answers that are late, cut off, not the server's, or none."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from blocking import Blocking
from fake_server import HANG, HANG_UP, Reply, answering

from vectordb_client import (
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    ConnectionFailed,
    EmbeddingFailed,
    InvalidAnswer,
    NotFound,
    RateLimited,
    RequestTimedOut,
    ResponseInfo,
    Retry,
    ServerError,
    Unavailable,
    VectorDBError,
)

QUICK = Retry(attempts=4, delay=0.01, max_delay=0.02)
COUNT = Reply(body={"count": 3})
WRITTEN = Reply(body={"ids": ["a"], "created": 1, "updated": 0})


def problem(status: int, code: str, **headers: str) -> Reply:
    body = {"status": status, "code": code, "detail": f"It is {code}.", "errors": [], "request_id": "r-1"}
    return Reply(status, body, {"X-Request-ID": "r-1", **headers})


@contextlib.contextmanager
def clients(url: str, **options: Any) -> Iterator[list[Any]]:
    options = {"retry": QUICK, **options}
    with Client(url, "key", **options) as client, Blocking(AsyncClient(url, "key", **options)) as blocking:
        yield [client, blocking]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_storm_of_refusals_is_waited_out(status: int) -> None:
    refusal = problem(status, "x", **{"Retry-After": "0"})
    with answering(*[refusal, refusal, refusal, COUNT] * 2) as server, clients(server.url) as both:
        assert [client.library("a").count() for client in both] == [3, 3]
        assert len(server.received) == 8


def test_it_gives_up_after_the_attempts_and_where_the_wait_is_too_long() -> None:
    with answering(problem(503, "busy", **{"Retry-After": "0"})) as server, clients(server.url) as both:
        for client in both:
            with pytest.raises(Unavailable, match="It is busy") as caught:
                client.library("a").count()
            assert (caught.value.status, caught.value.code, caught.value.request_id) == (503, "busy", "r-1")
            assert caught.value.retry_after == 0
        assert len(server.received) == 8
    with answering(problem(429, "rate_limited", **{"Retry-After": "3600"})) as server, clients(server.url) as both:
        for client in both:
            with pytest.raises(RateLimited) as limited:
                client.library("a").count()
            assert limited.value.retry_after == 3600
        assert len(server.received) == 2


def test_what_is_not_to_be_repeated_is_not() -> None:
    for reply, error in (
        (problem(409, "conflict"), Conflict),
        (problem(404, "not_found"), NotFound),
        (problem(500, "internal_error"), ServerError),
    ):
        with answering(reply) as server, Client(server.url, retry=QUICK) as client:
            with pytest.raises(error):
                client.library("a").upsert([{"id": "a", "text": "x"}])
            assert len(server.received) == 1
    assert issubclass(EmbeddingFailed, ServerError)


def test_attempts_of_one_write_have_one_key_and_one_body() -> None:
    replies = [HANG_UP, problem(409, "idempotency_in_progress", **{"Retry-After": "0"}), problem(502, "x"), WRITTEN]
    with answering(*replies * 2) as server, clients(server.url) as both:
        for client in both:
            assert client.library("a").upsert(texts=["No id"]).created == 1
        first, second = server.received[:4], server.received[4:]
        for attempts in (first, second):
            assert len({(one.headers["idempotency-key"], one.body) for one in attempts}) == 1
        assert first[0].headers["idempotency-key"] != second[0].headers["idempotency-key"]
        # The id is made here, so that a server that knows no such keys stores it once, too.
        assert b'"id":"0' in first[0].body


def test_a_call_of_a_tool_is_a_write_and_other_messages_are_sent_once() -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "remember"}}
    answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "Unknown tool"}}
    with answering(*[HANG_UP, problem(503, "x"), Reply(400, answer)] * 2) as server, clients(server.url) as both:
        assert [client.mcp(call) for client in both] == [answer, answer]
        assert len({one.headers["idempotency-key"] for one in server.received}) == 2
    with answering(HANG_UP) as server, Client(server.url, retry=QUICK) as client:
        with pytest.raises(ConnectionFailed):
            client.mcp({**call, "method": "ping"})
        assert len(server.received) == 1
    refusal = problem(400, "host_not_allowed", **{"Content-Type": "application/problem+json"})
    with (
        answering(refusal) as server,
        Client(server.url) as client,
        pytest.raises(BadRequest, match="host_not_allowed"),
    ):
        client.mcp(call)


def test_a_broken_export_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("before")
    whole, cut = Reply(body=b"x" * 1000), Reply(body=b"x" * 1000, cut=500)
    with answering(cut, whole, cut) as server, clients(server.url) as both:
        assert both[0].library("a").export(file, overwrite=True).read_text() == "x" * 1000
        for client in both:
            with pytest.raises(ConnectionFailed):
                client.library("a").export(file, overwrite=True)
    assert (file.stat().st_size, os.listdir(tmp_path)) == (1000, ["a.jsonl"])


def test_a_delete_whose_answer_was_lost_is_done() -> None:
    with answering(HANG_UP, problem(404, "not_found")) as server, Client(server.url, retry=QUICK) as client:
        assert client.library("a").delete_chunk("x") is None
        with pytest.raises(NotFound):
            client.library("a").delete_chunk("x")


def test_a_conditional_write_is_not_repeated_once_it_may_have_been_done() -> None:
    with answering(HANG_UP) as server, Client(server.url, retry=QUICK) as client:
        with pytest.raises(ConnectionFailed):
            client.library("a").update_chunk("x", text="New", if_match='"1"')
        assert len(server.received) == 1


def test_answers_that_are_cut_off_are_asked_for_again() -> None:
    cut = Reply(body={"count": 12345678}, cut=5)
    with answering(cut, COUNT, cut, COUNT) as server, clients(server.url) as both:
        assert [client.library("a").count() for client in both] == [3, 3]
    with answering(cut) as server, clients(server.url) as both:
        for client in both:
            with pytest.raises(ConnectionFailed):
                client.library("a").count()


def test_answers_that_are_not_the_servers() -> None:
    page = b"<html><body>Sign in to the network</body></html>"
    html = {"Content-Type": "text/html"}
    with answering(Reply(200, page, html)) as server, clients(server.url) as both:
        for client in both:
            with pytest.raises(InvalidAnswer, match="Sign in"):
                client.library("a").count()
        assert len(server.received) == 2
    with answering(Reply(502, b"<h1>Bad Gateway</h1>", html)) as server, clients(server.url) as both:
        for client in both:
            with pytest.raises(ServerError, match="Bad Gateway") as caught:
                client.library("a").count()
            assert (caught.value.status, caught.value.code) == (502, None)
        assert len(server.received) == 8
    for reply, error, match in (
        (Reply(301, b"", {"Location": "https://elsewhere/"}), VectorDBError, "https://elsewhere/"),
        (Reply(200, {"other": 1}), InvalidAnswer, "count"),
    ):
        with answering(reply) as server, Client(server.url) as client, pytest.raises(error, match=match):
            client.library("a").count()


def test_time_outs_of_each_phase() -> None:
    with answering(HANG) as server:
        with clients(server.url, timeout=httpx2.Timeout(5, read=0.2)) as both:
            for client in both:
                with pytest.raises(RequestTimedOut, match="ReadTimeout") as caught:
                    client.library("a").count()
                assert caught.value.is_sent
            # The server may still be at work: it is not given the same again.
            assert len(server.received) == 2
        with clients(server.url, timeout=httpx2.Timeout(5, pool=0.2, read=2), max_connections=1, retry=1) as both:
            for client in both[:1]:
                _time_out_of_the_pool(client)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with clients(url, timeout=httpx2.Timeout(5, write=0.2), retry=1) as both:
            for client in both:
                with pytest.raises(RequestTimedOut, match="WriteTimeout"):
                    client.library("a").upsert(texts=["x" * (16 << 20)])
                full.accept()[0].close()
        with contextlib.ExitStack() as waiting:
            for _ in range(2):
                waiting.enter_context(contextlib.closing(_connecting(full.getsockname())))
            with clients(url, timeout=httpx2.Timeout(5, connect=0.2), retry=1) as both:
                for client in both:
                    with pytest.raises(RequestTimedOut, match="no connection in time") as unsent:
                        client.health()
                    assert not unsent.value.is_sent


def _time_out_of_the_pool(client: Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(client.library("a").count) for _ in range(2)]
        reasons = sorted(str(future.exception()) for future in futures)
    assert ["PoolTimeout" in reason for reason in reasons].count(True) == 1, reasons


def _connecting(address: tuple[str, int]) -> socket.socket:
    """A connection that nobody accepts, so that it has a place of the queue."""
    one = socket.socket()
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        one.connect(address)
    return one


def test_hooks_and_logs_tell_of_each_attempt_but_no_key(caplog: pytest.LogCaptureFixture) -> None:
    requests: list[Any] = []
    responses: list[ResponseInfo] = []
    with answering(problem(503, "busy"), HANG_UP, COUNT) as server, caplog.at_level(logging.DEBUG):
        options = {"retry": QUICK, "on_request": requests.append, "on_response": responses.append}
        with Client(server.url, "vdb_secret", **options) as client:
            client.library("a b").count()
    assert [(one.method, one.path, one.attempt) for one in requests] == [
        ("POST", "/api/v1/libraries/a%20b/chunks/count", attempt) for attempt in (1, 2, 3)
    ]
    assert [one.status for one in responses] == [503, None, 200]
    assert isinstance(responses[1].error, ConnectionFailed)
    assert [one.retry_in is None for one in responses] == [False, False, True]
    assert "attempt 2 follows" in caplog.text
    assert "secret" not in caplog.text + repr(requests) + repr(responses) + repr(client)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(Reply(body={"status": "ok"})) as server:
        monkeypatch.setenv("VECTORDB_URL", f"{server.url}/base/api/v1/")
        monkeypatch.setenv("VECTORDB_API_KEY", "from the environment")
        with Client() as client:
            assert client.health() == "ok"
        assert server.received[0].target == "/base/health"
        assert server.received[0].headers["authorization"] == "Bearer from the environment"
    with pytest.raises(ValueError, match="must begin with http"):
        Client("localhost:8000")
