"""The Python of the README, the tutorial and the how-tos runs as it stands there, and prints what stands below it."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from vectordb_client import Client

from tests.embeddings.service import Answer, Service
from tests.server import ROOT, Server

pytestmark = pytest.mark.any_database

README, TUTORIAL, HOW_TO = ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "how-to.md"


def run(page: Path, addresses: dict[str, str]) -> list[str]:
    """Run a page's blocks one after the other, with other addresses than the page's; return what each prints.

    AssertionError if a block prints something else than the page says.
    """
    text = page.read_text()
    for address, other in addresses.items():
        text = text.replace(address, other)
    names: dict[str, Any] = {}
    printed = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [one.close() for one in names.values() if isinstance(one, (httpx.Client, Client))])
        for code, output in re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", text, re.DOTALL):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, page.name, "exec"), names)
            printed.append(out.getvalue())
            assert not output or printed[-1] == output
    return printed


def _addresses(server: Server) -> dict[str, str]:
    """What pages say of a server, and what it is here."""
    return {"http://127.0.0.1:8000": server.url, "data/admin_key": str(server.folder / "admin_key")}


def test_the_script_of_the_readme_can_be_run_twice(server: Server, client: httpx.Client) -> None:
    addresses = _addresses(server)
    assert run(README, addresses) == run(README, addresses) != []
    client.delete("/libraries/quotes").raise_for_status()


def test_the_tutorial_prints_what_it_says(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run(TUTORIAL, _addresses(server))) > 10


def test_a_language_model_is_given_the_passages_and_the_question(server: Server, client: httpx.Client) -> None:
    client.post("/libraries", json={"id": "handbook-sample", "name": "Handbook"}).raise_for_status()
    document = {"title": "When the power fails", "text": "A write that was answered with success is on the disk."}
    client.post("/libraries/handbook-sample/documents", json=document).raise_for_status()
    with Service() as model:
        model.usual = lambda _: Answer({"choices": [{"message": {"content": "What was answered [1]."}}]})
        addresses = _addresses(server) | {"http://localhost:11434": model.url}
        assert run(HOW_TO, addresses) == ["What was answered [1].\n"]
    client.delete("/libraries/handbook-sample").raise_for_status()
    [asked] = model.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body["messages"][1]["content"] == (
        f"[1] {document['title']}\n{document['text']}\n\nQuestion: What is kept when the power fails?"
    )


def test_the_calls_in_the_tables_are_of_the_api(server: Server) -> None:
    paths = httpx.get(f"{server.url}/api/schema").raise_for_status().json()["paths"]
    calls = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)", HOW_TO.read_text()))
    assert len(calls) > 10
    for method, path in calls:
        below = path if path.startswith("/libraries") else "/libraries/{library_id}" + path
        assert method.lower() in paths[f"/api/v1{below}"], f"{method} {path}"
