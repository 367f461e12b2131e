"""The views of this process, one per library, brought up to date before they answer.

What always holds: a view that is handed out is the state of the library in the snapshot it is handed out with. Readers
whose snapshot stands where the cached view stands take no lock. Who finds the view behind, or ahead, takes the
library's lock, renews the snapshot inside it and catches up: the view then cannot be ahead, so everybody who gets the
lock makes progress.

Signals of writes in this process mark a view as stale, and drop that of a deleted library, at once; that is only for
speed and memory. Correctness is the revision's, which every query reads.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

from apps.engine.view import View
from apps.libraries.errors import NotFound
from apps.libraries.signals import library_changed, library_deleted
from apps.search import loading
from apps.search.snapshots import LibraryState, Snapshot


@dataclass(frozen=True)
class Current:
    """A view together with the state of the library that it shows. `view` is None without a dimension: no vectors."""

    state: LibraryState
    view: View | None


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    current: Current | None = None
    stale: bool = False


class ViewCache:
    """The views of one process by library key."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def current(self, snapshot: Snapshot, library_id: str) -> Current:
        """The library's view in `snapshot`, which may be renewed. Raises NotFound."""
        state = _state(snapshot, library_id)
        entry = self._entries.get(state.key)
        if entry is None:
            entry = self._entries.setdefault(state.key, _Entry())
        cached = entry.current
        if cached is not None and not entry.stale and cached.state == state:
            return cached
        with entry.lock:
            entry.stale = False
            snapshot.renew()
            fresh = _state(snapshot, library_id)
            if fresh.key == state.key:
                if entry.current is None:
                    self._forget_deleted(snapshot)
                try:
                    current = _brought_up(snapshot, fresh, entry.current)
                except BaseException:
                    # The step may have touched the tail that the old view shares: load all anew.
                    entry.current = None
                    raise
                entry.current = current
                return current
        # The library was deleted and made again in between.
        return self.current(snapshot, library_id)

    def invalidate(self, library_key: int) -> None:
        """Let the next query catch the library up without looking whether it must."""
        entry = self._entries.get(library_key)
        if entry is not None:
            entry.stale = True

    def forget(self, library_key: int) -> None:
        """Free what is held for a library."""
        self._entries.pop(library_key, None)

    def _forget_deleted(self, snapshot: Snapshot) -> None:
        """Free what is held for libraries that another process has deleted."""
        for key in self._entries.keys() - snapshot.library_keys():
            self.forget(key)


def _state(snapshot: Snapshot, library_id: str) -> LibraryState:
    state = snapshot.library(library_id)
    if state is None:
        raise NotFound(f"There is no library {library_id!r}.")
    return state


def _brought_up(snapshot: Snapshot, state: LibraryState, cached: Current | None) -> Current:
    if cached is not None and cached.state == state:
        return cached
    if state.dimension is None:
        return Current(state, None)
    if cached is None or cached.view is None or not _same_index(cached.state, state):
        return Current(state, loading.load(snapshot, state))
    return Current(state, loading.catch_up(snapshot, state, cached.view, cached.state.position))


def _same_index(old: LibraryState, new: LibraryState) -> bool:
    """Whether views of both states differ by logged changes only."""
    return (old.uid, old.dimension, old.metric, old.index_type, old.generation) == (
        new.uid,
        new.dimension,
        new.metric,
        new.index_type,
        new.generation,
    )


views = ViewCache()


def connect() -> None:
    """Connect the cache to the signals of writes; called once, when the apps are ready."""
    library_changed.connect(_on_library_changed, dispatch_uid="search.cache")
    library_deleted.connect(_on_library_deleted, dispatch_uid="search.cache")


def _on_library_changed(library_key: int, **kwargs: Any) -> None:
    views.invalidate(library_key)


def _on_library_deleted(library_key: int, **kwargs: Any) -> None:
    views.forget(library_key)
