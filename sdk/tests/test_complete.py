"""The client has all that the server has: operations and their fields, as its schema says, and operators of filters."""

import inspect
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.server import Server

import vectordb_client
from vectordb_client import Client, F, Filter, Library, _routes, keys, libraries
from vectordb_client._core import Route
from vectordb_client.documents import Documents
from vectordb_client.jobs import Backups, Jobs

ROOT = Path(__file__).resolve().parents[2]
ROUTES = {name: route for name, route in vars(_routes).items() if isinstance(route, Route)}

# What is reached otherwise, and what is for others than programs in Python.
LEFT_OUT = {
    "root": "the entry points, for people in a browser",
    "list_chunks": "list_chunks_in_order does the same, and more",
}

_WRITE = {"chunks": "rows", "mode": "self"}
# The methods that call an operation, with the parameter that a field of its body or query has where the names differ.
METHODS: dict[str, tuple[Any, dict[str, str]]] = {
    "list_libraries": (libraries.Libraries.list, {}),
    "create_library": (libraries.Libraries.create, {}),
    "get_library": (libraries.Libraries.get, {}),
    "update_library": (libraries.Libraries.update, {}),
    "delete_library": (libraries.Libraries.delete, {}),
    "library_stats": (Library.stats, {}),
    "reindex": (Library.reindex, {}),
    "get_reembedding": (Library.reembedding, {}),
    "reembed": (Library.reembed, {}),
    "cancel_reembedding": (vectordb_client.Job.cancel, {}),
    "export_library": (Library.export, {}),
    "import_rows": (Library.import_, {}),
    "query": (Library.query, {"chunk_id": "like"}),
    "query_batch": (Library.query_many, {}),
    "write_chunks": (Library.upsert, _WRITE),
    "get_chunk": (Library.get_chunk, {}),
    "update_chunk": (Library.update_chunk, {}),
    "delete_chunk": (Library.delete_chunk, {}),
    "get_chunks": (Library.get, {}),
    "delete_chunks": (Library.delete, {}),
    # It returns a number, which has no place for a profile.
    "update_chunks": (Library.update_metadata, {"metadata_mode": "mode", "profile": "self"}),
    "count_chunks": (Library.count, {}),
    "list_chunks_in_order": (Library.chunks, {}),
    "summarize_fields": (Library.fields, {}),
    "count_values": (Library.facets, {}),
    "list_documents": (Documents.list, {}),
    "create_document": (Documents.create, {}),
    "create_documents": (Documents.put_many, {}),
    "get_document": (Documents.get, {}),
    "put_document": (Documents.put, {}),
    "update_document": (Documents.update, {}),
    "delete_document": (Documents.delete, {}),
    "list_keys": (keys.Keys.list, {}),
    "create_key": (keys.Keys.create, {}),
    "get_key": (keys.Keys.get, {}),
    "update_key": (keys.Keys.update, {}),
    "revoke_key": (keys.Keys.revoke, {}),
    "rotate_key": (keys.Keys.rotate, {}),
    "create_search_token": (keys.Keys.search_token, {}),
    "list_audit": (keys.Audit.list, {}),
    "list_jobs": (Jobs.list, {}),
    "get_job": (Jobs.get, {}),
    "cancel_job": (Jobs.cancel, {}),
    "list_backups": (Backups.list, {}),
    "create_backup": (Backups.create, {}),
    "get_backup": (Backups.get, {}),
    "delete_backup": (Backups.delete, {}),
    "health": (Client.health, {}),
    "ready": (Client.ready, {}),
    "metrics": (Client.metrics, {}),
    # Its one argument is the message.
    "mcp": (Client.mcp, {"jsonrpc": "message", "id": "message", "method": "message", "params": "message"}),
}
# Pages and vectors in base64 are the client's own affair; so is the key of a POST.
_OWN = {"cursor", "limit", "vectors", "Idempotency-Key"}
_CONDITIONS = {"If-Match": "if_match", "If-None-Match": "create_only"}


@pytest.fixture(scope="module")
def schema(server: Server, key: str) -> dict[str, Any]:
    answer = httpx2.get(f"{server.url}/api/schema?format=json", headers={"Authorization": f"Bearer {key}"})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


@pytest.fixture(scope="module")
def operations(schema: dict[str, Any]) -> dict[str, tuple[Route, dict[str, Any]]]:
    """The method, path and description of each operation of the schema, by its name."""
    return {
        operation["operationId"]: (Route(method.upper(), path), operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if "operationId" in operation
    }


def test_every_operation_is_called_by_a_method(operations: dict[str, tuple[Route, dict[str, Any]]]) -> None:
    assert ROUTES.keys() == METHODS.keys() == operations.keys() - LEFT_OUT.keys()
    for name, route in ROUTES.items():
        assert route[:2] == operations[name][0][:2], name
        takes_key = any(one["name"] == "Idempotency-Key" for one in operations[name][1].get("parameters", ()))
        assert not (takes_key and route.is_idempotent), f"{name}: its attempts need one Idempotency-Key"
    source = "".join(file.read_text() for file in Path(vectordb_client.__file__).parent.glob("*.py"))
    assert [name for name in ROUTES if f"routes.{name}" not in source] == []


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_a_request_is_a_parameter(
    name: str, schema: dict[str, Any], operations: dict[str, tuple[Route, dict[str, Any]]]
) -> None:
    _, operation = operations[name]
    method, renamed = METHODS[name]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = set(schema["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], {}).get("properties", ()))
    fields |= {one["name"] for one in operation.get("parameters", ()) if one["in"] != "path"}
    wanted = {renamed.get(field, _CONDITIONS.get(field, field)) for field in fields - _OWN}
    assert wanted <= inspect.signature(method).parameters.keys() | {"self"}, name


def test_every_operator_of_filters_has_an_expression() -> None:
    page = (ROOT / "docs" / "filters.md").read_text().partition("## Rules")[0]
    rows = re.findall(r"^\| (`\$[^|]*) \|", page, re.MULTILINE)
    documented = set(re.findall(r"\$\w+", " ".join(rows)))
    field, other = F("a"), F("b") == 1
    made: list[Filter] = [
        *(field == 1, field != 1, field > 1, field >= 1, field < 1, field <= 1),
        *(field.in_([1]), field.not_in([1]), field.exists(), field.is_empty(), field.has_all([1])),
        *(field.contains("x"), field.icontains("x"), field.starts_with("x")),
        *(other & other, other | other, ~other),
    ]
    assert set(re.findall(r"'(\$\w+)'", repr(made))) == documented


def test_names_are_the_same_for_sync_and_async() -> None:
    for name in vectordb_client.__all__:
        if f"Async{name}" in vectordb_client.__all__:
            kinds = getattr(vectordb_client, name), getattr(vectordb_client, f"Async{name}")
            sync, other = ({one for one in dir(kind) if not one.startswith("_")} for kind in kinds)
            assert sync == other, name
