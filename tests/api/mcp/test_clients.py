"""The client of the protocol's own authors, by both ways of the protocol: it compares what it gets with the schemas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.access.callers import bearer, make_key
from tests.server import Server


@asynccontextmanager
async def connected(server: Server, key: str, mode: str) -> AsyncIterator[Client]:
    http = httpx2.AsyncClient(headers=bearer(key), trust_env=False, verify=False, timeout=60)
    async with http, Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client:
        yield client


@pytest.mark.parametrize(("mode", "version"), [("legacy", "2025-11-25"), ("auto", "2026-07-28")])
def test_an_agent_remembers_and_finds(
    agents: Server, client: httpx.Client, library: str, mode: str, version: str
) -> None:
    client.delete(f"/libraries/{library}").raise_for_status()
    client.post("/libraries", json={"id": library, "name": "Memory"}).raise_for_status()
    key = make_key(client, "write")["key"]

    async def talk() -> None:
        async with connected(agents, key, mode) as agent:
            assert agent.protocol_version == version
            tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
            assert tools["search"].annotations is not None
            assert tools["search"].annotations.read_only_hint

            async def call(name: str, **arguments: Any) -> dict[str, Any]:
                # Its structured content is checked by the schema of the tool.
                result = await agent.call_tool(name, arguments)
                assert not result.is_error, result
                data: dict[str, Any] = result.structured_content
                return data

            stored = await call("remember", library=library, text="Anna drinks green tea", metadata={"who": "Anna"})
            await call("put_document", library=library, id="guide", text="Boil water.\n\nWait.", title="Tea")
            found = await call("search", library=library, text="what does Anna like?", include=["text", "document"])
            assert found["results"][0]["id"] == stored["id"]
            assert (await call("get_chunks", library=library, document_id="guide"))["chunks"]
            assert (await call("list_documents", library=library))["documents"][0]["title"] == "Tea"
            assert (await call("describe_library", library=library))["fields"][0]["examples"] == ["Anna"]
            assert (
                library in str(await call("list_libraries", limit=7)) or (await call("list_libraries"))["next_cursor"]
            )
            assert await call("forget", library=library, filter={"who": "Anna"}) == {"deleted": 1}
            wrong = await agent.call_tool("search", {"library": library, "text": "x", "k": 0})
            assert wrong.is_error
            with pytest.raises(MCPError, match="Unknown tool: 'nothing'"):
                await agent.call_tool("nothing", {})

    asyncio.run(talk())
