"""Build the sdist, and the wheel from it; install the wheel as a user does, and ask the server a question.

Run by `make test-wheel`; needs PyPI. Raises where something is missing, too much, or does not work.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from tests.packages.question import ask, is_ready
from tests.server import ROOT, Server, until
from vectordb import __version__

_UV = Path(sys.executable).parent / "uv"
_NEEDED = {
    "apps/api/static/vectordb/api.css",
    "apps/api/templates/rest_framework/api.html",
    "apps/libraries/templates/admin/login.html",
    "apps/operations/sample_data/LICENSE",
    "apps/operations/sample_data/vectors.f16.npy",
    "vectordb/command_line.py",
}


def main() -> None:
    """Print the seconds from the installation to the first answer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Without --wheel or --sdist, uv builds the wheel from the sdist, as pip does where it is given that.
        subprocess.run([_UV, "build", "--quiet", "--out-dir", folder / "dist", ROOT], check=True)
        (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
        check_contents(wheel, sdist)

        environ = {key: value for key, value in os.environ.items() if not key.startswith(("VECTORDB_", "PYTHONPATH"))}
        subprocess.run([_UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True, env=environ)
        began = time.monotonic()
        install = [_UV, "pip", "install", "--quiet", "--python", folder / "venv/bin/python", wheel]
        subprocess.run(install, check=True, env=environ)
        installed = time.monotonic()
        serve(folder, environ)
        print(f"installed in {installed - began:.1f} s, answered {time.monotonic() - installed:.1f} s later")  # noqa: T201


def check_contents(wheel: Path, sdist: Path) -> None:
    """Raise AssertionError where one has a file that it should not have, or lacks one."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "apps", "vectordb"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert files >= _NEEDED
    assert files == set(tracked.stdout.splitlines()), files ^ set(tracked.stdout.splitlines())
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert not tops & {"tests", "benchmarks", "docs", "data", ".venv"}, tops
    assert tops >= {"apps", "vectordb", "requirements", "LICENSE", "manage.py", "pyproject.toml"}


def serve(folder: Path, environ: dict[str, str]) -> None:
    """Start `vectordb serve` on a new data folder, and wait for the first answer."""
    program = folder / "venv/bin/vectordb"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"vectordb {__version__}\n"
    server = Server(folder / "unused")  # it knows a free port
    data, log = folder / "data", folder / "log"
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [program, "serve", "--data", data],
            env=environ | {"VECTORDB_BIND": f"127.0.0.1:{server.port}"},
            cwd=folder,
            stdout=lines,
            stderr=lines,
        )
    try:
        until(lambda: process.poll() is not None or is_ready(server.url), "it is ready")
        ask(server.url, (data / "admin_key").read_text().strip())
    except BaseException:
        sys.stderr.write(log.read_text())
        raise
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
