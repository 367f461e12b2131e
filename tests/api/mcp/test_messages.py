"""Messages of agents' programs: both ways of the protocol, its errors, and what is no message at all."""

import base64
import json
from typing import Any

import httpx
import pytest

from apps.api.mcp.protocol import VERSIONS, WITH_HANDSHAKE, McpMessage, check_version
from tests.api.mcp.conftest import ask
from tests.api.problems import assert_refused

NEWEST = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": NEWEST, "io.modelcontextprotocol/clientCapabilities": {}}


@pytest.fixture(scope="module", name="client")
def client_of_the_shared_server(server: Any) -> Any:
    """A client of a server with the settings that it has by itself."""
    with server.client() as client:
        yield client


def modern(client: httpx.Client, method: str, params: Any = None, **headers: str | None) -> httpx.Response:
    """A message of the newest version; `headers` replace its own, None leaves one out."""
    sent: dict[str, str | None] = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": method}
    sent |= {"Mcp-Name": (params or {}).get("name")} | {name.replace("_", "-"): one for name, one in headers.items()}
    return ask(
        client,
        method,
        {"_meta": META} | (params or {}),
        {name: value for name, value in sent.items() if value is not None},
    )


def assert_error(response: httpx.Response, status: int, code: int, request_id: Any = 1) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", request_id, code), body
    assert body["error"]["message"].endswith("."), body
    assert "result" not in body
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("version", [*WITH_HANDSHAKE, "1999-01-01", NEWEST, None, {"a": []}])
def test_initialize_agrees_on_a_version(client: httpx.Client, version: Any) -> None:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    result = ask(client, "initialize", params).raise_for_status().json()["result"]
    assert result["protocolVersion"] == (version if version in WITH_HANDSHAKE else WITH_HANDSHAKE[0])
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "vectordb"
    assert "list_libraries" in result["instructions"]


def test_later_messages_of_earlier_versions_need_nothing_from_before(client: httpx.Client) -> None:
    for version in WITH_HANDSHAKE:
        response = ask(client, "tools/list", headers={"MCP-Protocol-Version": version, "Mcp-Session-Id": "made-up"})
        assert response.raise_for_status().json()["result"]["tools"]
        assert "Mcp-Session-Id" not in response.headers
    assert ask(client, "ping", id="text").json() == {"jsonrpc": "2.0", "id": "text", "result": {}}
    for method in ("resources/list", "server/discover"):
        assert_error(ask(client, method), 200, -32601)


def test_discover_says_what_is_spoken(client: httpx.Client) -> None:
    result = modern(client, "server/discover").raise_for_status().json()["result"]
    assert result["supportedVersions"] == list(VERSIONS)
    assert (result["resultType"], result["cacheScope"]) == ("complete", "private")
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "vectordb"


def test_headers_of_the_newest_version_must_say_what_the_message_does(client: httpx.Client) -> None:
    call = {"name": "list_libraries"}
    encoded = f"=?base64?{base64.b64encode(b'list_libraries').decode()}?="
    assert modern(client, "tools/call", call).status_code == 200
    assert modern(client, "tools/call", call, Mcp_Name=encoded).status_code == 200
    # Clients of HTTP send none, but proxies may put white space around.
    message = McpMessage(jsonrpc="2.0", id=1, method="tools/list", params={"_meta": META})
    assert check_version(message, {"MCP-Protocol-Version": f" {NEWEST}", "Mcp-Method": "tools/list \t"})
    for wrong in (
        {"MCP_Protocol_Version": None},
        {"MCP_Protocol_Version": "2025-11-25"},
        {"Mcp_Method": None},
        {"Mcp_Method": "tools/list"},
        {"Mcp_Name": None},
        {"Mcp_Name": "search"},
        {"Mcp_Name": "=?base64?!?="},
    ):
        assert_error(modern(client, "tools/call", call, **wrong), 400, -32020)


def test_errors_of_the_newest_version_have_its_statuses(client: httpx.Client) -> None:
    for method in ("resources/list", "initialize", "ping"):
        assert_error(modern(client, method), 404, -32601)
    headers = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": "tools/list"}
    for meta in (None, 1, {}, {name: META[name] for name in list(META)[:1]}):
        assert_error(ask(client, "tools/list", {"_meta": meta}, headers), 400, -32602)
    later = META | {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    for params, in_header in (({"_meta": later}, "2099-01-01"), ({}, "1999-01-01")):
        response = ask(client, "tools/list", params, headers | {"MCP-Protocol-Version": in_header})
        error = assert_error(response, 400, -32022)
        assert error["data"] == {"supported": list(VERSIONS), "requested": in_header}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", -32700),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": "\\ud800"}}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": ' + '{"a":' * 500 + "1" + "}" * 501, -32700),
        ("[" * 100_000, -32700),
        ("[]", -32600),
        ('[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
        ("3", -32600),
        ('{"id": 1, "method": "ping"}', -32600),
        ('{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "result": {}}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": 7}', -32600),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', -32600),
        *(
            (f'{{"jsonrpc": "2.0", "id": {number}, "method": "ping"}}', -32600)
            for number in ("null", "true", "1.5", "[]", str(2**53), "9" * 400, json.dumps("x" * 1001))
        ),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": [' + "1," * 500_001 + "1]}}", -32600),
    ],
)
def test_what_is_no_message_is_an_error_without_an_id(client: httpx.Client, body: str, code: int) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post(client.base_url.copy_with(path="/mcp"), content=body, headers=headers)
    assert_error(response, 400, code, None)


def test_a_notification_is_taken_and_has_no_answer(client: httpx.Client) -> None:
    message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    for headers in ({}, {"MCP-Protocol-Version": "2025-06-18"}, {"MCP-Protocol-Version": NEWEST}):
        response = client.post(client.base_url.copy_with(path="/mcp"), json=message, headers=headers)
        assert (response.status_code, response.content) == (202, b"")
    # It cannot have a tool called.
    call = message | {"method": "tools/call", "params": {"name": "nothing"}}
    assert client.post(client.base_url.copy_with(path="/mcp"), json=call).status_code == 202


def test_there_is_nothing_but_post(client: httpx.Client) -> None:
    path = client.base_url.copy_with(path="/mcp")
    for method in ("GET", "DELETE", "PUT"):
        response = client.request(method, path, headers={"Accept": "text/event-stream"})
        assert_refused(response, 405, "method_not_allowed")
        assert "POST" in response.headers["Allow"]
    assert_refused(
        client.post(path, content="{}", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type"
    )
    assert_refused(client.post(path, json={}, headers={"Origin": "https://evil.example"}), 403, "forbidden")
    assert_refused(client.post(path, json={}, headers={"Host": "evil.example"}), 400, "host_not_allowed")


@pytest.mark.parametrize(
    "params", [{}, {"name": 1}, {"name": "nothing"}, {"name": "x" * 10_000}, {"name": "search", "arguments": []}]
)
def test_a_call_of_what_is_no_tool_is_an_error_of_the_protocol(client: httpx.Client, params: Any) -> None:
    error = assert_error(ask(client, "tools/call", params), 200, -32602)
    assert len(error["message"]) < 400
