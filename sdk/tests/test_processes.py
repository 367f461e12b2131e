"""Threads, children and interrupts."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_server import HANG, Reply, answering

from vectordb_client import Client, Library, VectorDBError


def test_a_hundred_threads_share_a_client(client: Client, library: Library) -> None:
    together = threading.Barrier(100)

    def work(number: int) -> list[str]:
        together.wait()
        library.upsert([{"id": f"t{number}", "vector": [number + 1, 1, 0], "metadata": {"n": number}}])
        return library.query([number + 1, 1, 0], k=1, filter={"n": number}).ids

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(work, range(100))) == [[f"t{number}"] for number in range(100)]
    assert library.count() == 100


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_makes_connections_of_its_own(library: Library) -> None:
    library.upsert([{"id": "a", "vector": [1, 2, 3]}])
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            # Both ask on what was one connection: their answers would be mixed up.
            os.write(writing, b"".join(b"%d" % library.count() for _ in range(50)))
            os._exit(0)
        finally:
            os._exit(1)
    assert [library.query([1, 2, 3], k=1).ids for _ in range(50)] == [["a"]] * 50
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        assert answers.read() == b"1" * 50
    assert os.waitpid(child, 0)[1] == 0


def test_an_export_to_a_full_disk_leaves_nothing(library: Library, tmp_path: Path) -> None:
    library.upsert([{"id": "a", "vector": [1, 2, 3]}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            library.export(tmp_path / "a.jsonl")
        assert os.listdir(tmp_path) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_closed_client_says_so(client: Client) -> None:
    other = Client(client.url)
    other.close()
    with pytest.raises(VectorDBError, match="closed"):
        other.health()


LOCAL = """
import os, sys, threading
from vectordb_client import Client, VectorDBError

with Client.local(sys.argv[1]) as client:
    library = client.libraries.create("a", dimension=2)
    library.upload({"id": str(number), "text": "x" * 2000, "vector": [number, 1]} for number in range(1000))
    child = os.fork()
    if not child:
        try:
            library.count()
        except VectorDBError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    for _ in range(9):
        with client._runner._http.stream("GET", client.url + "/api/v1/libraries/a/export?format=jsonl") as response:
            next(response.iter_bytes())
    print(library.count())
print([thread.name for thread in threading.enumerate() if thread.name.startswith("vectordb")])
"""


def test_a_local_client_is_of_one_process_and_answers_that_are_left_hold_no_thread(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    command = [sys.executable, "-W", "ignore", "-c", LOCAL, str(tmp_path / "data")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.stdout.splitlines() == [
        "A local client works in the process that made it, until it is closed: make another here.",
        "1000",
        "[]",
    ], ended.stderr


LOCAL_IMPORT = """
import asyncio, sys
from pathlib import Path
from vectordb_client import AsyncClient, Client

folder, file = sys.argv[1:]
with Client.local(folder) as client:
    print(client.library("a").import_(file, create=True).wait(timeout=120).result["created"])

async def main():
    async with AsyncClient.local(folder) as client:
        job = await client.library("a").import_(file)
        print((await job.wait(timeout=120)).result["created"])

asyncio.run(main())
print(list(Path(folder, "uploads").iterdir()))
"""


def test_a_local_client_imports_files_of_any_length(tmp_path: Path) -> None:
    row = json.dumps({"text": "x" * 2000, "embedding": [1, 2]})
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{row}\n" * 100)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    environment |= {"VECTORDB_MAX_BODY_BYTES": "100000"}
    command = [sys.executable, "-W", "ignore", "-c", LOCAL_IMPORT, str(tmp_path / "data"), str(file)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines() == ["100", "100", "[]"], ended.stderr


NEWER = """
import sqlite3, sys
from vectordb_client import Client, VectorDBError

with Client.local(sys.argv[1]) as client:
    client.libraries.create("a", dimension=2)
with sqlite3.connect(sys.argv[1] + "/vectordb.sqlite3") as database:
    database.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('libraries', '0099_later', '2030')")
"""
OPEN = """
import sys
from vectordb_client import Client, VectorDBError

try:
    Client.local(sys.argv[1])
except VectorDBError as error:
    print(error)
"""


def test_a_local_client_refuses_a_data_folder_of_a_newer_version(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])}
    for code in (NEWER, OPEN):
        command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "data")]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
    assert "cannot be opened: The database was migrated by a newer version of the server" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1


UPLOAD = """
import os, sys, threading
from vectordb_client import Client, Retry

def rows():
    for number in range(10**9):
        if number == 5000:
            print("uploading", flush=True)
        yield {"id": str(number), "vector": [1, 2, 3]}

before = set(threading.enumerate())
with Client(sys.argv[1], sys.argv[2], timeout=float(sys.argv[4])) as client:
    try:
        client.library(sys.argv[3]).upload(rows(), batch_size=100)
    except KeyboardInterrupt:
        print([thread.name for thread in threading.enumerate() if thread not in before])
"""


@pytest.mark.parametrize("reply", [None, HANG, Reply(503, headers={"Retry-After": "50"})], ids=["real", "hang", "busy"])
def test_an_interrupted_upload_leaves_no_thread(client: Client, key: str, library: Library, reply: Any) -> None:
    # A request that hangs ends by the time-out of the client; one that is answered must not, however busy the machine.
    timeout = "1" if reply is HANG else "60"
    with answering(reply) as fake:
        command = [sys.executable, "-c", UPLOAD, fake.url if reply else client.url, key, library.id, timeout]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if reply:
                assert fake.has_received.wait(60)
            else:
                assert process.stdout.readline() == "uploading\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=40)[0] == "[]\n"
    assert process.returncode == 0
