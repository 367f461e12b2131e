"""Messages of the Model Context Protocol, which are JSON-RPC 2.0, and the versions of it that are spoken here.

From 2026-07-28 on each request brings its version, in `params._meta` and in a header, and others of its fields in
headers too, by which proxies may route: they must agree. Earlier versions begin with `initialize`. No request here
depends on one before it, so both need nothing else.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from apps.api.errors import Problem, problem_of
from apps.api.vector_json import validate
from apps.libraries.errors import LibraryError
from apps.libraries.fields import Input, validation_error

MODERN = ("2026-07-28",)
# Newest first: `initialize` offers the first where it does not know what is asked for.
WITH_HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
VERSIONS = (*MODERN, *WITH_HANDSHAKE)
_METHODS = ("tools/list", "tools/call")
_METHODS_MODERN, _METHODS_WITH_HANDSHAKE = ("server/discover", *_METHODS), ("initialize", "ping", *_METHODS)

_META = "io.modelcontextprotocol/"
_VERSION, _CAPABILITIES = f"{_META}protocolVersion", f"{_META}clientCapabilities"
SERVER_INFO = f"{_META}serverInfo"

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
_HEADER_MISMATCH, _UNSUPPORTED_VERSION = -32020, -32022

# Programs in JavaScript have no larger integers.
_LARGEST_ID = 2**53 - 1
_LONGEST_ID = 1000
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")


@dataclass(eq=False)
class RpcError(Exception):
    """An error of the protocol, not of a tool."""

    code: int
    message: str
    data: Any = None

    @property
    def status(self) -> int:
        """The HTTP status of an answer that has it."""
        return 404 if self.code == METHOD_NOT_FOUND else 400


def _check_id(value: Any) -> int | str:
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID
    if is_number or (isinstance(value, str) and len(value) <= _LONGEST_ID):
        known: int | str = value
        return known
    raise validation_error(f"must be a string of at most {_LONGEST_ID} characters, or an integer of at most 53 bits")


class McpMessage(Input):
    """A message of the Model Context Protocol: a request, or without `id` a notification."""

    model_config = ConfigDict(extra="ignore")

    jsonrpc: Literal["2.0"] = Field(description="The version of JSON-RPC.")
    id: Annotated[
        Any,
        BeforeValidator(_check_id),
        WithJsonSchema({"anyOf": [{"type": "string", "maxLength": _LONGEST_ID}, {"type": "integer"}]}),
    ] = Field(default_factory=str, description="The request's id, which its answer has too.")
    method: str = Field(max_length=200, description="What is asked for, such as `tools/list` or `tools/call`.")
    params: dict[str, Any] | None = Field(None, description="The parameters of the method.")

    @property
    def is_request(self) -> bool:
        """Whether an answer is expected."""
        return self.is_set("id")


class ToolCall(Input):
    """The parameters of `tools/call`."""

    model_config = ConfigDict(extra="ignore")

    name: str
    arguments: dict[str, Any] | None = None


def parse_message(body: bytes) -> McpMessage:
    """The message that is a request's body. Raises RpcError."""
    try:
        return validate(body, McpMessage)
    except (ValidationError, LibraryError, Problem) as error:
        problem = problem_of(error)
        assert problem is not None
        code = PARSE_ERROR if problem.code == "malformed" else INVALID_REQUEST
        raise RpcError(code, problem.detail) from None


def parse_call(params: dict[str, Any]) -> ToolCall:
    """The parameters of `tools/call`. Raises RpcError."""
    try:
        return ToolCall.model_validate(params)
    except ValidationError as error:
        problem = problem_of(error)
        assert problem is not None
        raise RpcError(INVALID_PARAMS, f"params: {problem.detail}") from None


def check_method(method: str, *, is_modern: bool) -> None:
    """Raise RpcError for a method that the version does not have here."""
    methods = _METHODS_MODERN if is_modern else _METHODS_WITH_HANDSHAKE
    if method not in methods:
        raise RpcError(METHOD_NOT_FOUND, f"There is no method {method!r}; there are: {', '.join(methods)}.")


def agree_on_version(params: Mapping[str, Any]) -> str:
    """The version that `initialize` agrees on: the client's, or the newest that has `initialize`."""
    wanted = params.get("protocolVersion")
    return wanted if wanted in WITH_HANDSHAKE else WITH_HANDSHAKE[0]


def check_version(message: McpMessage, headers: Mapping[str, str]) -> bool:
    """Whether the message is of a version without `initialize`. Raises RpcError for a version that is not known here,
    and for headers that say something else than the message."""
    meta = (message.params or {}).get("_meta")
    meta = meta if isinstance(meta, dict) else {}
    in_header = headers.get("MCP-Protocol-Version")
    is_handshake = message.method == "initialize"
    if _VERSION not in meta and (is_handshake or in_header not in MODERN):
        if in_header is not None and in_header not in WITH_HANDSHAKE and not is_handshake:
            raise _unsupported(in_header)
        return False
    if not message.is_request:
        return True
    if missing := [name for name in (_VERSION, _CAPABILITIES) if name not in meta]:
        raise RpcError(INVALID_PARAMS, f"params._meta needs {' and '.join(missing)}.")
    version = meta[_VERSION]
    name = (message.params or {}).get("name") if message.method == "tools/call" else None
    expected = {"MCP-Protocol-Version": version, "Mcp-Method": message.method}
    if isinstance(name, str):
        expected["Mcp-Name"] = name
    for header, value in expected.items():
        if _decode(headers.get(header, "")) != value:
            raise RpcError(_HEADER_MISMATCH, f"The header {header} does not say what the message does.")
    if version not in MODERN:
        raise _unsupported(version)
    return True


def _unsupported(version: Any) -> RpcError:
    data = {"supported": list(VERSIONS), "requested": version}
    return RpcError(_UNSUPPORTED_VERSION, f"This server speaks the versions {', '.join(VERSIONS)}.", data)


def _decode(value: str) -> str | None:
    """What a header says, which base64 may wrap; None for what is no base64. White space around it is no part of it."""
    value = value.strip(" \t")
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        return base64.b64decode(found[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
