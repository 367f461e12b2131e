"""Past a share of disk or memory nothing is written, but deletes are."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client, override_settings

from apps.access.guard_rails import _group_percents, disk_percent, memory_percent

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

LIBRARY = "/api/v1/libraries/made"


@pytest.fixture
def asking(settings: Any) -> Iterator[Client]:
    settings.AUTH = False
    client = Client(headers={"Host": "localhost"})
    body = {"id": "made", "name": "Made", "dimension": 2}
    assert client.post("/api/v1/libraries", body, "application/json").status_code == 201
    chunks = {"chunks": [{"id": f"{i}", "embedding": [1, i]} for i in range(3)]}
    assert client.post(f"{LIBRARY}/chunks", chunks, "application/json").status_code == 200
    yield client
    client.delete(LIBRARY)


def call_tool(asking: Client, name: str, arguments: dict[str, Any]) -> Any:
    """The result of an agent's call."""
    params = {"name": name, "arguments": {"library": "made"} | arguments}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return asking.post("/mcp", message, "application/json").json()["result"]


# A share of nothing is exceeded on every machine.
@pytest.mark.parametrize(
    ("setting", "code", "seconds"), [("MAX_DISK_PERCENT", "disk_full", "30"), ("MAX_MEMORY_PERCENT", "exhausted", "10")]
)
def test_writes_stop_and_deletes_go_on(asking: Client, setting: str, code: str, seconds: str) -> None:
    with override_settings(**{setting: 0}):
        for method, path, body in (
            ("POST", "/chunks", {"chunks": [{"id": "new", "embedding": [1, 1]}]}),
            ("PATCH", "", {"name": "Other"}),
            ("PUT", "/documents/new", {"chunks": [{"embedding": [1, 1]}]}),
            ("POST", "/chunks/update", {"ids": ["0"], "metadata": {}}),
        ):
            refused = asking.generic(method, LIBRARY + path, json.dumps(body), "application/json")
            assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (503, code, seconds)
            assert f"VECTORDB_{setting}" in refused.json()["detail"]
        with override_settings(MCP_WRITE=True):
            said = call_tool(asking, "remember", {"text": "new"})
            assert said["isError"]
            assert f"VECTORDB_{setting}" in said["content"][0]["text"]
            assert call_tool(asking, "forget", {"ids": ["2"]})["structuredContent"] == {"deleted": 1}
        assert asking.get(LIBRARY).status_code == 200
        query = asking.post(f"{LIBRARY}/query", {"vector": [1, 0]}, "application/json")
        assert len(query.json()["results"]) == 2
        assert asking.post(f"{LIBRARY}/chunks/delete", {"ids": ["0"]}, "application/json").json() == {"deleted": 1}
        assert asking.delete(f"{LIBRARY}/chunks/1").status_code == 204
    assert asking.patch(LIBRARY, {"name": "Other"}, "application/json").status_code == 200


def test_keys_are_managed_all_the_same(asking: Client) -> None:
    def send(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return asking.generic(method, f"/api/v1/keys{path}", json.dumps(body or {}), "application/json")

    with override_settings(MAX_DISK_PERCENT=0):
        made = send("POST", "", {"name": "Made", "scopes": ["read"]})
        assert made.status_code == 201
        at = f"/{made.json()['id']}"
        in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        assert send("POST", f"{at}/search-token", {"libraries": ["*"], "expires_at": in_an_hour}).status_code == 200
        rotated = send("POST", f"{at}/rotate")
        assert rotated.status_code == 200
        assert rotated.json()["key"] != made.json()["key"]
        assert send("PATCH", at, {"libraries": ["made"]}).json()["libraries"] == ["made"]
        assert send("DELETE", at).status_code == 204


def test_what_is_measured_is_a_percentage(tmp_path: Path) -> None:
    assert 0 <= disk_percent(tmp_path) <= 100
    assert disk_percent(tmp_path / "nowhere") == 0
    assert 0 <= memory_percent() <= 100


def test_a_control_group_without_a_limit_or_of_another_version_says_nothing(tmp_path: Path) -> None:
    assert list(_group_percents(tmp_path)) == []
    (tmp_path / "memory.max").write_text("max\n")
    assert list(_group_percents(tmp_path)) == []


def test_mapped_files_of_a_control_group_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 200\nactive_file 300\ninactive_file 350\n")
    assert 25.0 in list(_group_percents(tmp_path))
