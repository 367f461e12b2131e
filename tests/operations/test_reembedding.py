"""Moving a library to another embedding model with real processes: killed at any instant, by the command, beside
queries; afterwards every chunk has the model's vector of its text."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest

from apps.embeddings.services import embed
from tests.server import ROOT, Server, serving, until

MODELS = ("hashing-64", "hashing-128")
ROWS, ROWS_PER_WRITE = 2500, 1250
CRASHES = 4
PATH = "/libraries/notes"


def text_of(number: int) -> str:
    return f"Note {number} on {number % 7} things, of {number % 11} kinds"


def make(client: httpx.Client, rows: int = ROWS) -> None:
    """The library `notes`, by the first model."""
    library = {"id": "notes", "name": "Notes", "embedding": {"provider": "hashing", "model": MODELS[0]}}
    client.post("/libraries", json=library).raise_for_status()
    for start in range(0, rows, ROWS_PER_WRITE):
        numbers = range(start, min(start + ROWS_PER_WRITE, rows))
        chunks = [{"id": str(number), "text": text_of(number)} for number in numbers]
        client.post(f"{PATH}/chunks", json={"chunks": chunks}).raise_for_status()


def ask(client: httpx.Client, model: str, provider: str = "hashing") -> None:
    body = {"embedding": {"provider": provider, "model": model}}
    assert client.post(f"{PATH}/reembed", json=body).raise_for_status().status_code == 202


def state(client: httpx.Client) -> Any:
    return client.get(f"{PATH}/stats").raise_for_status().json()["reembedding"]


def is_over(client: httpx.Client) -> bool:
    found = state(client)
    assert found is None or found["state"] != "failed", found
    return found is None


def model(client: httpx.Client) -> str:
    found: str = client.get(PATH).raise_for_status().json()["embedding"]["model"]
    return found


def assert_is_of(client: httpx.Client, name: str) -> None:
    """Every chunk has the vector that the model makes of its text."""
    assert model(client) == name
    cursor, items = "", []
    while cursor is not None:
        query = {"limit": 500, "include": ["text", "embedding"]} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"{PATH}/chunks", params=query).raise_for_status().json()
        items += page["items"]
        cursor = page["next_cursor"]
    stored = np.array([item["embedding"] for item in items], np.float32)
    np.testing.assert_array_equal(stored, embed("hashing", name, [item["text"] for item in items], "document"))
    answer = client.post(f"{PATH}/query", json={"text": items[7]["text"], "k": 1}).raise_for_status().json()
    assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-6)


def test_a_move_that_is_killed_at_any_instant_goes_on_and_is_right(folder: Path) -> None:
    chance = random.Random(4)
    with serving(folder, VECTORDB_THREADS=2) as server:
        with server.client() as client:
            make(client)
        wanted = MODELS[0]
        for _ in range(CRASHES):
            with server.client() as client:
                if state(client) is None:
                    wanted = MODELS[MODELS.index(wanted) ^ 1]
                    ask(client, wanted)
                until(lambda: (found := state(client)) is None or found["embedded"], "something was embedded")
                client.patch(f"{PATH}/chunks/5", json={"text": f"changed {chance.random()}"}).raise_for_status()
            time.sleep(chance.uniform(0, 0.25))
            server.kill()
            server.start()
        with server.client() as client:
            until(lambda: is_over(client), "the move is over")
            assert_is_of(client, wanted)
            until(lambda: _embeddings(server) == ROWS, "what was left of other models is swept")
        assert "ERROR" not in server.log.read_text()


def _embeddings(server: Server) -> int:
    code = "from apps.libraries.models import Embedding; print(Embedding.objects.count())"
    return int(server.manage("shell", "-v", "0", "-c", code).stdout.split()[-1])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with that library, whose index is built."""
    with serving(tmp_path_factory.mktemp("moves") / "data", VECTORDB_THREADS=2) as server:
        with server.client() as client:
            make(client)
        assert server.manage("rebuild_index").returncode == 0
        yield server


