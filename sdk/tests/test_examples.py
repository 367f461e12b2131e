"""The scripts in examples/ run, and do what they say."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.embeddings.service import Answer, Service
from tests.server import Server

from vectordb_client import Client

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(server: Server, key: str) -> Run:
    """Runs an example as a shell would, against the server; returns what it prints."""
    environ = os.environ | {"VECTORDB_URL": server.url, "VECTORDB_API_KEY": key}
    environ["PYTHONPATH"] = str(EXAMPLES.parent / "sdk" / "src")

    def run_example(name: str, *arguments: object, **more: str) -> str:
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(command, env=environ | more, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_example


def test_every_example_is_in_the_readme_and_has_a_test() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    readme, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert scripts == {name for name in scripts if f"[{name}]({name})" in readme and f'run("{name[:-3]}"' in tests}


def test_a_folder_is_sent_again_only_where_it_changed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text("Green tea takes water of 80 degrees.")
    (tmp_path / "roses.txt").write_text("Cut roses in early spring.")
    printed = run("ingest_folder", tmp_path, "how hot should the water be?")
    assert "tea.md: 1 chunks new" in printed
    assert printed.splitlines()[2].startswith("tea.md: Green tea")
    (tmp_path / "roses.txt").write_text("Cut roses in late winter.")
    printed = run("ingest_folder", tmp_path, "when to cut roses?")
    assert "tea.md: 0 chunks new, 1 as before, 0 gone" in printed
    assert "roses.txt: 1 chunks new, 0 as before, 1 gone" in printed


def test_words_find_what_meaning_does_not(run: Run) -> None:
    printed = run("hybrid_search")
    assert "lexical ['Error E4711" in printed
    assert "before 1800: ['Eat to live" in printed
    assert "newer first: ['Error E4711" in printed


def test_a_dataframe_goes_in_and_comes_out(run: Run) -> None:
    assert "4 created, 0 updated" in run("dataframe")


def test_many_queries_at_once(run: Run) -> None:
    assert "100 queries in" in run("async_queries")


def test_a_language_model_is_given_what_was_found(run: Run, client: Client) -> None:
    library = client.libraries.create("handbook", if_exists="get")
    library.documents.put("power", title="When the power fails", text="What was acknowledged is on the disk.")
    with Service() as model:
        model.usual = lambda _: Answer({"choices": [{"message": {"content": "It is on the disk [1]."}}]})
        answer = run("rag", "what if the power fails?", OPENAI_BASE_URL=f"{model.url}/v1", LIBRARY="handbook")
        assert answer == "It is on the disk [1].\n[1] When the power fails\n"
    [asked] = model.asked
    assert "[1] What was acknowledged is on the disk." in asked.body["messages"][1]["content"]


def test_rows_of_another_database_come_once(run: Run, client: Client, tmp_path: Path) -> None:
    rows = [{"_id": number, "document": f"row {number}", "embedding": [number, 1], "lang": "en"} for number in range(3)]
    rows.append({"_id": "bad", "document": "x", "embedding": [1, 2, 3]})
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    names = ["--id", "_id", "--text", "document", "--vector", "embedding"]
    printed = run("migrate", file, "migrated", *names)
    assert "3 created, 0 updated, 1 refused" in printed
    assert "row 3:" in printed
    assert "0 created, 3 updated, 1 refused" in run("migrate", file, "migrated", *names)
    assert client.library("migrated").get_chunk("2").metadata == {"lang": "en"}


def test_an_index_is_evaluated(run: Run, client: Client) -> None:
    points = client.libraries.create("evaluated", dimension=2, if_exists="get")
    points.upsert(vectors=[[number, 1.0] for number in range(50)])
    printed = run("evaluate", "evaluated", 5)
    assert "as it is: 1.0000 of the best 10 found" in printed


def test_an_agent_remembers_and_forgets(run: Run) -> None:
    assert run("agent_memory").splitlines() == [
        "What may I offer Anna to drink? ['Anna drinks green tea, without sugar.']",
        "Who must not eat walnuts? ['Ben is allergic to nuts.']",
        "Forgotten about Ben: 2",
        "Left of Ben: []",
    ]
