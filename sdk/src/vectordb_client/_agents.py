"""Headers of a message of the Model Context Protocol: proxies route by them, and the server compares them with it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

_VERSION = "io.modelcontextprotocol/protocolVersion"


def headers_of(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a message; none where it is of a version that begins with `initialize`."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    if not isinstance(params, Mapping) or not isinstance(meta, Mapping) or _VERSION not in meta:
        return {}
    said = {"MCP-Protocol-Version": meta[_VERSION], "Mcp-Method": message.get("method"), "Mcp-Name": params.get("name")}
    return {name: _encode(value) for name, value in said.items() if isinstance(value, str)}


def _encode(value: str) -> str:
    is_plain = value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?")
    return value if is_plain else f"=?base64?{base64.b64encode(value.encode(errors='replace')).decode()}?="
