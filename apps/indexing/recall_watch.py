"""The recall watch: repeats sampled queries exactly, in the maintenance process, and keeps how much was found.

A query is compared where its library's revision still holds, or none of the rows that changed since is among the hits
of either search: a row that was found by neither would have changed the share of what was found by nothing. Other
samples are stale. The recall of a query is the share of the exact k best scores that the index reached, so ties cost
nothing. The comparisons of a round take some 50 ms, or one of them; the next waits until they are a twentieth of the
time, whatever the rate of samples.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from django.conf import settings

from apps.engine.errors import EngineError
from apps.libraries.errors import LibraryError
from apps.search import recall_samples
from apps.search.cache import ViewCache
from apps.search.query.budget import RequestBudget
from apps.search.query.search import Searcher, SearchRequest
from apps.search.query.spec import EVERYTHING, Hybrid
from apps.search.recall_samples import Sample
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot
from apps.telemetry import metrics
from apps.telemetry.slots import runtime_folder

logger = logging.getLogger(__name__)

_SECONDS_OF_A_ROUND = 0.05
_SHARE_OF_TIME = 0.05
# Samples that wait, samples that make a library's recall, and libraries that have one.
_MOST_WAITING, _WINDOW, _MOST_LIBRARIES = 200, 500, 1000
# Rows changed since a query; past this, there is no saying what it would find.
_MOST_CHANGED = 1000
_ENOUGH_SAMPLES = 20
_MOST_OPEN = 20


@dataclass
class _Rolling:
    """The recall of the last queries of a library whose index is configured as `config`, and when each was compared."""

    library_id: str
    config: tuple[Any, ...]
    recalls: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    @property
    def mean(self) -> float:
        return sum(recall for _, recall in self.recalls) / len(self.recalls)


class RecallWatch:
    """Compares samples, and keeps the rolling recall of each library. `views` are those of maintenance; of those with
    fewer than `keep_view_bytes`, only the last stay open."""

    def __init__(self, views: ViewCache, keep_view_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._views, self._keep_view_bytes, self._clock = views, keep_view_bytes, clock
        self._waiting: deque[Sample] = deque(maxlen=_MOST_WAITING)
        self._not_before = 0.0
        # Keys of the libraries whose small views are open, the last one last.
        self._open: dict[int, None] = {}
        # By uid; the one that was compared last is the last.
        self._libraries: dict[str, _Rolling] = {}

    def tick(self) -> None:
        """Compare samples that were handed over, as far as it is time. Raises OSError, DatabaseError."""
        began = self._clock()
        if began < self._not_before:
            return
        self._waiting.extend(recall_samples.take())
        compared: dict[str, Sample] = {}
        while self._waiting and self._clock() - began < _SECONDS_OF_A_ROUND:
            sample = self._waiting.popleft()
            result = "compared" if self._compare(sample) else "stale"
            metrics.RECALL_SAMPLES.add(1, result)
            compared[sample.uid] = sample
        if compared:
            self._not_before = self._clock() + (self._clock() - began) / _SHARE_OF_TIME
            self._tell(compared.keys())

    def _compare(self, sample: Sample) -> bool:
        with open_snapshot() as snapshot:
            try:
                current = self._views.current(snapshot, sample.library_id)
                state, view = current.state, current.view
                changed = _changed_since(snapshot, state, sample)
                if changed is None:
                    return False
                if view.nbytes > settings.MEMORY_BUDGET:
                    return False  # a scan of it would take the memory that the workers' queries need
                searcher = Searcher(view.at(sample.now), RequestBudget(), snapshot, state.unindexed)
                [exact] = searcher.search([_exact_request(sample)])
            except (LibraryError, EngineError):
                return False  # it was deleted, or has other vectors
            if not exact.keys or not changed.isdisjoint(sample.keys) or not changed.isdisjoint(exact.keys):
                return False
        if view.nbytes < self._keep_view_bytes:
            self._keep_open(state.key)
        found = sum(score >= exact.scores[-1] for score in sample.scores)
        self._rolling(state).recalls.append((time.time(), min(1.0, found / len(exact.scores))))
        return True

    def _keep_open(self, library_key: int) -> None:
        """Close the small view that was not used for longest, where too many are open."""
        self._open.pop(library_key, None)
        self._open[library_key] = None
        if len(self._open) > _MOST_OPEN:
            oldest = next(iter(self._open))
            del self._open[oldest]
            self._views.forget(oldest)

    def _rolling(self, state: LibraryState) -> _Rolling:
        """Where the recall of the library is kept, which starts from nothing with another index."""
        config = state.index_type, state.params, state.rebuild, state.generation
        found = self._libraries.pop(state.uid, None)
        if found is None or found.config != config:
            found = _Rolling(state.public_id, config)
        self._libraries[state.uid] = found
        if len(self._libraries) > _MOST_LIBRARIES:
            uid = next(iter(self._libraries))
            del self._libraries[uid]
            with contextlib.suppress(OSError):
                _path(uid).unlink()
        return found

    def _tell(self, uids: Any) -> None:
        """Let statistics and metrics have the recall."""
        for uid in uids & self._libraries.keys():
            rolling = self._libraries[uid]
            content = {
                "samples": len(rolling.recalls),
                "recall_at_k": round(rolling.mean, 4),
                "since": rolling.recalls[0][0],
            }
            path = _path(uid)
            draft = path.with_suffix(".draft")
            draft.write_bytes(orjson.dumps(content))
            draft.replace(path)
        known = [one for one in self._libraries.values() if len(one.recalls) >= _ENOUGH_SAMPLES]
        metrics.LOWEST_RECALL.replace({(): min(one.mean for one in known)} if known else {})
        lowest = sorted(known, key=lambda one: one.mean)[: settings.METRICS_LIBRARIES]
        metrics.LIBRARY_RECALL.replace({(one.library_id,): one.mean for one in lowest})


def recall_of(uid: str) -> dict[str, Any] | None:
    """The rolling recall of a library: `samples`, `recall_at_k`, `since` in seconds since the epoch; None where there
    is none."""
    try:
        content: dict[str, Any] = orjson.loads(_path(uid).read_bytes())
    except (OSError, ValueError):
        return None
    return content


def _path(uid: str) -> Any:
    folder = runtime_folder() / "recall"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{uid}.json"


def _exact_request(sample: Sample) -> SearchRequest:
    return SearchRequest(
        fetch=sample.k,
        mode="vector",
        vector=sample.vector,
        words=None,
        filter=sample.filter,
        filter_mode="pre",
        exact=True,
        params={},
        hybrid=Hybrid(),
        left_out=sample.left_out,
        within=EVERYTHING,
    )


def _changed_since(snapshot: Snapshot, state: LibraryState, sample: Sample) -> set[int] | None:
    """The keys of rows that changed since a query; None where that is not known, or too many did."""
    if (state.uid, state.generation) != (sample.uid, sample.generation):
        return None
    if state.position == sample.position:
        return set()
    if not snapshot.has(state.key, sample.position):
        return None
    rows = snapshot.rows(
        "SELECT DISTINCT chunk_key FROM vectordb_change WHERE library_key = %s AND seq > %s LIMIT %s",
        [state.key, sample.position.seq, _MOST_CHANGED + 1],
    )
    return {key for (key,) in rows} if len(rows) <= _MOST_CHANGED else None
