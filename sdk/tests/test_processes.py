"""Threads, children and interrupts."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
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


def test_a_closed_client_says_so(client: Client) -> None:
    other = Client(client.url)
    other.close()
    with pytest.raises(VectorDBError, match="closed"):
        other.health()


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
