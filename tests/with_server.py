"""Run a command beside a server of its own: `python -m tests.with_server COMMAND...`.

The command finds the server as clients do, by VECTORDB_URL and VECTORDB_API_KEY.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.server import serving


def main(command: list[str]) -> int:
    """The command's exit status."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data", VECTORDB_WORKERS=1) as server:
        key = server.authorization["Authorization"].removeprefix("Bearer ")
        environ = os.environ | {"VECTORDB_URL": server.url, "VECTORDB_API_KEY": key}
        return subprocess.run(command, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
