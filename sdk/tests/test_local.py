"""A local client where an event loop runs, and after a folder that could not be opened."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


def printed(code: str, *arguments: object) -> list[str]:
    """The lines that a script prints in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


IN_A_LOOP = """
import asyncio, sys, threading
from vectordb_client import AsyncClient, Client

def use_sync():
    with Client.local(sys.argv[1]) as client:
        library = client.libraries.create("a", dimension=2)
        library.upsert([{"id": "x", "vector": [1, 2]}])
        library.export(sys.argv[1] + "/a.jsonl")
        print(library.query([1, 2], k=1).ids)

async def use_async():
    async with AsyncClient.local(sys.argv[1]) as client:
        library = await client.libraries.create("b", dimension=2)
        await library.upsert([{"id": "y", "vector": [1, 2]}])
        await library.export(sys.argv[1] + "/b.jsonl")
        print((await library.query([1, 2], k=1)).ids)

async def main():
    for kind in sys.argv[2:]:
        use_sync() if kind == "sync" else await use_async()
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("vectordb")])

asyncio.run(main())
"""


@pytest.mark.parametrize("kinds", [("sync", "async"), ("async", "sync")], ids="-".join)
def test_both_clients_work_where_a_loop_runs(kinds: tuple[str, str], tmp_path: Path) -> None:
    found = {"sync": "['x']", "async": "['y']"}
    lines = printed(IN_A_LOOP, tmp_path / "data", *kinds)
    assert lines == [*(found[kind] for kind in kinds), "[]"]


IN_A_CELL = """
import threading
from vectordb_client import AsyncClient, Client

client = Client.local("data")
library = client.libraries.create("a", dimension=2)
library.upsert([{"id": "x", "vector": [1, 2]}])
print(library.query([1, 2], k=1).ids)
client
"""
IN_ANOTHER = """
client.close()
async with AsyncClient.local("data") as client:
    print(repr(client), await client.library("a").count())
print([thread.name for thread in threading.enumerate() if thread.name.startswith("vectordb")])
"""


# Libraries below nbclient.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_both_clients_work_in_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "sdk" / "src"), str(ROOT)]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (IN_A_CELL, IN_ANOTHER)])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    first, second = (cell.outputs for cell in notebook.cells)
    assert [first[0]["text"], first[1]["data"]["text/plain"]] == ["['x']\n", "Client.local('data')"]
    assert [output["text"] for output in second] == ["AsyncClient.local('data') 1\n[]\n"]


REFUSED_FIRST = """
import asyncio, sys
from pathlib import Path
from vectordb_client import Client, InvalidArgument

async def main():
    for folder in sys.argv[1:]:
        try:
            with Client.local(folder) as client:
                print(client.health())
        except InvalidArgument as error:
            print(error)
            # As a person would before the next try.
            if Path(folder).is_dir():
                Path(folder, "vectordb.sqlite3").unlink(missing_ok=True)

asyncio.run(main())
"""


def test_a_folder_that_cannot_be_opened_is_no_end(tmp_path: Path) -> None:
    file, damaged, other = tmp_path / "file", tmp_path / "damaged", tmp_path / "other"
    file.touch()
    damaged.mkdir()
    (damaged / "vectordb.sqlite3").write_text("no database" * 100)
    lines = printed(REFUSED_FIRST, file, file, damaged, other, damaged, other)
    assert lines[0] == lines[1] == f"the data folder '{file}' cannot be opened: [Errno 17] File exists: '{file}'"
    assert "file is not a database" in lines[2]
    assert lines[3].startswith(f"this process has tried to open '{damaged}' already, and can open no other data folder")
    assert lines[4] == "ok"
    assert lines[5].startswith(f"this process has opened '{damaged}' already")
