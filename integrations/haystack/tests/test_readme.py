"""The README's example works."""

import os
import re
from pathlib import Path

import pytest

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
