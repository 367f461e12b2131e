"""A real server for a test: `manage.py serve` in a process group of its own, on a free port, in a folder of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent


class Server:
    """A server that runs from `folder`; `settings` are environment variables."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        defaults = {"VECTORDB_SAMPLE": 0, "VECTORDB_WORKERS": 2, "VECTORDB_LOG_LEVEL": "warning"}
        own = {"VECTORDB_DATA_DIR": folder, "VECTORDB_BIND": f"127.0.0.1:{self.port}"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VECTORDB_")}
        self.environ = inherited | {name: str(value) for name, value in (defaults | settings | own).items()}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def start(self) -> "Server":
        """Start, and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "serve"],
                env=self.environ,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return self
            time.sleep(0.05)
        raise RuntimeError(f"the server did not become ready:\n{self.log.read_text()}")

    def processes(self) -> list[psutil.Process]:
        """The master and all its children."""
        assert self.process is not None
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        return [process for process in self.processes()[1:] if "maintain" not in process.cmdline()]

    def kill(self) -> None:
        """kill -9 for everything at once, as a power cut would."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """Ask it to end; answers its exit status."""
        assert self.process is not None
        self.process.terminate()
        try:
            status = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None
        return status

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client whose base URL is that of the API."""
        return httpx.Client(base_url=self.api, timeout=60, trust_env=False, **options)


@contextlib.contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Server]:
    """A running server; stopped at the end of the block."""
    server = Server(folder, **settings).start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop()
