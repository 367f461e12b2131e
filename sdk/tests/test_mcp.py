"""The command `vectordb-mcp`, used by the client of the protocol's own authors, as desktop programs do."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client as Agent
from mcp import StdioServerParameters
from tests.server import ROOT, Server

from vectordb_client import AsyncClient, Client, Library
from vectordb_client._agents import headers_of

SOURCES = Path(__file__).parent.parent / "src"
_META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def command(*arguments: str, **environment: str) -> StdioServerParameters:
    env = {"PYTHONPATH": f"{SOURCES}:{ROOT}", **environment}
    return StdioServerParameters(command=sys.executable, args=["-m", "vectordb_client.mcp", *arguments], env=env)


@pytest.mark.parametrize(("mode", "version"), [("legacy", "2025-11-25"), ("auto", "2026-07-28")])
def test_an_agent_searches_over_standard_input_and_output(
    server: Server, key: str, library: Library, mode: str, version: str
) -> None:
    library.upsert(texts=["Bees make honey, à la carte"], vectors=[[1, 0, 0]], ids=["bees"])

    async def talk() -> Any:
        async with Agent(command(VECTORDB_URL=server.url, VECTORDB_API_KEY=key), mode=mode) as agent:
            assert agent.protocol_version == version
            found = await asyncio.gather(
                *(agent.call_tool("search", {"library": library.id, "text": "honey"}) for _ in range(20))
            )
            wrong = await agent.call_tool("search", {"library": "none", "text": "honey"})
            assert wrong.is_error
            return [one.structured_content["results"][0]["text"] for one in found]

    assert asyncio.run(talk()) == ["Bees make honey, à la carte"] * 20


def test_an_agent_remembers_without_a_server(tmp_path: Path) -> None:
    async def talk() -> None:
        async with Agent(command("--local", str(tmp_path / "data"), VECTORDB_MCP_WRITE="1")) as agent:
            new = {"library": "memory", "text": "Anna drinks tea", "create_library": True}
            stored = await agent.call_tool("remember", new)
            assert not stored.is_error, stored
            found = await agent.call_tool("search", {"library": "memory", "text": "tea"})
            assert found.structured_content["results"][0]["id"] == stored.structured_content["id"]

    asyncio.run(talk())


def run(lines: list[bytes], **environment: str) -> tuple[list[Any], str]:
    parameters = command(**environment)
    ended = subprocess.run(
        [parameters.command, *parameters.args],
        input=b"\n".join([*lines, b""]),
        env=parameters.env,
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr.decode()


def test_what_fails_is_told_to_the_agent_and_on_the_error_output(server: Server) -> None:
    ping, note = b'{"jsonrpc":"2.0","id":7,"method":"ping"}', b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    answers, said = run([ping, note], VECTORDB_URL="http://127.0.0.1:9")
    assert [one["id"] for one in answers] == [7]
    assert answers[0]["error"]["message"].startswith("POST http://127.0.0.1:9/mcp: ")
    assert "VECTORDB_URL says where it is." in said
    answers, said = run([ping], VECTORDB_URL=server.url, VECTORDB_API_KEY="wrong")
    assert "no key of this server" in answers[0]["error"]["message"]
    assert "VECTORDB_API_KEY has the key." in said
    answers, said = run([b"{", b"[]", b"", b"\xff"], VECTORDB_URL=server.url)
    assert sorted(one["error"]["code"] for one in answers) == [-32700, -32700, -32600]
    assert "Traceback" not in said


def test_messages_by_the_client(client: Client, server: Server, key: str) -> None:
    modern = {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"_meta": _META, "name": "é"}}
    answer = client.mcp(modern)
    assert answer is not None
    assert (answer["id"], answer["error"]["code"]) == ("a", -32602)
    assert client.mcp({"jsonrpc": "2.0", "method": "notifications/cancelled"}) is None

    async def ask() -> Any:
        async with AsyncClient(server.url, key) as asynchronous:
            return await asynchronous.mcp({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})

    assert asyncio.run(ask())["result"]["tools"]


def test_only_the_newest_version_has_headers() -> None:
    assert headers_of({"method": "ping", "params": None}) == headers_of({"method": "ping", "params": {}}) == {}
    assert headers_of({"method": "tools/call", "params": {"_meta": _META, "name": "=?x"}}) == {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "=?base64?PT94?=",
    }
