"""`embed`: texts to vectors that can be stored and searched, or an error that says why not.

What always holds: one vector a text, in order, of the model's one dimension, float32, finite, bounded, none of them
zero.

A failure that may pass is tried again, after the time that the provider named or a wait that doubles, less up to a half
by chance. No attempt and no wait begins that the overall time-out has no room for; the libraries of providers do not
retry, as they know nothing of that time-out.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from apps.embeddings.config import Config, config
from apps.embeddings.errors import ProviderFailed, TextRefused
from apps.embeddings.provider import Kind, Provider, batches
from apps.embeddings.registry import provider
from apps.engine.errors import InvalidVector
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, check, to_float32
from apps.telemetry import metrics

logger = logging.getLogger(__name__)

# A thousand queries of dimension 1,536 with such texts take some 14 MB.
MAX_CACHED_CHARACTERS = 2000
# Of a request: a provider that refuses more of its texts takes none.
MOST_REFUSED = 20


def embed(provider_name: str, model: str, texts: Sequence[str], kind: Kind) -> Float32:
    """The vectors [n, dimension] of n texts by the provider's model; of no texts, [0, dimension], or [0, 0] while the
    dimension is not known. The vector of a single query may come from a cache, and is read-only then.

    Raises UnknownProvider, UnknownModel, TextRefused, NotInstalled and ProviderFailed.
    """
    settings = config()
    if kind == "query" and len(texts) == 1 and len(texts[0]) <= MAX_CACHED_CHARACTERS:
        metrics.EMBEDDING_CACHE_LOOKUPS.add()
        return query_embedder(settings)(provider_name, model, texts[0])
    with_model = provider(provider_name, model)
    if not texts:
        return np.empty((0, with_model.dimension or 0), np.float32)
    return embed_with(with_model, texts, kind, settings)


def find_refused(provider_name: str, model: str, texts: Sequence[str], kind: Kind) -> dict[str, TextRefused]:
    """Which of `texts`, different ones that the provider refuses together, it refuses, and why.

    Halves are asked for again, so one text of a thousand costs ten requests, and the texts once more. No more than
    MOST_REFUSED are found, and none after the time-out. Raises as `embed`, but for TextRefused.
    """
    found: dict[str, TextRefused] = {}
    deadline = time.monotonic() + config().timeout
    pending = [texts]
    while pending and len(found) < MOST_REFUSED and time.monotonic() < deadline:
        some = pending.pop()
        try:
            embed(provider_name, model, some, kind)
        except TextRefused as error:
            if len(some) == 1:
                found[some[0]] = error
            else:
                middle = len(some) // 2
                pending += [some[middle:], some[:middle]]
    return found


@lru_cache(maxsize=1)
def query_embedder(settings: Config) -> Callable[[str, str, str], Float32]:
    """A function (provider, model, text) -> vector [1, dimension] that caches the vectors used last: people page,
    refine filters and repeat themselves."""

    @lru_cache(maxsize=settings.query_cache_size)
    def embed_query(provider_name: str, model: str, text: str) -> Float32:
        metrics.EMBEDDING_CACHE_MISSES.add()
        vector = embed_with(provider(provider_name, model), [text], "query", settings)
        vector.flags.writeable = False
        return vector

    return embed_query


def embed_with(provider: Provider, texts: Sequence[str], kind: Kind, settings: Config) -> Float32:
    """The vectors [n, dimension] of n >= 1 texts, never from the cache; raises as `embed`."""
    deadline = time.monotonic() + settings.timeout
    matrices: list[Float32] = []
    for batch in batches(texts, provider.max_batch, provider.max_batch_characters):
        if matrices and time.monotonic() >= deadline:
            done = sum(map(len, matrices))
            reason = (
                f"{done:,} of {len(texts):,} texts were embedded when the time-out of {settings.timeout:g} s was over"
            )
            raise ProviderFailed(provider.name, f"{reason}; send fewer texts at once", transient=True)
        matrices.append(_embed_batch(provider, batch, kind, settings, deadline))
    return np.concatenate(matrices)


def _embed_batch(provider: Provider, texts: Sequence[str], kind: Kind, settings: Config, deadline: float) -> Float32:
    attempt = 0
    while True:
        try:
            return _call(provider, texts, kind, max(deadline - time.monotonic(), 0.001))
        except ProviderFailed as failure:
            wait = failure.retry_after
            if wait is None:
                wait = settings.first_wait * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 # nosec B311
            if not failure.transient or attempt == settings.retries or time.monotonic() + wait >= deadline:
                raise
            logger.info("%s Trying again in %.1f s.", failure, wait)
        time.sleep(wait)
        attempt += 1


def _call(provider: Provider, texts: Sequence[str], kind: Kind, seconds: float) -> Float32:
    outcome = "failed"
    try:
        with metrics.EMBEDDING_SECONDS.time(provider.name):
            vectors = _check_result(provider, provider.embed(texts, kind, seconds), len(texts))
        outcome = "ok"
        metrics.EMBEDDED_TEXTS.add(len(texts), provider.name)
    finally:
        metrics.EMBEDDING_CALLS.add(1, provider.name, outcome)
    return vectors


def _check_result(provider: Provider, result: object, count: int) -> Float32:
    """`result` as [count, dimension] float32 if it is that; makes the provider's dimension known."""

    def failure(reason: str) -> ProviderFailed:
        return ProviderFailed(provider.name, f"the model {provider.model!r} answered {reason}")

    try:
        vectors = to_float32(result)
    except (TypeError, ValueError):
        raise failure("with something that is no matrix of numbers") from None
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise failure(f"with an array of shape {vectors.shape}, not [texts, dimension]")
    if len(vectors) != count:
        raise failure(f"{count:,} texts with {len(vectors):,} vectors")
    if provider.dimension not in (None, vectors.shape[1]):
        raise failure(f"with vectors of {vectors.shape[1]} components; before they had {provider.dimension}")
    try:
        check(vectors, Metric.COSINE)
    except InvalidVector as error:
        raise failure(f"with a vector that cannot be used: it {error.reason}") from None
    provider.dimension = vectors.shape[1]
    return vectors
