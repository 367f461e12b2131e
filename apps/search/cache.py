"""The views of this process, one per library, brought up to date before they answer.

A view that is handed out is the state of the library in the snapshot it is handed out with. Readers whose snapshot
stands where the cached view stands take no lock. A reader that finds the view behind, or ahead, takes the library's
lock, renews the snapshot inside it and catches up: the view then cannot be ahead, so everyone who gets the lock makes
progress.

Signals of writes in this process mark a view as stale, and drop that of a deleted library, at once. That is only for
speed and memory: what is correct depends on the revision, which every query reads.
"""

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from apps.engine.storage.memory import COMPONENTS, Bytes, memory
from apps.engine.storage.view import View
from apps.libraries.signals import library_changed, library_deleted
from apps.search.loading import DEFAULT_POLICY, LoadedView, LoadingPolicy, catch_up, open_view
from apps.search.snapshots import LibraryState, Snapshot
from apps.telemetry import metrics
from apps.telemetry.instruments import Labels


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    current: LoadedView | None = None
    stale: bool = False
    used: float = 0.0

    def of(self, state: LibraryState) -> LoadedView | None:
        """What is cached, if it shows the rows of `state`."""
        current = self.current
        if current is None or self.stale:
            return None
        is_same = current.state.position == state.position and current.state.vector_identity == state.vector_identity
        return current if is_same else None


class ViewCache:
    """The views of one process by library key.

    Together they hold at most `budget` bytes: beyond, those that were not used for longest are freed, but the newest.
    """

    def __init__(self, budget: int | None = None, policy: LoadingPolicy = DEFAULT_POLICY) -> None:
        self._entries: dict[int, _Entry] = {}
        self._budget, self._policy = budget, policy
        # By key, the views that were measured last, and what they take up.
        self._measured: dict[int, tuple[View, dict[str, Bytes]]] = {}

    def current(self, snapshot: Snapshot, library_id: str) -> LoadedView:
        """The library's view in `snapshot`, which may be renewed. Raises NotFound."""
        while True:
            state = snapshot.existing_library(library_id)
            entry = self._entries.get(state.key) or self._entries.setdefault(state.key, _Entry())
            entry.used = time.monotonic()
            cached = entry.of(state)
            if cached is not None and cached.state == state:
                metrics.VIEW_LOOKUPS.add(1, "current")
                return cached
            # Same rows, newer index files: the first reader opens them, the others need not wait.
            if not self._lock(entry, cached is None) and cached is not None:
                metrics.VIEW_LOOKUPS.add(1, "current")
                return replace(cached, state=replace(state, manifest_number=cached.state.manifest_number))
            try:
                entry.stale = False
                snapshot.renew()
                fresh = snapshot.existing_library(library_id)
                current = self._bring_up_to_date(entry, snapshot, fresh) if fresh.key == state.key else None
            finally:
                entry.lock.release()
            if current is not None:
                return current
            # The library was deleted, and perhaps made again, in between; or it has other vectors.

    def _bring_up_to_date(self, entry: _Entry, snapshot: Snapshot, state: LibraryState) -> LoadedView | None:
        """Load the library, which is in `state` in `snapshot`, or catch its view up; None as `open_view`."""
        if entry.current is None:
            # Another process may have deleted some.
            for key in self._entries.keys() - snapshot.library_keys():
                self.forget(key)
        try:
            current = _load(snapshot, state, entry.current, self._policy)
        except BaseException:
            # The step may have touched the tail that the old view shares.
            entry.current = None
            raise
        if current is not None:
            entry.current = current
            self._keep_to_budget(entry)
        return current

    def _lock(self, entry: _Entry, must_wait: bool) -> bool:
        """Take the lock of an entry, if it is free or this `must_wait` for it."""
        if entry.lock.acquire(blocking=False):
            return True
        if must_wait:
            with metrics.LOCK_SECONDS.time("view"):
                entry.lock.acquire()
        return must_wait

    def _keep_to_budget(self, newest: _Entry) -> None:
        """Free the views that were not used for longest."""
        if self._budget is None:
            return
        held = [(entry, entry.current) for entry in list(self._entries.values())]
        sizes = [(entry, current.view.nbytes) for entry, current in held if current]
        total = sum(size for _, size in sizes)
        for entry, size in sorted(sizes, key=lambda one: one[0].used):
            if total <= self._budget:
                return
            # An entry that is being brought up to date is in use.
            if entry is not newest and entry.lock.acquire(blocking=False):
                entry.current = None
                entry.lock.release()
                total -= size
                metrics.VIEWS_FREED.add()

    def set_gauges(self) -> None:
        """Set what metrics tell of the views of this process."""
        held = {key: current.view for key, entry in list(self._entries.items()) if (current := entry.current)}
        before, self._measured = self._measured, {}
        for key, view in held.items():
            known = before.get(key)
            self._measured[key] = known if known is not None and known[0] is view else (view, memory(view))
        sizes: dict[Labels, float] = {(name, storage): 0 for name in COMPONENTS for storage in Bytes._fields}
        for _, found in self._measured.values():
            for name, size in found.items():
                sizes[name, "mapped"] += size.mapped
                sizes[name, "private"] += size.private
        metrics.VIEWS.set(len(held))
        metrics.VIEW_BYTES.replace(sizes)

    def invalidate(self, library_key: int, **signal: Any) -> None:
        """Let the next query catch the library up without looking whether it must."""
        entry = self._entries.get(library_key)
        if entry is not None:
            entry.stale = True

    def forget(self, library_key: int, **signal: Any) -> None:
        """Free what is held for a library."""
        self._entries.pop(library_key, None)


def _load(
    snapshot: Snapshot, state: LibraryState, cached: LoadedView | None, policy: LoadingPolicy
) -> LoadedView | None:
    """The library's view in `snapshot`, which is in `state`, made from `cached` where that is possible."""
    if cached is None or cached.state.vector_identity != state.vector_identity:
        metrics.VIEW_LOOKUPS.add(1, "opened")
        return open_view(snapshot, state, policy=policy)
    if cached.state.manifest_number == state.manifest_number:
        if cached.state.position == state.position:
            return replace(cached, state=state) if cached.state != state else cached
        view = catch_up(snapshot, state, cached.view, cached.state.position, policy)
        if view is not None:
            metrics.VIEW_LOOKUPS.add(1, "caught_up")
            return LoadedView(state, view, cached.manifest)
    metrics.VIEW_LOOKUPS.add(1, "opened")
    return open_view(snapshot, state, cached.view.segments, policy)


views = ViewCache(settings.MEMORY_BUDGET)


def connect() -> None:
    """Connect the cache to the signals of writes; called once, when the apps are ready."""
    library_changed.connect(views.invalidate, dispatch_uid="search.cache")
    library_deleted.connect(views.forget, dispatch_uid="search.cache")
