"""Providers by name. A new one is one module in `providers` and one line here.

The module of a provider, and the package it needs, are imported when the provider is first asked for. Providers are
kept, one for each model and process: a forked child makes its own, since neither connections nor the threads of a
numeric library survive a fork.
"""

import importlib
import os
import threading

from apps.embeddings.config import Config, config
from apps.embeddings.errors import NotInstalled, UnknownProvider
from apps.embeddings.provider import Provider

_MODULES = {
    "hashing": ("hashing", "Hashing"),
    "sentence_transformers": ("sentence_transformers", "SentenceTransformers"),
    "openai": ("openai", "OpenAI"),
    "cohere": ("cohere", "Cohere"),
}
PROVIDERS: tuple[str, ...] = tuple(_MODULES)
# Requests choose models, so their number is bounded; past it, the one made first is dropped.
_MOST_KEPT = 32

_lock = threading.Lock()
_kept: dict[tuple[Config, str, str], Provider] = {}


def provider_type(name: str) -> type[Provider]:
    """The class of the provider `name`. Raises UnknownProvider and NotInstalled."""
    try:
        module, attribute = _MODULES[name]
    except KeyError:
        raise UnknownProvider(name, PROVIDERS) from None
    try:
        found: type[Provider] = getattr(importlib.import_module(f"apps.embeddings.providers.{module}"), attribute)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "apps"):
            raise
        raise NotInstalled(name, package, install_command(name)) from None
    return found


def install_command(name: str) -> str:
    """The command that installs what the provider `name` needs."""
    return f"python -m pip install --require-hashes -r requirements/embeddings-{name.replace('_', '-')}.txt"


def provider(name: str, model: str) -> Provider:
    """The provider `name` with `model`, the same one for all threads of this process while the settings stay the same.

    Raises UnknownProvider, UnknownModel and NotInstalled. A model may also turn out to be unknown when it is used.
    """
    key = (config(), name, model)
    found = _kept.get(key)
    if found is not None:
        return found
    made_by = provider_type(name)
    with _lock:
        found = _kept.get(key)
        if found is None:
            found = _kept[key] = made_by(model, key[0])
            if len(_kept) > _MOST_KEPT:
                del _kept[next(iter(_kept))]
        return found


def forget() -> None:
    """Drop all providers that are kept."""
    global _lock
    # In a forked child the lock may be held by a thread that is not there.
    _lock = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=forget)
