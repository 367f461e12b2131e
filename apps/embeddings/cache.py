"""The vectors of recent queries: people page, refine filters and repeat themselves, and a provider takes its time.

What always holds: an array in the cache is read-only, and there are at most as many as the settings say. A text of more
than 2,000 characters is not kept, so that a thousand queries of dimension 1,536 take at most some 14 MB.
"""

import os
import threading
from collections import OrderedDict
from typing import NamedTuple

from apps.embeddings.config import Config
from apps.engine.vectors import Float32

LONGEST_TEXT = 2000


class Key(NamedTuple):
    """What a vector depends on."""

    config: Config
    provider: str
    model: str
    text: str


class QueryCache:
    """Vectors [1, dimension] by key; past the size, that goes which was not used for longest. Threads may share it."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[Key, Float32] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: Key) -> Float32 | None:
        """The vector that was put there, or None."""
        with self._lock:
            found = self._vectors.get(key)
            if found is not None:
                self._vectors.move_to_end(key)
            return found

    def put(self, key: Key, vector: Float32) -> None:
        """Keep `vector`, which the cache then owns and makes read-only."""
        vector.flags.writeable = False
        if len(key.text) > LONGEST_TEXT:
            return
        with self._lock:
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
            while len(self._vectors) > key.config.query_cache_size:
                self._vectors.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        # In a forked child the lock may be held by a thread that is not there.
        self._lock = threading.Lock()
        self._vectors.clear()


query_vectors = QueryCache()
os.register_at_fork(after_in_child=query_vectors.clear)