def test_beside_queries_no_answer_is_mixed_or_an_error_and_the_log_is_quiet(running: Server) -> None:
    over = Event()

    def query(number: int) -> int:
        asked = 0
        with running.client() as client:
            while not over.is_set():
                body = {"text": text_of(number), "k": 5, "include": ["embedding"]}
                answer = client.post(f"{PATH}/query", json=body)
                assert answer.status_code == 200, answer.text
                results = answer.json()["results"]
                assert len({len(result["embedding"]) for result in results}) == 1
                assert results[0]["id"] == str(number)
                asked += 1
        return asked

    with running.client() as client, ThreadPoolExecutor(3) as pool:
        since = len(running.log.read_text())
        before = client.get(f"{PATH}/stats").json()
        asking = [pool.submit(query, number) for number in (1, 22, 333)]
        try:
            for name in (*reversed(MODELS), MODELS[1]):
                ask(client, name)
                until(lambda: is_over(client), "the move is over")
                assert model(client) == name
        finally:
            over.set()
        assert all(one.result() for one in asking)
        until(lambda: _index(client)["state"] == "ready" and not _index(client)["rows_pending"], "it is built")
        after = client.get(f"{PATH}/stats").json()
        assert (after["chunks"], after["index"]["rows_indexed"]) == (ROWS, ROWS)
        # Each move is one entry of the log, beside those that tell maintenance of the library's row.
        assert 3 <= after["revision"] - before["revision"] < 20
        assert_is_of(client, MODELS[1])
        assert running.log.read_text()[since:] == ""
    verified = running.manage("verify_index", "notes")
    assert verified.returncode == 0
    assert f"{ROWS:,} rows, equal to the database" in verified.stdout
    assert verified.stderr == ""


def _index(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{PATH}/stats").json()["index"]
    assert found["state"] != "failed", found
    return found


def reembed(server: Server, model: str, provider: str = "hashing") -> "subprocess.CompletedProcess[str]":
    return server.manage("reembed", "notes", "--provider", provider, "--model", model)


def test_beside_a_server_the_command_waits_for_its_maintenance(running: Server) -> None:
    ended = reembed(running, "hashing-96")
    assert (ended.returncode, ended.stdout) == (0, "notes: hashing hashing-96, dimension 96\n"), ended.stderr
    with running.client() as client:
        assert_is_of(client, "hashing-96")
        changes = client.get("/audit", params={"library": "notes", "limit": 500}).raise_for_status().json()["items"]
    [asked] = [one for one in changes if one["target"] == "hashing hashing-96"]
    assert (asked["action"], asked["name"]) == ("reembed_library", "manage.py reembed")


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("library", "provider", "model", "sentence"),
    [
        ("ntoes", "hashing", "hashing-64", "There is no library 'ntoes'."),
        ("notes", "hashing", "hashing", "cannot be used: 'hashing' is not a model"),
        ("notes", "oracle", "m", "'oracle' is not an embedding provider"),
        ("notes", "o" * 65, "m", "--provider"),
    ],
)
def test_what_cannot_be_done_is_told(running: Server, library: str, provider: str, model: str, sentence: str) -> None:
    ended = running.manage("reembed", library, "--provider", provider, "--model", model)
    assert ended.returncode == 1
    assert sentence in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.any_database
def test_without_a_server_the_command_does_it_itself(running: Server) -> None:
    assert running.stop() == 0
    ended = reembed(running, "hashing-160")
    assert (ended.returncode, ended.stdout) == (0, "notes: hashing hashing-160, dimension 160\n"), ended.stderr
    running.start()
    with running.client() as client:
        assert state(client) is None
        assert_is_of(client, "hashing-160")


@pytest.mark.any_database
def test_who_interrupts_the_command_is_told_what_becomes_of_it(folder: Path) -> None:
    """Nobody listens at that address, so the move waits."""
    settings = {"VECTORDB_OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "VECTORDB_EMBEDDING_RETRIES": 0}
    with serving(folder, **settings) as server, server.client() as client:
        make(client, 10)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "reembed", "notes", "--provider", "openai", "--model", "m"],
            env=server.environ,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            # As in a terminal; what runs in the background of a script is born ignoring it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            until(lambda: (found := state(client)) and found["state"] == "waiting", "the move waits")
            assert "cannot be reached" in state(client)["error"]
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "a running server goes on with the rest" in told
        assert "Traceback" not in told
        assert state(client)["state"] == "waiting"
        assert client.delete(f"{PATH}/reembed").status_code == 204
        until(lambda: is_over(client), "it is called off")
        assert_is_of(client, MODELS[0])
