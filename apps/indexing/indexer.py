"""Keeps the index files of all libraries in shape, in one process beside the request workers.

    tick              reads what changed, and takes the libraries where something may be due
    maintain_library  asks `merge_policy` for the next step: rebuild, seal, announce or merge
    commit            writes the manifest, and announces it to all processes

Merges run in threads while sealing goes on, one slow and one quick at a time, never two on the same segment. The result
of one that could not be committed, as on a full disk, is kept and committed later.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf

from django.conf import settings
from django.db import DatabaseError

from apps.engine.errors import EngineError
from apps.engine.storage.index_folder import SECONDS_KEPT, damaged_libraries, folder_names, sweep_libraries
from apps.indexing import commit, gauges
from apps.indexing.change_feed import ChangeFeed
from apps.indexing.merge import Merge
from apps.indexing.merge_policy import (
    IndexStatus,
    SegmentSummary,
    Step,
    is_slow_merge,
    merge_candidates,
    next_step,
    read_status,
    sealed_segments,
    status_of,
)
from apps.indexing.policy import DEFAULT_POLICY, IndexingPolicy
from apps.indexing.state import Failure, MaintenanceState, failure_after
from apps.libraries.dialects import note_if_damaged
from apps.libraries.errors import NotFound
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView, identity_of, index_folder, load_in_steps
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot
from apps.telemetry import metrics

logger = logging.getLogger(__name__)

TRANSIENT_ERRORS = (OSError, MemoryError, DatabaseError)
_NO_TRACEBACK = (EngineError, RuntimeError, *TRANSIENT_ERRORS)


class Indexer:
    """Maintains the index files of all libraries; there must be one at a time for a data folder.

    `clock` gives seconds. `on_merge_end` is called, in another thread, when the next tick has a merge to commit.
    """

    def __init__(
        self,
        policy: IndexingPolicy = DEFAULT_POLICY,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_merge_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._policy, self._clock, self._on_merge_end = policy, clock, on_merge_end
        self.views = ViewCache(settings.MEMORY_BUDGET)
        self._feed = ChangeFeed()
        # What is known of each library, by uid, in order of creation.
        self.libraries: dict[str, MaintenanceState] = {}
        # Merges by whether they are slow, so that minutes of one library hold up no seconds of another.
        self.running: dict[bool, Merge] = {}
        # Merges whose commit failed; each holds its segment in memory until that succeeds.
        self.uncommitted: list[Merge] = []

    def tick(self, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do one step for each library where something is due, until `is_stopped`. Return True if something was done.
        Merges run on afterwards."""
        did = self._finish_merges()
        self._read_changes()
        has_looked = False
        now = self._clock()
        for library in [one for one in self.libraries.values() if one.next_look <= now or one.sweep_at <= now]:
            now = self._clock()
            if library.sweep_at <= now:
                self._sweep(library)
            if library.next_look <= now and not is_stopped():
                did |= self.maintain_library(library, idle=now - library.changed_at)
                has_looked = True
        if has_looked:
            gauges.set_gauges(self.libraries.values())
        return did

    def run_until_done(self, library_id: str, is_stopped: Callable[[], bool] = lambda: False) -> str | None:
        """Do all steps for one library, however busy it is, or until `is_stopped`. Return why one failed, or None."""
        while not is_stopped():
            did = self._finish_merges()
            self._read_changes()
            for library in [one for one in self.libraries.values() if one.library.public_id == library_id]:
                did |= library.reason is None and self.maintain_library(library, idle=inf)
                if library.reason is not None:
                    return library.reason
            if not did and not self.running:
                break
            for merge in self.running.values():
                with contextlib.suppress(TimeoutError):
                    merge.future.exception(self._policy.tick_seconds)
        return None

    def run_all_until_done(self, is_stopped: Callable[[], bool]) -> bool:
        """Do all steps for every library, one after the other, or until `is_stopped`. Return True if all is done; the
        log says what failed."""
        self._read_changes()
        ids = [library.library.public_id for library in self.libraries.values()]
        reasons = [self.run_until_done(library_id, is_stopped) for library_id in ids]
        return not is_stopped() and not any(reasons)

    def sweep(self) -> None:
        """Delete files that nothing refers to, and find libraries whose files are not as they were opened: the next
        tick repairs these. Looks at all libraries."""
        for merge in self.uncommitted:
            # Nothing refers to its files yet; they must not look old.
            with contextlib.suppress(OSError):
                os.utime(settings.INDEX_DIR / merge.state.uid / "segments" / merge.future.result()[1].name)
        self._read_changes(everything=True)
        now, with_folder = self._clock(), folder_names(settings.INDEX_DIR)
        for library in self.libraries.values():
            state = library.library
            if (state.manifest_number or state.rebuild) and not library.has_files():
                library.next_look = now
            if state.uid in with_folder and library.swept_at < library.worked_at + SECONDS_KEPT:
                self._sweep(library)
        sweep_libraries(settings.INDEX_DIR, self._feed.uids)

    def maintain_library(self, library: MaintenanceState, idle: float) -> bool:
        """Do the step that is due for a library to which nobody has written for `idle` seconds, and set when to look at
        it next. Return True if something was done. An error is recorded: one library must not hold up the others."""
        state, now = library.library, self._clock()
        if library.failure is not None and library.failure.blocks(state, now):
            library.next_look = library.failure.not_before
            return False
        try:
            did = self._do_next_step(library, idle)
        except NotFound:
            library.next_look = inf  # it was deleted just now
            return False
        except Exception as error:
            metrics.MAINTENANCE_FAILURES.add(1, "seal")
            library.failure = self._record_failure(state, library.failure, error)
            library.next_look = library.failure.not_before
            return False
        if library.failure is not None:
            library.failure = None
            index_folder(state.uid).note_failure(library.reason)
        if did:
            library.note_work(self._clock())
        return did

    def _sweep(self, library: MaintenanceState) -> None:
        index_folder(library.library.uid).sweep(identity_of(library.library))
        library.note_sweep(self._clock())

    def _do_next_step(self, library: MaintenanceState, idle: float) -> bool:
        index = self._read_status(library)
        library.unsealed = index.unsealed
        step = next_step(index, idle, self._policy)
        if step is Step.MERGE:
            return self._begin_merge(library, index, idle)
        if step is Step.ANNOUNCE and index.manifest is not None:
            commit.announce(index.state, index.manifest)
        elif step is not None:
            with metrics.SEAL_SECONDS.time():
                self._seal(library, from_rows=step is Step.REBUILD)
        else:
            if not any(merge.state.uid == library.library.uid for merge in self._merges()):
                library.merge_failure = None
                index_folder(library.library.uid).note_failure(None)
            if library.view_bytes < self._policy.keep_view_bytes:
                self.views.forget(library.library.key)
            self._wait(library, index, idle)
        return step is not None

    def _read_changes(self, *, everything: bool = False) -> None:
        """Take over what changed in the database, and what others found damaged. Forget deleted libraries, and cancel
        merges that nobody needs any more."""
        with open_snapshot() as snapshot:
            changes = self._feed.read(snapshot, everything=everything)
        now = self._clock()
        for state in changes.states:
            if state.uid in self.libraries:
                self.libraries[state.uid].update(state, now)
            else:
                self.libraries[state.uid] = MaintenanceState(state, changed_at=now, next_look=now, worked_at=now)
        for uid in changes.deleted:
            self.libraries.pop(uid, None)
        for uid in damaged_libraries(settings.INDEX_DIR) & self.libraries.keys():
            self.libraries[uid].next_look = now
        for merge in self._merges():
            library = self.libraries.get(merge.state.uid)
            if not merge.is_cancelled and (library is None or not merge.matches(library.library)):
                merge.cancel()
                why = "the library is deleted" if library is None else "the index configuration has changed"
                logger.info("index of library %s: a merge is cancelled: %s", merge.state.public_id, why)

    def _read_status(self, library: MaintenanceState) -> IndexStatus:
        """What decides which step is due, without the segments that are being merged. Opens no file that is as it was
        when it was opened last, and loads no rows of a library that has no files: memory may have no place for them."""
        state, folder, known = library.library, index_folder(library.library.uid), library.manifest
        newest = max(folder.numbers(), default=0)
        with open_snapshot() as snapshot:
            if not (state.manifest_number or state.rebuild or newest):
                return read_status(snapshot, state, None, 0, (), self._policy)
            is_newest = known is not None and known.number == state.manifest_number == newest
            if known is not None and is_newest and folder.damage() is None and library.has_files():
                return read_status(snapshot, state, known, newest, self._free(library), self._policy)
            index = status_of(snapshot, self._open(snapshot, library), folder, self._policy)
        # A manifest was announced that was here, and is not any more. One that never was here is another host's.
        is_lost = index.newest < index.state.manifest_number == library.greatest
        return replace(index, segments=self._free(library), is_lost=is_lost)

    def _merges(self) -> list[Merge]:
        """Merges that run, and those whose results wait to be committed."""
        return [*self.running.values(), *self.uncommitted]

    def _free(self, library: MaintenanceState) -> tuple[SegmentSummary, ...]:
        """The library's segments that no merge takes as input. A cancelled merge takes none."""
        taken = {one.name for merge in self._merges() if not merge.is_cancelled for one in merge.inputs}
        return tuple(segment for segment in library.segments if segment.name not in taken)

    def _wait(self, library: MaintenanceState, index: IndexStatus, idle: float, until: float = inf) -> None:
        """Look at the library again when it is idle enough for a step, or at `until`, if that is earlier. Changes and
        the end of a merge come before."""
        later = [seconds for seconds in (self._policy.quiet_seconds, self._policy.very_quiet_seconds) if seconds > idle]
        due = [library.changed_at + seconds for seconds in later if next_step(index, seconds, self._policy)]
        library.next_look = min([until, *due])

    def _open(self, snapshot: Snapshot, library: MaintenanceState) -> LoadedView:
        """The library's view, from files that are as they were when they were opened, and that nobody has found
        damaged; else it is opened again."""
        state, folder = library.library, index_folder(library.library.uid)
        damage, numbers = folder.damage(), folder.numbers()
        if library.manifest is not None and not numbers:
            logger.warning("index of library %s: files are gone; they are rebuilt", state.public_id)
        if damage is not None or (library.manifest is not None and not library.has_files()):
            self.views.forget(state.key)
        current = self.views.current(snapshot, state.public_id)
        if damage is not None and current.manifest is not None and current.manifest.number == max(numbers, default=0):
            folder.forget_damage()  # repaired, or whole after all
        library.note_opened(current)
        return current

    def _seal(self, library: MaintenanceState, *, from_rows: bool) -> None:
        """Write the rows that are in no file, or all rows; a merge then makes them of the configured type."""
        with open_snapshot() as snapshot:
            current = self._open(snapshot, library)
            if from_rows:
                loaded = load_in_steps(snapshot, current.state)
                if loaded is None:
                    return  # it is deleted, or has other vectors now; the next tick knows
                current = loaded
        commit.seal(current)

    def _begin_merge(self, library: MaintenanceState, index: IndexStatus, idle: float) -> bool:
        """Begin a merge of the library, unless it failed lately or the thread for it is taken. Return True if there may
        be more to do at once."""
        state = library.library
        if library.merge_failure is not None and library.merge_failure.blocks(state, self._clock()):
            self._wait(library, index, idle, until=library.merge_failure.not_before)
            return False
        candidates = merge_candidates(index, idle, self._policy)
        is_slow = is_slow_merge(index.state, candidates, self._policy)
        if is_slow in self.running:
            library.waits_for_merge = True
            self._wait(library, index, idle)
            return False
        with open_snapshot() as snapshot:
            current = self._open(snapshot, library)
        names = {candidate.name for candidate in candidates}
        inputs = [segment for segment in sealed_segments(current.view) if segment.name in names]
        if len(inputs) == len(candidates):
            if library.merge_failure is not None and not library.merge_failure.is_of(state):
                library.merge_failure = None
                index_folder(state.uid).note_failure(None)
            self.running[is_slow] = Merge(
                current.state, inputs, self._policy, is_slow=is_slow, on_end=self._on_merge_end
            )
        return True

    def _finish_merges(self) -> bool:
        """Commit the results of merges that have ended, and retry commits that failed. Return True if there were."""
        now = self._clock()
        ended = [merge for merge in self.running.values() if merge.future.done()]
        ended += [merge for merge in self.uncommitted if merge.is_cancelled or merge.not_before <= now]
        self.running = {is_slow: merge for is_slow, merge in self.running.items() if merge not in ended}
        self.uncommitted = [merge for merge in self.uncommitted if merge not in ended]
        for merge in ended:
            if library := self.libraries.get(merge.state.uid):
                if not merge.is_cancelled:
                    self._commit(library, merge)
                library.note_work(self._clock())
        for library in self.libraries.values() if ended else ():
            if library.waits_for_merge:
                library.waits_for_merge, library.next_look = False, now
        return bool(ended)

    def _commit(self, library: MaintenanceState, merge: Merge) -> None:
        try:
            merge.future.result()
            with open_snapshot() as snapshot:
                current = self._open(snapshot, library)
            if current.manifest is None or not merge.matches(current.state):
                return
            commit.commit_merge(current, merge)
        except NotFound:
            return
        except Exception as error:
            metrics.MAINTENANCE_FAILURES.add(1, "merge")
            library.merge_failure = self._record_failure(merge.state, library.merge_failure, error)
            if merge.future.exception() is None and isinstance(error, TRANSIENT_ERRORS):
                merge.not_before = library.merge_failure.not_before
                self.uncommitted.append(merge)
            return
        library.merge_failure = None
        index_folder(merge.state.uid).note_failure(library.reason)

    def _record_failure(self, state: LibraryState, previous: Failure | None, error: Exception) -> Failure:
        """Log an error, and record it for statistics."""
        note_if_damaged(error)
        reason = str(error) or type(error).__name__
        trace = None if isinstance(error, _NO_TRACEBACK) else error
        logger.error("index of library %s: building failed: %s", state.public_id, reason, exc_info=trace)
        index_folder(state.uid).note_failure(reason)
        return failure_after(previous, state, reason, self._clock(), self._policy)
