"""The examples of the README and of the docstrings work."""

import doctest
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
from haystack.dataclasses import Document

from haystack_integrations.components.retrievers import vectordb as retrievers
from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore

README = Path(__file__).parents[1] / "README.md"


def test_the_example_finds_the_apple(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(example.replace("http://127.0.0.1:8000", os.environ["VECTORDB_URL"]), names)
    store = names["store"]
    try:
        assert "An apple a day keeps the doctor away. {'year': 1866}" in capsys.readouterr().out
    finally:
        store.delete_all_documents(recreate_index=True)
        store.close()


def test_the_examples_of_docstrings_work() -> None:
    documented = [VectorDBDocumentStore, *(vars(retrievers)[name] for name in retrievers.__all__)]
    names: dict[str, Any] = {"Document": Document, **{one.__name__: one for one in documented}}
    runner = doctest.DocTestRunner()
    for one in documented:
        # Those of retrievers ask the store that its own example has made.
        example = doctest.DocTestParser().get_doctest(inspect.getdoc(one), names, one.__name__, None, None)
        result = runner.run(example, clear_globs=False)
        names |= example.globs
        assert (result.failed, result.attempted > 0) == (0, True)
    names["store"].delete_all_documents(recreate_index=True)
    names["store"].close()
