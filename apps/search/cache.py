"""The views of this process, one per library, brought up to date before they answer.

What always holds: a view that is handed out is the state of the library in the snapshot it is handed out with. Readers
whose snapshot stands where the cached view stands take no lock. Who finds the view behind, or ahead, takes the
library's lock, renews the snapshot inside it and catches up: the view then cannot be ahead, so everybody who gets the
lock makes progress.

Signals of writes in this process mark a view as stale, and drop that of a deleted library, at once; that is only for
speed and memory. Correctness is the revision's, which every query reads.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from django.conf import settings

from apps.engine.storage.manifest import Manifest
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.libraries.errors import NotFound
from apps.libraries.signals import library_changed, library_deleted
from apps.search import loading
from apps.search.snapshots import LibraryState, Snapshot


@dataclass(frozen=True)
class LoadedView:
    """A view together with the state of the library that it shows. `view` is None without a dimension: no vectors.
    `manifest` says which of its segments have files; None where none has."""

    state: LibraryState
    view: View | None
    manifest: Manifest | None = None


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    current: LoadedView | None = None
    stale: bool = False
    used: float = 0.0

    def answers(self, state: LibraryState) -> LoadedView | None:
        """What is cached, if it shows the rows of `state`."""
        current = self.current
        if current is None or self.stale:
            return None
        is_same = current.state.position == state.position and current.state.vector_identity == state.vector_identity
        return current if is_same else None


class ViewCache:
    """The views of one process by library key.

    Together they hold at most `budget` bytes; past it the views go that were not used for longest, but the last one.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._entries: dict[int, _Entry] = {}
        self._budget = budget

    def current(self, snapshot: Snapshot, library_id: str) -> LoadedView:
        """The library's view in `snapshot`, which may be renewed. Raises NotFound."""
        state = _state(snapshot, library_id)
        entry = self._entries.get(state.key)
        if entry is None:
            entry = self._entries.setdefault(state.key, _Entry())
        entry.used = time.monotonic()
        cached = entry.answers(state)
        if cached is not None:
            if cached.state == state:
                return cached
            # Same rows, newer index files: who comes first opens them, the others need not wait.
            if not entry.lock.acquire(blocking=False):
                return cached
        else:
            entry.lock.acquire()
        try:
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
                if current is not None:
                    entry.current = current
                    self._keep_to_budget(entry)
                    return current
        finally:
            entry.lock.release()
        # The library was deleted, and perhaps made again, in between; or it has other vectors.
        return self.current(snapshot, library_id)

    def _keep_to_budget(self, newest: _Entry) -> None:
        """Free the views that were not used for longest."""
        if self._budget is None:
            return
        held = [(entry, entry.current) for entry in list(self._entries.values())]
        sizes = [
            (entry.used, current.view.nbytes, entry) for entry, current in held if current is not None and current.view
        ]
        total = sum(size for _, size, _ in sizes)
        for _, size, entry in sorted(sizes, key=itemgetter(0)):
            if total <= self._budget:
                return
            # An entry that is being brought up is in use.
            if entry is not newest and entry.lock.acquire(blocking=False):
                entry.current = None
                entry.lock.release()
                total -= size

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


def _brought_up(snapshot: Snapshot, state: LibraryState, cached: LoadedView | None) -> LoadedView | None:
    """The library's view in `snapshot`, which is in `state`; or in a later one, or None, as `loading.open_view`."""
    if cached is not None and cached.state == state:
        return cached
    if state.dimension is None:
        return LoadedView(state, None)
    if cached is None or cached.view is None or cached.state.vector_identity != state.vector_identity:
        return _opened(snapshot, state)
    if cached.state.manifest_number == state.manifest_number:
        if cached.state.position == state.position:
            return replace(cached, state=state)
        view = loading.catch_up(snapshot, state, cached.view, cached.state.position)
        if view is not None:
            return LoadedView(state, view, cached.manifest)
    return _opened(snapshot, state, cached.view.segments)


def _opened(snapshot: Snapshot, state: LibraryState, known: Iterable[Segment] = ()) -> LoadedView | None:
    opened = loading.open_view(snapshot, state, known)
    return None if opened is None else LoadedView(*opened)


views = ViewCache(settings.MEMORY_BUDGET)


def connect() -> None:
    """Connect the cache to the signals of writes; called once, when the apps are ready."""
    library_changed.connect(_on_library_changed, dispatch_uid="search.cache")
    library_deleted.connect(_on_library_deleted, dispatch_uid="search.cache")


def _on_library_changed(library_key: int, **kwargs: Any) -> None:
    views.invalidate(library_key)


def _on_library_deleted(library_key: int, **kwargs: Any) -> None:
    views.forget(library_key)
