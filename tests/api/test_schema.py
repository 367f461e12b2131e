"""The live server against its own OpenAPI schema: no 5xx, no answer that the schema does not describe."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.server import Server


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command, "schemathesis is part of requirements/dev.txt"
    config = Path(__file__).with_name("schemathesis.toml")
    # On PostgreSQL it is about values that this database refuses, such as NUL characters.
    examples = ["--max-examples", "6"] if server.database else []
    run = subprocess.run(
        [command, "--config-file", str(config), "run", f"{server.url}/api/schema", "--no-color", *examples],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_schema_is_openapi_3_1_with_examples_and_error_responses(server: Server) -> None:
    schema = httpx.get(f"{server.url}/api/schema").json()
    assert schema["openapi"].startswith("3.1.")
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["responses"]["400"]["content"].keys() == {"application/problem+json"}, where
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["examples"], where
