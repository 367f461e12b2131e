"""The views of this process, one per library, brought up to date before they answer.

A view that is handed out is the state of the library in the snapshot it is handed out with. Readers whose snapshot
stands where the cached view stands take no lock. A reader that finds the view behind, or ahead, takes the library's
lock, renews the snapshot inside it and catches up: the view then cannot be ahead, so everyone who gets the lock makes
progress.

Signals of writes in this process mark a view as stale, and drop that of a deleted library, at once. That is only for
speed and memory: what is correct depends on the revision, which every query reads.

A process may hold the views of thousands of libraries. So what one of them costs must not depend on their number: all
are looked at once for half as many steps as there are views.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings

from apps.engine.storage.memory import COMPONENTS, Bytes, memory
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
    # What the view took up when it was measured last: in all, and by component.
    nbytes: int = 0
    components: Mapping[str, Bytes] = field(default_factory=dict)

    def of(self, state: LibraryState) -> LoadedView | None:
        """What is cached, if it shows the rows of `state`."""
        current = self.current
        if current is None or self.stale:
            return None
        if current.state is state:
            return current
        is_same = current.state.position == state.position and current.state.vector_identity == state.vector_identity
        return current if is_same else None


class ViewCache:
    """The views of one process by library key.

    Together they hold at most `budget` bytes: beyond, those that were not used for longest are freed, but the newest.
    """

    def __init__(self, budget: int | None = None, policy: LoadingPolicy = DEFAULT_POLICY) -> None:
        # The one that was used last is the last. An entry in use may be in here no more; it is not counted then.
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._budget, self._policy = budget, policy
        # Of the fields below, and of the order above; held for no longer than it takes to change them.
        self._mutex = threading.Lock()
        self._held_bytes = 0
        # By component, and whether it is in mapped files.
        self._held: dict[Labels, float] = {(name, storage): 0 for name in COMPONENTS for storage in Bytes._fields}
        self._steps = 0
        self._has_opened = False

    def current(self, snapshot: Snapshot, library_id: str) -> LoadedView:
        """The library's view in `snapshot`, which may be renewed. Raises NotFound."""
        while True:
            state = snapshot.existing_library(library_id)
            entry = self._entry(state.key)
            cached = entry.of(state)
            if cached is not None and (cached.state is state or cached.state == state):
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

    def _entry(self, library_key: int) -> _Entry:
        """The entry of a library, which is used now."""
        with self._mutex:
            entry = self._entries.get(library_key)
            if entry is None:
                entry = self._entries[library_key] = _Entry()
            self._entries.move_to_end(library_key)
            return entry

    def _bring_up_to_date(self, entry: _Entry, snapshot: Snapshot, state: LibraryState) -> LoadedView | None:
        """Load the library, which is in `state` in `snapshot`, or catch its view up; None as `open_view`."""
        is_new = entry.current is None
        try:
            current = _load(snapshot, state, entry.current, self._policy)
        except BaseException:
            # The step may have touched the tail that the old view shares.
            entry.current = None
            self.forget(state.key)
            raise
        if current is not None:
            entry.current = current
            if self._count(state.key, entry, is_new=is_new):
                self._review(snapshot)
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

    def _count(self, library_key: int, entry: _Entry, *, is_new: bool) -> bool:
        """Count what an entry holds now; return True if it is time to look at all."""
        self._measure(library_key, entry)
        with self._mutex:
            self._steps += 1
            self._has_opened |= is_new
            return 2 * self._steps >= len(self._entries)

    def _measure(self, library_key: int, entry: _Entry) -> None:
        with self._mutex:
            if self._entries.get(library_key) is entry and (current := entry.current) is not None:
                self._add(entry, -1)
                entry.nbytes, entry.components = current.view.nbytes, memory(current.view)
                self._add(entry, 1)

    def _add(self, entry: _Entry, sign: int) -> None:
        """Add what an entry holds to the sums, or take it out."""
        self._held_bytes += sign * entry.nbytes
        for name, size in entry.components.items():
            self._held[name, "mapped"] += sign * size.mapped
            self._held[name, "private"] += sign * size.private

    def _review(self, snapshot: Snapshot) -> None:
        """Free the views of libraries that another process has deleted, and measure the others: they grow by what they
        are asked."""
        with self._mutex:
            entries = dict(self._entries)
            has_opened, self._steps, self._has_opened = self._has_opened, 0, False
        if has_opened:
            for key in entries.keys() - snapshot.existing_keys(entries):
                self.forget(key)
        for key, entry in entries.items():
            self._measure(key, entry)

    def _keep_to_budget(self, newest: _Entry) -> None:
        """Free the views that were not used for longest."""
        if self._budget is None:
            return
        with self._mutex:
            for _ in range(len(self._entries)):
                if self._held_bytes <= self._budget:
                    break
                key, entry = next(iter(self._entries.items()))
                if entry is not newest and entry.lock.acquire(blocking=False):
                    self._add(self._entries.pop(key), -1)
                    entry.lock.release()
                    metrics.VIEWS_FREED.add()
                else:
                    # One that is being brought up to date is in use.
                    self._entries.move_to_end(key)

    def set_gauges(self) -> None:
        """Set what metrics tell of the views of this process."""
        with self._mutex:
            count, held = len(self._entries), dict(self._held)
        metrics.VIEWS.set(count)
        metrics.VIEW_BYTES.replace(held)

    def invalidate(self, library_key: int, **signal: Any) -> None:
        """Let the next query catch the library up without looking whether it must."""
        entry = self._entries.get(library_key)
        if entry is not None:
            entry.stale = True

    def forget(self, library_key: int, **signal: Any) -> None:
        """Free what is held for a library."""
        with self._mutex:
            entry = self._entries.pop(library_key, None)
            if entry is not None:
                self._add(entry, -1)


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
