"""`manage.py serve` as a person meets it: the first start, bad settings, signals, and processes that die."""

import fcntl
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest

from apps.engine import kernels
from tests.limits import BOUND_BY_PERMISSIONS, make_read_only
from tests.server import ROOT, Server, is_alive, serving, until

pytestmark = pytest.mark.any_database


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has made its database, and was told of a setting that there is not. Tests may end its processes,
    which it replaces, but not its master."""
    folder = tmp_path_factory.mktemp("running") / "data"
    with serving(folder, makes_database=True, VECTORDB_WORKRES=1, VECTORDB_BACKUP_URL="/proc/nope") as server:
        yield server


def printed_commands(server: Server) -> list[str]:
    """The lines that the server tells a person to try."""
    return re.findall(r"^  (curl .*)$", server.log.read_text(), re.MULTILINE)


def run_in_shell(command: str) -> bytes:
    return subprocess.run(command, shell=True, capture_output=True, check=True, timeout=60).stdout


def test_a_place_of_backups_that_does_not_work_is_a_warning_at_the_start(running: Server) -> None:
    assert (
        "Warning: no backup can be made, as VECTORDB_BACKUP_URL is: /proc/nope cannot be used: "
        in running.log.read_text()
    )


def test_the_first_start_loads_samples_and_prints_lines_that_work_and_the_next_leaves_what_is_there(
    folder: Path,
) -> None:
    with serving(folder, makes_database=True, VECTORDB_SAMPLE=1) as server, server.client() as client:
        said = server.log.read_text()
        assert f"This is a new database: {folder}/" in said
        by_meaning, by_words = (orjson.loads(run_in_shell(line))["results"] for line in printed_commands(server))
        assert by_meaning[0]["document_id"] == "durability"
        assert len(by_words) == 3
        assert {result["metadata"]["topic"] for result in by_words} == {"noun.animal"}
        (page,) = re.findall(r"in a browser: (\S+)", said)
        assert httpx.get(page, headers=server.authorization | {"Accept": "text/html"}).status_code == 200
        assert "/api/login?next=" in httpx.get(page, headers={"Accept": "text/html"}).text
        key = server.authorization["Authorization"].removeprefix("Bearer ")
        assert f"printed this once: {key}\n" in said
        assert stat.S_IMODE((folder / "admin_key").stat().st_mode) == 0o600
        assert client.get("/audit", params={"library": "wordnet-sample"}).raise_for_status().json()["items"] == []
        assert client.get("/libraries/wordnet-sample/stats").json()["chunks"] == 2000
        documents = client.get("/libraries/handbook-sample/documents").json()["items"]
        assert all(document["title"] and document["source"] and document["metadata"] for document in documents)
        assert sum(document["chunk_count"] for document in documents) > len(documents) > 10
        assert client.get("/libraries/handbook-sample").json()["embedding"]["provider"] == "wordllama"
        # The next start leaves what is there.
        client.post("/libraries", json={"id": "mine", "name": "Mine"}).raise_for_status()
        for library in ("wordnet-sample", "handbook-sample"):
            client.delete(f"/libraries/{library}").raise_for_status()
        assert server.stop() == 0
        server.start()
        assert [item["id"] for item in client.get("/libraries").raise_for_status().json()["items"]] == ["mine"]
        assert b'"mine"' in run_in_shell(printed_commands(server)[-1])
        assert server.log.read_text().count("This is a new database") == 1
        assert server.log.read_text().count(key) == 1


def test_the_samples_that_were_deleted_can_be_loaded_again(running: Server) -> None:
    for loaded in ("wordnet-sample and handbook-sample", "handbook-sample"):
        ended = running.manage("load_sample")
        assert (ended.returncode, ended.stdout) == (0, f"Loaded the sample libraries {loaded}.\n"), ended.stderr
        with running.client() as client:
            changes = client.get("/audit", params={"library": "handbook-sample"}).raise_for_status().json()["items"]
            made = [one["name"] for one in changes if one["action"] == "create_library"]
            assert set(made) == {"manage.py load_sample"}
            client.delete("/libraries/handbook-sample").raise_for_status()
    running.manage("load_sample")
    again = running.manage("load_sample")
    assert (again.returncode, again.stderr.splitlines()[-1]) == (
        1,
        "CommandError: The sample libraries exist already; delete one to load it again.",
    )
    with running.client() as client:
        for library in ("wordnet-sample", "handbook-sample"):
            client.delete(f"/libraries/{library}").raise_for_status()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A new checkout, where nothing is compiled."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(ROOT / "manage.py", checkout)
    for package in ("apps", "vectordb"):
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    return checkout


def test_a_new_checkout_serves_while_its_kernels_are_compiled(folder: Path, checkout: Path) -> None:
    server = Server(folder, checkout, VECTORDB_SAMPLE=1, VECTORDB_LOG_LEVEL="info")
    try:
        server.start()
        until(lambda: "compiling the search kernels" in server.log.read_text(), "it is said that kernels are compiled")
        assert len(orjson.loads(run_in_shell(printed_commands(server)[0]))["results"]) == 3
        assert server.log.read_text().count("compiling the search kernels") == 1
        (compiler,) = (process for process in server.processes() if "compile_here" in " ".join(process.cmdline()))
        until(lambda: compiler.nice() == 19, "it gives way to all others")
        compiler.suspend()
        with server.client() as client:
            job = client.post("/backups").raise_for_status().json()["id"]
            until(lambda: client.get(f"/jobs/{job}").json()["state"] == "done", "jobs do not wait for the kernels")
        compiler.resume()
        assert server.stop() == 0
        assert not is_alive(compiler)
    finally:
        if server.process is not None:
            server.kill()
        server.drop_database()


def test_an_installation_that_cannot_compile_scans_and_says_so_once(folder: Path, checkout: Path) -> None:
    server = Server(folder, checkout, VECTORDB_SAMPLE=1, XDG_CACHE_HOME=checkout)
    try:
        with make_read_only(checkout):
            server.start(BOUND_BY_PERMISSIONS)
            with server.client() as client:
                path = "/libraries/wordnet-sample"
                client.post(f"{path}/reindex", json={"index_type": "hnsw"}).raise_for_status()

                def index() -> dict[str, Any]:
                    return dict(client.get(f"{path}/stats").json()["index"])

                until(lambda: index()["state"] == "ready" and index()["segments"][0]["bytes"], "it is sealed")
                [chunk] = client.get(f"{path}/chunks?limit=1").json()["items"]
                answer = client.post(f"{path}/query", json={"chunk_id": chunk["id"], "k": 3}).json()
                assert (index()["kind"], index()["rows_pending"], index()["error"]) == ("brute_force", 0, None)
                assert index()["warning"] == kernels.MISSING
            assert server.stop() == 0
        assert answer["meta"] | {"index": "brute_force", "exact": True, "plan": "exact scan"} == answer["meta"]
        assert server.log.read_text().count(kernels.MISSING) == 1
    finally:
        if server.process is not None:
            server.kill()
        server.drop_database()


def test_without_the_sample_there_is_nothing_and_the_printed_command_works(running: Server) -> None:
    libraries = orjson.loads(run_in_shell(printed_commands(running)[0]))["items"]
    assert not [library["id"] for library in libraries if "sample" in library["id"]]


def test_a_bad_setting_stops_the_start_with_one_sentence(folder: Path) -> None:
    server = Server(folder)
    server.environ |= {"VECTORDB_BIND": "0.0.0.0:8000", "VECTORDB_AUTH": "off"}
    assert_stops_with(server, "VECTORDB_BIND=", "loopback")


def assert_stops_with(server: Server, *words: str) -> None:
    """The start fails with one sentence that has these words in it."""
    ended = server.manage("serve")
    assert ended.returncode == 1
    assert "Try it" not in ended.stdout
    (sentence,) = ended.stderr.splitlines()
    for word in words:
        assert word in sentence


def test_a_port_in_use_is_told(folder: Path) -> None:
    server = Server(folder)
    with socket.create_server(("127.0.0.1", server.port)):
        assert_stops_with(server, f"VECTORDB_BIND=127.0.0.1:{server.port}", "in use")


@pytest.mark.sqlite
def test_the_database_lies_in_the_folder_whatever_its_name(tmp_path: Path) -> None:
    """Also where the name looks like a part of a URL."""
    names = ("vec#one", "vec?mode=memory", "c++ 50%25;é", "file:vec", ":memory:")
    for name in names:
        folder = tmp_path / name
        made = Server(folder).manage("migrate")
        assert made.returncode == 0, made.stderr
        with closing(sqlite3.connect(folder / "vectordb.sqlite3")) as database:
            assert database.execute("SELECT count(*) FROM vectordb_library").fetchone() == (0,)
        files = ("vectordb.sqlite3", "vectordb.sqlite3-locks", "vectordb.sqlite3-reserve")
        assert {path.name for path in folder.iterdir()} == set(files)
    assert {path.name for path in tmp_path.iterdir()} == set(names)


@pytest.mark.sqlite
def test_servers_on_folders_with_like_names_show_their_own_libraries(tmp_path: Path) -> None:
    with serving(tmp_path / "vec#one") as one, serving(tmp_path / "vec#two") as two:
        with one.client() as client:
            client.post("/libraries", json={"id": "a", "name": "A"}).raise_for_status()
        with two.client() as client:
            assert client.get("/libraries").raise_for_status().json()["items"] == []


@pytest.mark.sqlite
def test_a_file_that_is_no_database_is_told_and_kept(folder: Path) -> None:
    folder.mkdir()
    file = folder / "vectordb.sqlite3"
    file.write_text("precious notes\n" * 1000)
    assert_stops_with(Server(folder), "The database cannot be used", "not a database")
    assert file.read_text() == "precious notes\n" * 1000


def test_a_database_that_does_not_answer_is_told(folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server = Server(folder, DATABASE_URL=f"postgresql://127.0.0.1:{closed.getsockname()[1]}/vectordb")
        ended = server.manage("serve")
    assert ended.returncode == 1
    assert ended.stderr.startswith("CommandError: The database cannot be used: ")
    assert "Traceback" not in ended.stderr


def test_a_damaged_secret_key_is_told(folder: Path) -> None:
    folder.mkdir()
    (folder / "secret_key").write_text("cut off")
    assert_stops_with(Server(folder), "secret_key", "damaged")


def test_a_misspelt_setting_is_warned_of(running: Server) -> None:
    log = running.log.read_text()
    assert log.count("VECTORDB_WORKRES is no setting.") == 1
    assert "Did you mean VECTORDB_WORKERS?\n" in log


@pytest.mark.parametrize(("number", "threads"), [(signal.SIGTERM, 4), (signal.SIGINT, 1)])
def test_a_signal_ends_all_processes_with_status_0(folder: Path, number: int, threads: int) -> None:
    with serving(folder, VECTORDB_THREADS=threads) as server:
        until(server.job_processes, "maintenance runs, and what starts jobs")
        processes = server.processes()
        assert len(processes) == 5
        assert server.stop(number) == 0
        assert not any(map(is_alive, processes))
        assert "Traceback" not in server.log.read_text()


def replaced_worker(server: Server) -> psutil.Process:
    """Kill one of two workers; answers the new one, when it has answered a request and waits for the next."""
    # Between fork and exec, maintenance looks like a worker.
    until(server.maintenance, "maintenance runs")
    victim, other = server.workers()
    victim.kill()
    found: list[psutil.Process] = []
    until(lambda: found.extend(set(server.workers()) - {victim, other}) or found, "there are two workers again")
    new = found[0]
    other.suspend()
    try:
        with server.client() as client:
            # Only the new one can answer.
            assert client.get("/libraries").status_code == 200
    finally:
        other.resume()
    until(lambda: new.status() == psutil.STATUS_SLEEPING, "the new worker waits for a request")
    return new


def test_a_worker_that_dies_is_replaced(running: Server) -> None:
    replaced_worker(running)
    with running.client() as client:
        assert [client.get("/libraries").status_code for _ in range(10)] == [200] * 10


def test_maintenance_that_dies_is_started_again(running: Server) -> None:
    until(running.maintenance, "maintenance runs")
    (victim,) = running.maintenance()
    victim.kill()
    until(lambda: running.maintenance() not in ([], [victim]), "maintenance runs again")
    with running.client() as client:
        assert client.get("/libraries").status_code == 200


@pytest.mark.sqlite
def test_maintenance_gives_way_to_requests_but_not_while_a_checkpoint_lets_writers_wait(running: Server) -> None:
    until(running.maintenance, "maintenance runs")
    (maintenance,) = running.maintenance()
    usual = running.master().nice()
    until(lambda: maintenance.nice() == min(19, usual + 10), "its first thread has low priority")

    def count_usual() -> int:
        return [os.getpriority(os.PRIO_PROCESS, thread.id) for thread in maintenance.threads()].count(usual)

    until(lambda: count_usual() >= 2, "that of checkpoints, and the one that waits for the end, have not")


def test_jobs_are_run_after_what_starts_them_has_died(running: Server) -> None:
    until(running.job_processes, "what starts jobs is there")
    for process in running.job_processes():
        process.kill()
    with running.client() as client:
        row = b'{"text": "a", "embedding": [1, 2]}'
        job = client.post("/libraries/after/import?format=jsonl&create=true", content=row).raise_for_status().json()
        path = f"/jobs/{job['id']}"
        until(lambda: client.get(path).json()["state"] == "done", "the job is done")


def test_maintenance_ends_with_the_server_though_workers_live_on(folder: Path) -> None:
    """Also when a worker was started after it, and so might hold the pipe that keeps it alive."""
    with serving(folder) as server:
        until(server.maintenance, "maintenance runs")
        (maintenance,) = server.maintenance()
        replaced_worker(server)
        for worker in server.workers():
            worker.suspend()
        server.master().kill()
        until(lambda: not is_alive(maintenance), "maintenance has ended")
        server.kill()


MAINTAIN = "from django.core.management import execute_from_command_line; execute_from_command_line(['', 'maintain'])"


def is_maintained(folder: Path) -> bool:
    """Whether a process has the lock of a data folder."""
    with open(folder / "maintain.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_second_maintenance_does_no_harm(running: Server) -> None:
    # Not by trying: a process that maintains for a round keeps the server's own from it.
    until(lambda: is_maintained(running.folder), "maintenance runs")
    ended = running.manage("maintain", "--once")
    assert ended.returncode == 1
    assert "Another process maintains this data folder already." in ended.stderr
    with running.python(MAINTAIN) as second, running.client() as client:
        try:
            client.post("/libraries", json={"id": "maintained", "name": "M"}).raise_for_status()
            client.post("/libraries/maintained/chunks", json={"chunks": [{"embedding": [1, 2]}]}).raise_for_status()
            answer = client.post("/libraries/maintained/query", json={"vector": [1, 2]}).raise_for_status().json()
            assert len(answer["results"]) == 1
            assert second.poll() is None
        finally:
            second.terminate()
    assert len(running.maintenance()) == 1


@pytest.mark.sqlite
def test_the_data_folder_is_for_its_owner_and_the_database_as_it_should_be(running: Server) -> None:
    assert running.folder.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(running.folder / "vectordb.sqlite3")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA page_size").fetchone() == (8192,)
        assert database.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_connections_that_send_nothing_keep_no_worker(running: Server) -> None:
    """Browsers open some in advance."""
    address = ("127.0.0.1", running.port)
    with ExitStack() as stack, running.client() as client:
        for _ in range(4):
            stack.enter_context(socket.create_connection(address))
        assert client.get("/libraries").status_code == 200


def test_a_client_that_sends_half_a_request_does_not_keep_its_worker(running: Server) -> None:
    with ExitStack() as stack, running.client() as client:
        for _ in range(2):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            half.sendall(b"GET /health HTTP/1.1\r\n")
        assert client.get("/libraries").status_code == 200


def test_a_sample_that_does_not_fit_the_limits_is_told_and_not_half_loaded(folder: Path) -> None:
    server = Server(folder, VECTORDB_SAMPLE=1, VECTORDB_MAX_DIMENSION=128)
    assert_stops_with(server, "sample", "VECTORDB_SAMPLE=0", "VECTORDB_MAX_DIMENSION")
    with serving(folder, VECTORDB_SAMPLE=1, VECTORDB_MAX_CHUNKS_PER_WRITE=100) as server, server.client() as client:
        assert client.get("/libraries/wordnet-sample/stats").json()["chunks"] == 2000


def test_what_is_in_the_data_folder_is_for_its_owner(running: Server) -> None:
    modes = {path.name: path.stat().st_mode & 0o077 for path in running.folder.iterdir()}
    assert set(modes.values()) == {0}, modes


def test_all_processes_may_open_as_many_files_as_the_system_lets_them(running: Server) -> None:
    until(running.maintenance, "maintenance runs")
    for process in running.processes():
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == hard


def test_a_filter_in_a_url_may_have_some_8000_bytes(running: Server) -> None:
    with running.client() as client:
        client.post("/libraries", json={"id": "filtered", "name": "F"}).raise_for_status()
        wanted = orjson.dumps({"a": "x" * 7900}).decode()
        assert client.get("/libraries/filtered/chunks", params={"filter": wanted}).status_code == 200
        answer = client.get("/libraries/filtered/chunks", params={"filter": orjson.dumps({"a": "x" * 8200}).decode()})
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
