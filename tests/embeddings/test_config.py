"""Settings of embeddings: the default model, and secrets are not shown."""

import sys
from pathlib import Path
from typing import Any

import pytest

from apps.embeddings.config import PACKAGED_MODEL, Config


def test_keys_are_not_shown() -> None:
    shown = repr(Config(openai_api_key="sk-secret-1", cohere_api_key="secret-2"))
    assert "secret" not in shown
    assert "openai_base_url" in shown


@pytest.mark.parametrize(
    ("named", "default"),
    [
        ({}, ("wordllama", "l2-supercat-256")),
        ({"provider": "hashing"}, ("hashing", "hashing-384")),
        ({"provider": "hashing", "model": "hashing-64"}, ("hashing", "hashing-64")),
        ({"provider": "sentence_transformers"}, ("sentence_transformers", "all-MiniLM-L6-v2")),
        ({"provider": "openai", "model": "m"}, ("openai", "m")),
    ],
)
def test_the_default_model_is_the_providers_or_the_named_one(named: dict[str, Any], default: tuple[str, str]) -> None:
    assert Config(**named).default == default


def test_the_packaged_language_model_is_the_default_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PACKAGED_MODEL).mkdir()
    (tmp_path / PACKAGED_MODEL / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert Config().default == ("sentence_transformers", "all-MiniLM-L6-v2")
    assert Config(provider="wordllama").default == ("wordllama", "l2-supercat-256")


def test_where_there_is_no_package_of_wordllama_words_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    # None here makes Python say that there is no such module.
    monkeypatch.setitem(sys.modules, "wordllama", None)
    assert Config().default == ("hashing", "hashing-384")
    assert Config(provider="wordllama").default == ("wordllama", "l2-supercat-256")
