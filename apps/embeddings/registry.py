"""Providers by name. The module of one, and the package it needs, are imported when it is first asked for.

Providers are cached, one for each model and process; a forked child makes its own.
"""

import importlib
import os
import threading
from functools import lru_cache

from apps import installation
from apps.embeddings.config import Config, config
from apps.embeddings.errors import NotInstalled, UnknownProvider
from apps.embeddings.provider import Provider

# The class of each provider, in the module of its name.
PROVIDERS = {
    "wordllama": "WordLlama",
    "hashing": "Hashing",
    "sentence_transformers": "SentenceTransformers",
    "openai": "OpenAI",
    "cohere": "Cohere",
}
_lock = threading.Lock()


def provider_type(name: str) -> type[Provider]:
    """The class of the provider `name`. Raises UnknownProvider and NotInstalled."""
    if name not in PROVIDERS:
        raise UnknownProvider(name, PROVIDERS)
    try:
        found: type[Provider] = getattr(importlib.import_module(f"apps.embeddings.providers.{name}"), PROVIDERS[name])
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "apps"):
            raise
        raise NotInstalled(name, package, install_command(name)) from None
    return found


def install_command(name: str) -> str:
    """The command that installs the package of the provider `name`."""
    if name == "wordllama":  # it is required wherever it need not be compiled
        return "python -m pip install wordllama"
    return installation.install_command("model" if name == "sentence_transformers" else f"embeddings-{name}")


def provider(name: str, model: str) -> Provider:
    """The provider `name` with `model`, the same one for all threads of this process while the settings stay the same.

    Raises UnknownProvider, UnknownModel and NotInstalled. A model may also turn out to be unknown when it is used.
    """
    kind = provider_type(name)
    with _lock:
        return _make(kind, model, config())


# Requests choose models, so their number is bounded.
@lru_cache(maxsize=32)
def _make(kind: type[Provider], model: str, settings: Config) -> Provider:
    return kind(model, settings)


def load_before_fork(name: str) -> None:
    """Load what forked processes share of a provider: of `wordllama`, which starts no threads; of others, nothing.

    Raises NotInstalled.
    """
    if name == "wordllama":
        provider_type(name)
        from apps.embeddings.providers import wordllama

        wordllama.load()


def forget() -> None:
    """Drop all cached providers."""
    global _lock
    # In a forked child the lock may be held by a thread that does not exist there.
    _lock = threading.Lock()
    _make.cache_clear()


os.register_at_fork(after_in_child=forget)
