"""The documentation names every error code, setting and path, with what the code says of them, and none besides."""

import re
from pathlib import Path

import httpx
import pytest

from apps.api.errors import CODES
from apps.engine.indexes.registry import INDEX_TYPES, index_type
from tests.server import ROOT, Server
from vectordb.environment import SETTINGS

pytestmark = pytest.mark.any_database


def rows(document: str, beginning: str = "") -> dict[str, list[str]]:
    """The rows of a document's tables whose first cell is a name in backticks, with that beginning: the other cells by
    that name."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "docs" / document).read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        name = re.fullmatch(r"`([^`]+)`", cells[0])
        if line.lstrip().startswith("|") and name and name[1].startswith(beginning):
            assert name[1] not in found, f"{document} has {name[1]} twice"
            found[name[1]] = cells[1:]
    return found


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = {code: int(cells[0]) for code, cells in rows("errors.md").items()}
    assert documented == {code: status for code, (status, _) in CODES.items()}


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    documented = rows("settings.md")
    assert {name: _unquoted(cells[0]) for name, cells in documented.items()} == {
        name: str(default) for name, (default, _) in SETTINGS.items()
    }
    assert all(cells[1].endswith(".") for cells in documented.values())


def test_every_parameter_of_an_index_is_documented() -> None:
    documented = {name: cells for name, cells in rows("indexes.md").items() if "." in name}
    types = {name: index_type(name) for name in INDEX_TYPES}
    assert documented == {
        f"{name}.{parameter.name}": [str(parameter.low), str(parameter.high), parameter.default, parameter.meaning]
        for name, kind in types.items()
        for parameter in (*kind.build_parameters, *kind.search_parameters)
    }
    assert set(INDEX_TYPES) <= rows("indexes.md").keys()


def test_every_path_is_documented_with_its_methods(server: Server) -> None:
    schema = httpx.get(f"{server.url}/api/schema").raise_for_status().json()
    paths = {path: {method.upper() for method in operations} for path, operations in schema["paths"].items()}
    documented = {path: set(cells[0].split(", ")) for path, cells in rows("api.md", beginning="/").items()}
    assert documented == paths


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / Path(target)).exists(), f"{document.name} links to {target}"


def _unquoted(cell: str) -> str:
    """What stands in backticks; empty where nothing does."""
    quoted = re.fullmatch(r"`([^`]*)`", cell)
    return quoted[1] if quoted else ""
