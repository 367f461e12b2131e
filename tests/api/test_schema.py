"""The OpenAPI schema: everything in it is described, and the live server keeps to it: no 5xx, no answer that it does
not describe."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from apps.api.v1.examples import SAMPLE_BATCHES, SAMPLE_QUERIES
from tests.clients import postman
from tests.server import Server, serving

# It goes up to each limit of the schema, and past it. It needs a minute for texts and lists as long as the usual ones.
_SMALL = {"MAX_TEXT_BYTES": 1000, "MAX_SPLIT_BYTES": 2000, "MAX_CHUNKS_PER_WRITE": 20, "MAX_QUERIES_PER_BATCH": 20}


@pytest.fixture
def small(folder: Path) -> Iterator[Server]:
    """A server with low limits."""
    with serving(folder, **{f"VECTORDB_{name}": limit for name, limit in _SMALL.items()}) as server:
        yield server


@pytest.mark.any_database
def test_schemathesis_finds_nothing(small: Server, tmp_path: Path) -> None:
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command, "schemathesis is part of requirements/dev.txt"
    config = Path(__file__).with_name("schemathesis.toml")
    [(header, key)] = small.authorization.items()
    # It would revoke the key that it has, which it finds in the list.
    excluded = [f"--exclude-operation-id={name}" for name in ("update_key", "revoke_key", "rotate_key")]
    options = ["--no-color", "--header", f"{header}: {key}", *excluded]
    run = subprocess.run(
        [command, "--config-file", str(config), "run", f"{small.url}/api/schema", *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema as it is served."""
    made: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return made


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Method and path of each operation, and the operation."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def described(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All that needs a description, and where it is."""
    for where, operation in operations(schema):
        yield from ((f"{where} {one['name']}", one) for one in operation.get("parameters", []))
        for status, response in operation["responses"].items():
            yield f"{where} {status}", response
            yield from ((f"{where} {status} {name}", header) for name, header in response["headers"].items())
    for name, component in schema["components"]["schemas"].items():
        yield name, component
        for field, of_field in component["properties"].items():
            yield f"{name}.{field}", of_field
            yield from ((f"{name}.{field}.{key}", inner) for key, inner in of_field.get("properties", {}).items())


@pytest.mark.any_database
def test_every_field_parameter_and_answer_has_a_description(schema: dict[str, Any]) -> None:
    found = list(described(schema))
    assert len(found) > 400
    assert [where for where, one in found if not one.get("description", "").endswith((".", ":", "?"))] == []


@pytest.mark.any_database
def test_the_schema_is_openapi_3_1_with_examples_and_error_responses(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1.")
    ids = [operation["operationId"] for _, operation in operations(schema)]
    assert len(ids) == len(set(ids))
    for where, operation in operations(schema):
        assert operation["summary"], where
        others = {"application/json"} if where == "post /mcp" else set()
        assert operation["responses"]["400"]["content"].keys() == {"application/problem+json"} | others, where
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]
            # A file is no JSON.
            assert "application/zip" in content or content["application/json"]["examples"], where


@pytest.mark.any_database
def test_the_schema_has_the_examples_of_queries(schema: dict[str, Any]) -> None:
    for path, bodies in ("query", SAMPLE_QUERIES), ("query/batch", SAMPLE_BATCHES):
        operation = schema["paths"][f"/api/v1/libraries/{{library_id}}/{path}"]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"].values()
        assert {example["summary"]: example["value"] for example in examples} == bodies


@pytest.mark.any_database
def test_the_postman_collection_is_made_from_this_schema(schema: dict[str, Any]) -> None:
    assert postman.FILE.read_text() == postman.render(schema), "docs/postman.json is not up to date: run `make postman`"


def test_the_examples_of_queries_work_on_the_samples(server: Server) -> None:
    loaded = server.manage("load_sample")
    assert loaded.returncode == 0, loaded.stderr
    with server.client() as client:
        for path, examples in ("query", SAMPLE_QUERIES), ("query/batch", SAMPLE_BATCHES):
            for name, body in examples.items():
                answer = client.post(f"/libraries/{name.partition(':')[0]}/{path}", json=body)
                assert answer.status_code == 200, (name, answer.text)
                assert answer.json()["results"], name
        for library in ("handbook-sample", "wordnet-sample"):
            assert client.delete(f"/libraries/{library}").status_code == 204
