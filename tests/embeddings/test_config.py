"""Settings of embeddings: what cannot be used is refused, and secrets are not shown."""

import sys
from typing import Any

import pytest

from apps.embeddings.config import Config


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


def test_where_there_is_no_package_of_wordllama_words_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    # None here makes Python say that there is no such module.
    monkeypatch.setitem(sys.modules, "wordllama", None)
    assert Config().default == ("hashing", "hashing-384")
    assert Config(provider="wordllama").default == ("wordllama", "l2-supercat-256")


@pytest.mark.parametrize("name", ["openai_base_url", "cohere_base_url"])
@pytest.mark.parametrize(
    "url", ["", "localhost:11434", "ftp://host/v1", "http://", "http://me:pa55word@host/v1", "https://h/?key=pa55word"]
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secrets(name: str, url: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must ") as refused:
        Config(**{name: url})
    assert "pa55word" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"query_cache_size": -1},
        {"openai_max_batch": 0},
        {"openai_dimensions": -1},
        {"sentence_transformers_threads": 0},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must be at least"):
        Config(**wrong)
