"""Generate both clients from a server's schema, check the types of their use, and run it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.server import serving

_FOLDER = Path(__file__).resolve().parent
_GENERATED = _FOLDER / "generated"
_BIN = Path(sys.executable).parent
_NODE_MODULES = _FOLDER / "node_modules"


def _run(*command: object) -> None:
    environ = os.environ | {"PATH": f"{_BIN}:{os.environ['PATH']}", "PYTHONPATH": str(_GENERATED)}
    print("+", *command, flush=True)  # noqa: T201
    subprocess.run(list(map(str, command)), cwd=_FOLDER, env=environ | {"MYPYPATH": str(_GENERATED)}, check=True)


def main() -> None:
    """Raises CalledProcessError where a generator, a check or a call fails."""
    _GENERATED.mkdir(exist_ok=True)
    schema = _GENERATED / "openapi.json"
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data", VECTORDB_WORKERS=1) as server:
        schema.write_bytes(httpx.get(f"{server.url}/api/schema").raise_for_status().content)

        package = _GENERATED / "vectordb_client"
        generate = ["generate", "--path", schema, "--output-path", package, "--overwrite", "--meta", "none"]
        _run("openapi-python-client", *generate, "--config", "openapi-python-client.yaml", "--fail-on-warning")
        _run("mypy", "--config-file=", "--strict", "--follow-imports=silent", "calls.py")
        _run("python", "calls.py", server.url, server.authorization["Authorization"])

        _run("node", _NODE_MODULES / "openapi-typescript/bin/cli.js", schema, "--output", _GENERATED / "schema.d.ts")
        _run("node", _NODE_MODULES / "typescript/bin/tsc", "--noEmit")
        _run("node", "calls.ts", server.url, server.authorization["Authorization"])


main()
