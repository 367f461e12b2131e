"""The examples in docstrings are true, and every method has its say."""

import doctest
import importlib.util
import inspect
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.server import Server

import vectordb_client
from vectordb_client import Client, F, Job, Library, client, documents, filters, jobs, keys, libraries

CLASSES: tuple[type[Any], ...] = (
    *(
        client.Client,
        libraries.Libraries,
        Library,
        documents.Documents,
        jobs.Jobs,
        jobs.Backups,
        Job,
        keys.Keys,
        keys.Audit,
    ),
    filters.F,
)


@pytest.fixture(scope="module")
def names(server: Server, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What examples take for granted: three chunks in the library `lib`, a library of vectors, a folder of texts."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "guide").mkdir()
    (folder / "guide" / "start.md").write_text("Start here.")
    (folder / "notes.txt").write_text("A note.")
    with Client(server.url, key) as client:
        client.libraries.create("notes")
        points = client.libraries.create("points", dimension=3)
        names = {"client": client, "key": key, "url": server.url, "points": points, "folder": Path(folder)}
        yield names | {"F": F, "Client": Client, "datetime": datetime, "timedelta": timedelta, "timezone": timezone}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_examples(kind: type[Any], names: dict[str, Any]) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    parser, shared = doctest.DocTestParser(), dict(names)
    for name, member in [(kind.__name__, kind), *vars(kind).items()]:
        if inspect.isfunction(member) and not name.startswith("_"):
            assert member.__doc__, f"{kind.__name__}.{name} has no docstring"
        if member.__doc__ and ">>>" in member.__doc__:
            shared["lib"] = _library(names["client"])
            if kind is documents.Documents and name not in ("put", "create"):
                shared["lib"].documents.put("handbook", text="First paragraph.", metadata={"lang": "en"})
            test = parser.get_doctest(member.__doc__, shared, name, None, 0)
            runner.run(test, clear_globs=False)
            shared.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0


def _library(client: Client) -> Library:
    id = f"docs-{vectordb_client._rows.new_id()}"
    lib = client.libraries.create(id)
    texts = ["An apple a day", "A partridge in a pear tree", "Other things"]
    lib.upsert(texts=texts, ids=["apple", "pear", "other"], metadatas=[{"year": 1866}, {"year": 1780}, {}])
    return lib


def test_the_reference_is_made_from_them() -> None:
    specification = importlib.util.spec_from_file_location("reference", Path(__file__).parents[1] / "reference.py")
    assert specification is not None
    assert specification.loader is not None
    reference = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reference)
    assert reference.render() == reference.PAGE.read_text(), "make client-reference writes docs/client.md again"
