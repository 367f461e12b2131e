"""The tutorial notebook runs from its first cell to its last."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tests.server import Server

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tutorial.ipynb"


def outputs(cell: Any) -> str:
    """What a cell shows, as text."""
    return "".join(one.get("text", "") + one.get("data", {}).get("text/plain", "") for one in cell.outputs)


# Libraries below nbclient.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_tutorial(server: Server, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORDB_URL", server.url)
    monkeypatch.setenv("VECTORDB_API_KEY", key)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1] / "sdk" / "src"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without what it shows"
    NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
    shown = [outputs(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "radiator" in shown[2]
    assert "hybrid   ['Green tea takes water" in shown[3]
    assert sum("image/png" in one.get("data", {}) for cell in notebook.cells for one in cell.get("outputs", ())) == 2
    assert "Plant them out in the middle of May" in shown[-2]
