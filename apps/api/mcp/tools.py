"""The table of tools: what each is called, needs and does; and how one is called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from django.conf import settings

from apps.access.authorization import Scope, authorize, has_scope
from apps.access.limits import Kind, admit_change
from apps.access.requests import Principal, Refused
from apps.api.errors import problem_of
from apps.api.idempotency import run_once
from apps.api.json_schema import JsonSchema
from apps.api.mcp import answers, arguments, reading, writing
from apps.api.mcp.refusals import explain
from apps.api.v1.schemas import Output
from apps.api.vector_json import validate
from apps.libraries.fields import Input
from apps.libraries.ids import check_id
from apps.telemetry import metrics
from apps.telemetry.observation import current_observation


@dataclass(frozen=True)
class Tool:
    """A tool. It needs `scope`; `kind` says whether it reads, writes or deletes, and what limits count it as."""

    name: str
    title: str
    arguments: type[Input]
    answer: type[Output]
    run: Callable[[Any], dict[str, Any]]
    scope: Scope = "read"
    kind: Kind = "read"
    destructive: bool = False
    idempotent: bool = True

    def is_for(self, principal: Principal) -> bool:
        """Whether it is listed for whoever asks."""
        return (self.kind == "read" or settings.MCP_WRITE) and has_scope(principal, self.scope)

    @cached_property
    def listed(self) -> dict[str, Any]:
        """The tool as `tools/list` has it."""
        hints = {"readOnlyHint": self.kind == "read", "idempotentHint": self.idempotent, "openWorldHint": False}
        return {
            "name": self.name,
            "title": self.title,
            "description": " ".join((self.arguments.__doc__ or "").split()),
            "inputSchema": _schema(self.arguments, "validation"),
            "outputSchema": _schema(self.answer, "serialization"),
            "annotations": hints | {"title": self.title, "destructiveHint": self.destructive},
        }


def _schema(model: type[Input] | type[Output], mode: Any) -> dict[str, Any]:
    schema = model.model_json_schema(schema_generator=JsonSchema, mode=mode)
    return {name: value for name, value in schema.items() if name not in ("title", "description")}


_WRITES: Any = {"scope": "write", "kind": "write"}
_ALL = (
    Tool("list_libraries", "List libraries", arguments.ListLibraries, answers.LibrariesListed, reading.list_libraries),
    Tool(
        "describe_library",
        "Describe a library",
        arguments.DescribeLibrary,
        answers.LibraryDescribed,
        reading.describe_library,
    ),
    Tool("search", "Search a library", arguments.Search, answers.Found, reading.search, scope="search"),
    Tool("get_chunks", "Read chunks", arguments.GetChunks, answers.ChunksShown, reading.get_chunks),
    Tool("list_documents", "List documents", arguments.ListDocuments, answers.DocumentsListed, reading.list_documents),
    Tool(
        "remember",
        "Remember a text",
        arguments.Remember,
        answers.Remembered,
        writing.remember,
        **_WRITES,
        destructive=True,
        idempotent=False,
    ),
    Tool(
        "forget",
        "Forget chunks",
        arguments.Forget,
        answers.Forgotten,
        writing.forget,
        scope="write",
        kind="delete",
        destructive=True,
    ),
    Tool(
        "put_document",
        "Store a document",
        arguments.PutDocument,
        answers.DocumentPut,
        writing.put_document,
        **_WRITES,
        destructive=True,
    ),
)
TOOLS = {tool.name: tool for tool in _ALL}
# What is wrong with the key that the program of an agent sends, and no tool's affair.
_OF_THE_REQUEST = frozenset({"idempotency_key_reused", "idempotency_in_progress", "idempotency_answer_lost"})


def call_tool(
    tool: Tool, given: dict[str, Any], principal: Principal, address: str, key: str | None = None
) -> dict[str, Any]:
    """The result of a call, for whoever asks from `address`; what the API would refuse is an error within it. A call
    that changes something is carried out once by its `key`. Raises what is a bug, and Refused or Problem for an API key
    that is not good any more and for what the other `key` is refused for."""
    try:
        _admit(tool, given.get("library"), principal, address)
        asked = validate(arguments.body_of(given), tool.arguments)
        if key is None or tool.kind == "read":
            data = tool.run(asked)
        else:
            parts = (tool.name.encode(), orjson.dumps(given, option=orjson.OPT_SORT_KEYS))
            data = run_once(lambda: tool.run(asked), key, principal, *parts, frees=tool.kind == "delete")
    except Exception as error:
        problem = problem_of(error)
        if problem is None or problem.status == 401 or problem.code in _OF_THE_REQUEST:
            raise
        metrics.TOOL_CALLS.add(1, tool.name, problem.code)
        said = explain(problem, tool.name, tool.arguments, given, principal)
        return {"content": [_text(said)], "isError": True}
    metrics.TOOL_CALLS.add(1, tool.name, "ok")
    return {"content": [_text(orjson.dumps(data).decode())], "structuredContent": data, "isError": False}


def _admit(tool: Tool, library: Any, principal: Principal, address: str) -> None:
    """Let whoever asks call the tool. Raises Refused, and NotFound for a library that cannot be."""
    library_id = library if isinstance(library, str) else None
    if library_id is not None:
        check_id("library", library_id)
        if (observation := current_observation.get()) is not None:
            observation.library = library_id
    authorize(principal, tool.scope, library_id)
    if tool.kind != "read":
        if not settings.MCP_WRITE:
            raise Refused("forbidden", f"Agents may only read here: {tool.name} needs VECTORDB_MCP_WRITE=1.")
        admit_change(principal, address, tool.kind)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
