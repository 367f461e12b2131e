"""docs/embeddings.md has all providers and all errors, and no others; its settings have the defaults of the code."""

import re
from pathlib import Path

import pytest

from apps.embeddings import errors
from apps.embeddings.config import Config
from apps.embeddings.registry import PROVIDERS, install_command

TEXT = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
SETTINGS = {
    "VECTORDB_EMBEDDING_PROVIDER": "provider",
    "VECTORDB_EMBEDDING_MODEL": "model",
    "VECTORDB_EMBEDDING_TIMEOUT": "timeout",
    "VECTORDB_EMBEDDING_RETRIES": "retries",
    "VECTORDB_EMBEDDING_QUERY_CACHE": "query_cache_size",
    "VECTORDB_OPENAI_BASE_URL": "openai_base_url",
    "OPENAI_API_KEY": "openai_api_key",
    "VECTORDB_OPENAI_DIMENSIONS": "openai_dimensions",
    "VECTORDB_OPENAI_MAX_BATCH": "openai_max_batch",
    "VECTORDB_COHERE_BASE_URL": "cohere_base_url",
    "CO_API_KEY": "cohere_api_key",
    "VECTORDB_SENTENCE_TRANSFORMERS_DEVICE": "sentence_transformers_device",
    "VECTORDB_SENTENCE_TRANSFORMERS_THREADS": "sentence_transformers_threads",
}


def rows(heading: str) -> dict[str, list[str]]:
    """The first table below a heading: its first cells, unquoted, with the cells that follow."""
    section = re.split(r"^#+ ", TEXT.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip("`"): [cell.strip("`") for cell in cells[1:]] for cells in lines}


def test_every_provider_is_documented() -> None:
    assert tuple(rows("Providers")) == tuple(PROVIDERS)


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name not in ("wordllama", "hashing")])
def test_what_a_provider_needs_is_documented(name: str) -> None:
    assert install_command(name).endswith(rows("Providers")[name][1])


def test_every_error_is_documented() -> None:
    kinds = {kind.__name__ for kind in errors.EmbeddingError.__subclasses__()}
    assert rows("Errors").keys() == kinds
    assert all(kind in (errors.__doc__ or "") for kind in kinds)


def test_the_defaults_of_the_settings_are_documented() -> None:
    documented = {SETTINGS[name]: cells[0] for name, cells in rows("Settings").items()}
    defaults = Config()
    assert documented == {name: _shown(getattr(defaults, name)) for name in SETTINGS.values()}


def _shown(value: object) -> str:
    return (f"{value:g}" if isinstance(value, float) else str(value)) or "(empty)"
