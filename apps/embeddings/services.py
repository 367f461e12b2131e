"""`embed`: texts to vectors that can be stored and searched, or an error that says why not.

What always holds of the answer: one vector a text, in order, all of the model's one dimension, float32, finite,
bounded, none of them zero (a zero vector has no cosine). What a provider answers is checked, whoever wrote it.

A failure that may pass is tried again, after the time the provider named, or else after a wait that doubles each time
and is up to a half shorter by chance, so that many clients do not come back together. No attempt and no wait is begun
that the overall time-out has no room for. The libraries of providers repeat nothing themselves: their waits know
nothing of that time-out, and past it the server would replace the worker that waits.
"""

import logging
import random
import time
from collections.abc import Sequence

import numpy as np

from apps.embeddings.cache import Key, query_vectors
from apps.embeddings.config import Config, config
from apps.embeddings.errors import ProviderFailed
from apps.embeddings.provider import Kind, Provider, batches
from apps.embeddings.registry import provider
from apps.engine.errors import InvalidVector
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, check, to_float32

logger = logging.getLogger(__name__)


def embed(provider_name: str, model: str, texts: Sequence[str], kind: Kind) -> Float32:
    """The vectors [n, dimension] of n texts by the provider's model; of no texts, [0, dimension], or [0, 0] while the
    dimension is not known. The vector of a single query may be one that was computed before; it is read-only.

    Raises UnknownProvider, UnknownModel, TextRefused, NotInstalled and ProviderFailed.
    """
    settings = config()
    with_model = provider(provider_name, model)
    if not texts:
        return np.empty((0, with_model.dimension or 0), np.float32)
    if kind != "query" or len(texts) != 1:
        return embed_with(with_model, texts, kind, settings)
    key = Key(settings, provider_name, model, texts[0])
    vector = query_vectors.get(key)
    if vector is None:
        vector = embed_with(with_model, texts, kind, settings)
        query_vectors.put(key, vector)
    return vector


def embed_with(provider: Provider, texts: Sequence[str], kind: Kind, settings: Config) -> Float32:
    """The vectors [n, dimension] of n >= 1 texts, computed anew; for the rest as `embed`."""
    deadline = time.monotonic() + settings.timeout
    parts: list[Float32] = []
    done = 0
    for batch in batches(texts, provider.max_batch, provider.max_batch_characters):
        if parts and time.monotonic() >= deadline:
            how_far = (
                f"{done:,} of {len(texts):,} texts were embedded when the time-out of {settings.timeout:g} s was over"
            )
            raise ProviderFailed(provider.name, f"{how_far}; send fewer texts at once", transient=True)
        parts.append(_attempts(provider, batch, kind, settings, deadline))
        done += len(batch)
    return np.concatenate(parts)


def _attempts(provider: Provider, texts: Sequence[str], kind: Kind, settings: Config, deadline: float) -> Float32:
    attempt = 0
    while True:
        left = max(deadline - time.monotonic(), 0.001)
        try:
            return _checked(provider, provider.embed(texts, kind, left), len(texts))
        except ProviderFailed as failure:
            wait = failure.retry_after
            if wait is None:
                wait = settings.first_wait * 2**attempt * random.uniform(0.5, 1)  # noqa: S311
            if not failure.transient or attempt == settings.retries or time.monotonic() + wait >= deadline:
                raise
            logger.info("%s Trying again in %.1f s.", failure, wait)
        time.sleep(wait)
        attempt += 1


def _checked(provider: Provider, answer: object, count: int) -> Float32:
    """`answer` as [count, dimension] float32 if it is that; makes the provider's dimension known."""

    def refuse(reason: str) -> ProviderFailed:
        return ProviderFailed(provider.name, f"the model {provider.model!r} {reason}")

    try:
        vectors = to_float32(answer)
    except (TypeError, ValueError):
        raise refuse("answered with something that is no matrix of numbers") from None
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise refuse(f"answered with an array of shape {vectors.shape}, not [texts, dimension]")
    if len(vectors) != count:
        raise refuse(f"answered {count:,} texts with {len(vectors):,} vectors")
    if provider.dimension not in (None, vectors.shape[1]):
        raise refuse(f"answered with vectors of {vectors.shape[1]} components; before they had {provider.dimension}")
    try:
        check(vectors, Metric.COSINE)
    except InvalidVector as error:
        raise refuse(f"answered with a vector that cannot be used: it {error.reason}") from None
    provider.dimension = vectors.shape[1]
    return vectors
