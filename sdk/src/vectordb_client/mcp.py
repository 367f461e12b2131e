"""The command `vectordb-mcp`: the server's tools for desktop programs, which start a command and talk to it by lines.

Each line of the standard input is a message of the Model Context Protocol. It goes to the server as it is, and its
answer comes as a line: what tools there are, the server alone says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, BinaryIO

from vectordb_client.client import Client
from vectordb_client.errors import VectorDBError

# Messages that wait for their answers at the same time.
_THREADS = 8
_INTERNAL_ERROR, _PARSE_ERROR, _INVALID_REQUEST = -32603, -32700, -32600

_ENVIRONMENT = """environment:
  VECTORDB_URL      address of the server, http://127.0.0.1:8000 by default
  VECTORDB_API_KEY  a key of the server, for the libraries that the agent needs
  VECTORDB_MCP_WRITE=1  of the server, or here with --local: tools that write"""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="vectordb-mcp",
        description="The tools of a vectordb server by the Model Context Protocol, over standard input and output.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--local", metavar="DATA_FOLDER", help="run the server in this process, on a data folder; needs no key"
    )
    arguments = parser.parse_args()
    # Whatever else is printed goes to the error output: it would be no message.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        with Client() if arguments.local is None else Client.local(arguments.local) as client:
            _check(client)
            serve(client, sys.stdin.buffer, wire)
    except VectorDBError as error:
        sys.exit(f"vectordb-mcp: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def serve(client: Client, lines: BinaryIO, wire: BinaryIO) -> None:
    """Answer each line until there is none, several at a time."""
    lock = Lock()

    def answer(line: bytes) -> None:
        found = _answer(client, line)
        if found is not None:
            with lock:
                wire.write(
                    json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"
                )
                wire.flush()

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="vectordb-mcp") as pool:
        for line in lines:
            if line.strip():
                pool.submit(answer, line)


def _answer(client: Client, line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _failure(None, _PARSE_ERROR, f"The line is not JSON: {error}.")
    if not isinstance(message, dict):
        return _failure(None, _INVALID_REQUEST, "The line must be a JSON object, one message.")
    try:
        return client.mcp(message)
    except VectorDBError as error:
        said = _explain(error)
        print(f"vectordb-mcp: {said}", file=sys.stderr)
        return _failure(message["id"], _INTERNAL_ERROR, said) if "id" in message else None


def _check(client: Client) -> None:
    """Say early what will fail; the server may be started later."""
    try:
        client.mcp({"jsonrpc": "2.0", "id": 0, "method": "ping"})
    except VectorDBError as error:
        print(f"vectordb-mcp: {_explain(error)}", file=sys.stderr)


def _explain(error: VectorDBError) -> str:
    return f"{error} VECTORDB_API_KEY has the key." if error.status == 401 else str(error)


def _failure(id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}


if __name__ == "__main__":
    main()
