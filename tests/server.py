"""A real server for a test: `manage.py serve` in a process group of its own, on a free port, in a folder of its own."""

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg

ROOT = Path(__file__).resolve().parent.parent

# When something is taken for never to happen. Maintenance yields to all else, and the machine may be busy.
_SECONDS = 120.0


class Server:
    """A server that runs from `folder`; `settings` are environment variables, `root` is the checkout that is served.

    Where the tests run on PostgreSQL (`tests/environment.py`), each server has a database of its own. A server starts
    on a copy of an empty database that was migrated before, which saves it the migrations; one that `makes_database`
    starts without any, as a person's does.
    """

    def __init__(self, folder: Path, root: Path = ROOT, *, makes_database: bool = False, **settings: Any) -> None:
        self.folder = folder
        self.root = root
        self.makes_database = makes_database
        self.database = _new_database(is_migrated=not makes_database)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        defaults: dict[str, Any] = {"VECTORDB_SAMPLE": 0, "VECTORDB_WORKERS": 2, "VECTORDB_LOG_LEVEL": "warning"}
        # Tests fail to log in as often as they like.
        defaults |= {"DATABASE_URL": self.database, "VECTORDB_FAILED_LOGINS_PER_MINUTE": 0}
        own = {"VECTORDB_DATA_DIR": folder, "VECTORDB_BIND": f"127.0.0.1:{self.port}"}
        # Not what this process was set to, nor what the engine sets for itself when it is loaded.
        not_inherited = ("VECTORDB_", "NUMBA_CACHE_LOCATOR_CLASSES")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(not_inherited)}
        self.environ = inherited | {name: str(value) for name, value in (defaults | settings | own).items()}
        self.process: subprocess.Popen[bytes] | None = None
        self._is_under_another = False
        self._key = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def start(self, under: Sequence[str] = (), *, path: str = "/ready") -> "Server":
        """Start, and wait until all workers run and one answers `path` well. `under` is a command that runs another
        one, such as strace."""
        self.launch(under)
        until(lambda: self._answers(path), f"the server answers {path}; {self.log} says why not")
        _ = self.authorization
        return self

    def launch(self, under: Sequence[str] = ()) -> None:
        """Start, and wait for nothing."""
        self._is_under_another = bool(under)
        if not (self.makes_database or self.database or self.folder.exists()):
            self.folder.mkdir(mode=0o700, parents=True)
            shutil.copy(migrated_database(), self.folder)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, str(self.root / "manage.py"), "serve"],
                env=self.environ,
                cwd=self.root,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _answers(self, path: str) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            # Without certificates, which take longer to load than the answer takes.
            if httpx.get(f"{self.url}{path}", timeout=5, trust_env=False, verify=False).status_code == 200:
                return self._has_its_workers()
        return False

    def _has_its_workers(self) -> bool:
        """Whether as many processes look like workers as there are to be: maintenance does, until it has its name."""
        return len(self.workers()) == int(self.environ["VECTORDB_WORKERS"])

    def master(self) -> psutil.Process:
        """gunicorn's master, which is the server's first process."""
        assert self.process is not None
        first = psutil.Process(self.process.pid)
        return first.children()[0] if self._is_under_another else first

    def processes(self) -> list[psutil.Process]:
        """The master and all its children."""
        master = self.master()
        return [master, *master.children(recursive=True)]

    def maintenance(self) -> list[psutil.Process]:
        """The processes that maintain the data folder: one, except while it starts or is replaced."""
        return [process for process in self.processes()[1:] if _name(process) == "maintain"]

    def job_processes(self) -> list[psutil.Process]:
        """The process that starts jobs, and the one that runs them while there are some."""
        return [process for process in self.processes()[1:] if _name(process) == "jobs"]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        others = [process for process in self.processes()[1:] if _name(process) not in ("maintain", "jobs")]
        return [process for process in others if "serve" in _arguments(process)]

    def kill(self) -> None:
        """kill -9 for everything at once, as a power cut would."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end by a signal, and wait until all its processes have ended; answers its exit status."""
        assert self.process is not None
        processes: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error, IndexError):
            processes = self.processes()
            processes[0].send_signal(number)
        try:
            status = self.process.wait(timeout=_SECONDS)
            until(lambda: not any(map(is_alive, processes)), "the server has ended, and all its processes with it")
        except BaseException:
            self.kill()
            raise
        self.process = None
        return status

    @property
    def authorization(self) -> dict[str, str]:
        """The header that has the admin key, once the server has started, also when its folder is gone; none where it
        asks for no keys."""
        file = self.folder / "admin_key"
        if file.exists():
            self._key = file.read_text().strip()
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client with the admin key, whose base URL is that of the API. It knows no certificates: to load them
        takes a while."""
        headers = self.authorization | options.pop("headers", {})
        return httpx.Client(base_url=self.api, headers=headers, timeout=60, trust_env=False, verify=False, **options)

    @contextlib.contextmanager
    def clients_of_each_worker(self, number: int) -> Iterator[list[httpx.Client]]:
        """`number` clients for each worker, connected to it for as long as the server keeps a connection."""
        until(self._has_its_workers, "nothing else looks like a worker")
        workers = self.workers()
        with contextlib.ExitStack() as stack:
            clients = []
            for worker in workers:
                others = [other for other in workers if other != worker]
                for other in others:
                    other.suspend()
                try:
                    for _ in range(number):
                        clients.append(stack.enter_context(self.client(limits=httpx.Limits(keepalive_expiry=None))))
                        clients[-1].get(f"{self.url}/health").raise_for_status()
                finally:
                    for other in others:
                        other.resume()
            yield clients

    def manage(self, *arguments: str, under: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        """Run `manage.py` with this server's settings, whether or not the server runs; answers when it has ended.

        `under` is as for `start`.
        """
        return subprocess.run(
            [*under, sys.executable, str(self.root / "manage.py"), *arguments],
            env=self.environ,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def python(self, code: str) -> "subprocess.Popen[str]":
        """Start Python with `code`, to be talked to by its pipes, in the environment of this server."""
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=self.environ | {"DJANGO_SETTINGS_MODULE": "vectordb.settings"},
            cwd=self.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def drop_database(self) -> None:
        """Remove this server's PostgreSQL database, if it has one."""
        if self.database:
            name = urlsplit(self.database).path[1:]
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def until(condition: Callable[[], Any], what: str, seconds: float = _SECONDS) -> None:
    """Wait for something to come true; AssertionError, with `what`, when it does not.

    It looks less and less often, lest it take the processor from what it waits for."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, f"not true after {seconds} s: {what}"
        time.sleep(min(max(0.02, waited / 10), 0.2))


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def holders(folder: Path, *processes: psutil.Process) -> list[psutil.Process]:
    """Those who have the lock of a data folder. A process that tries has the file open for an instant only."""
    lock = str(folder / "maintain.lock")
    return [one for one in processes if is_alive(one) and lock in {file.path for file in one.open_files()}]


def _arguments(process: psutil.Process) -> list[str]:
    """The process's command line; nothing when it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _name(process: psutil.Process) -> str:
    """The name that the system shows; nothing when the process has ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


def _new_database(*, is_migrated: bool) -> str:
    """The URL of a new database on the PostgreSQL server that the tests run on; empty where they run on SQLite."""
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith("postgres"):
        return ""
    name = f"test_{uuid.uuid4().hex}"
    template = f"TEMPLATE {migrated_database()}" if is_migrated else ""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {template}")
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@functools.cache
def migrated_database() -> str:
    """An empty database for servers to start on: the path of SQLite's file, or the name of PostgreSQL's database."""
    folder = tempfile.mkdtemp(prefix="vectordb-test-")
    atexit.register(shutil.rmtree, folder)
    server = Server(Path(folder) / "data", makes_database=True)
    atexit.register(server.drop_database)
    migrated = server.manage("migrate", "--verbosity", "0")
    assert migrated.returncode == 0, migrated.stderr
    return urlsplit(server.database).path[1:] or str(server.folder / "vectordb.sqlite3")


@contextlib.contextmanager
def serving(
    folder: Path, root: Path = ROOT, *, makes_database: bool = False, path: str = "/ready", **settings: Any
) -> Iterator[Server]:
    """A running server that answers `path`; stopped at the end of the block."""
    server = Server(folder, root, makes_database=makes_database, **settings)
    try:
        yield server.start(path=path)
    finally:
        if server.process is not None:
            server.stop()
        server.drop_database()
