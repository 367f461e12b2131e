"""Keeps the index files of all libraries in shape: seals, merges, rebuilds, sweeps. One process does, beside the
request workers, which never build.

Rows that are in no file yet are *sealed* into a segment that is quick to build. *Jobs* then make one segment of others:
of the wished type, without dead rows, or of several. They run in threads while sealing goes on, a slow one and a quick
one at a time, never two on the same segment. What is due, `planning` says.

Only one thread publishes, see `publishing`. What it could not publish, as on a full disk, it keeps and tries again.
"""

import contextlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import Enum

from django.conf import settings
from django.db import DatabaseError

from apps.engine.errors import EngineError
from apps.engine.storage.index_folder import sweep_libraries
from apps.indexing import commit as publishing
from apps.indexing import merge_policy as planning
from apps.indexing.merge import Job
from apps.indexing.state import Failure, Watch
from apps.libraries.errors import NotFound
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot

logger = logging.getLogger(__name__)

_QUIET_SECONDS = 5.0
_VERY_QUIET_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 0.5
_MAY_PASS = (OSError, MemoryError, DatabaseError)
_NOT_OUR_MISTAKE = (EngineError, RuntimeError, *_MAY_PASS)


class _Found(Enum):
    """What there was to do for a library."""

    DONE = 1
    # A job is at work, there is no thread for another, or one has failed and is tried again later.
    WAITS = 2
    NOTHING = 3


class Indexer:
    """Looks after the index files of all libraries; there must be one at a time for a data folder.

    `on_job_end` is called, in another thread, when a job has ended whose result waits for the next round.
    """

    def __init__(self, on_job_end: Callable[[], None] = lambda: None) -> None:
        self._on_job_end = on_job_end
        self._views = ViewCache(settings.MEMORY_BUDGET)
        self._watches: defaultdict[str, Watch] = defaultdict(Watch)
        # By whether they are slow, so that minutes of one library hold up no seconds of another.
        self._jobs: dict[bool, Job] = {}
        # Their results could not be published; each holds its segment in memory until that is done.
        self._unpublished: list[Job] = []
        # How many jobs have ended so far, or were tried to be published.
        self._ended = 0

    def round(self, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Look after every library once, until `is_stopped`; answers whether there was something to do. Jobs go on
        afterwards."""
        did = self._finish_jobs()
        for state in self._listed():
            if is_stopped():
                break
            watch = self._watches[state.uid]
            seconds = watch.seconds_quiet(state)
            if watch.is_settled(state) or (watch.sealing is not None and watch.sealing.holds(state)):
                continue
            quiet, very_quiet = seconds >= _QUIET_SECONDS, seconds >= _VERY_QUIET_SECONDS
            least = planning.least_changes(state, quiet=quiet, very_quiet=very_quiet)
            found = self._look_after(state, least=least, quiet=quiet)
            if found is _Found.NOTHING and very_quiet:
                watch.settled = state
            did |= found is _Found.DONE
        return did

    def run_until_done(self, library_id: str, is_stopped: Callable[[], bool] = lambda: False) -> str | None:
        """Do all there is to do for one library, as if it had been quiet for long, or until `is_stopped`; answers why
        that failed, if it did."""
        while not is_stopped():
            did = self._finish_jobs()
            for state in self._listed():
                if state.public_id == library_id:
                    watch = self._watches[state.uid]
                    least = planning.least_changes(state, quiet=True, very_quiet=True)
                    did |= watch.reason is None and self._look_after(state, least=least, quiet=True) is _Found.DONE
                    if watch.reason is not None:
                        return watch.reason
            if not did and not self._jobs:
                break
            for job in list(self._jobs.values()):
                job.wait(_SECONDS_BETWEEN_LOOKS)
        return None

    def run_all_until_done(self, is_stopped: Callable[[], bool]) -> bool:
        """Do all there is to do for every library, one after the other, or until `is_stopped`; answers whether all is
        done. The log says what failed."""
        reasons = [self.run_until_done(state.public_id, is_stopped) for state in _states()]
        return not is_stopped() and not any(reasons)

    def sweep(self) -> None:
        """Delete files that nothing refers to any more, and look whether the others are as they were opened; the next
        round sees to those that are not."""
        for job in self._unpublished:
            # Nothing refers to its files yet; they must not look old.
            with contextlib.suppress(OSError):
                os.utime(settings.INDEX_DIR / job.state.uid / "segments" / job.result()[1].name)
        for state in _states():
            watch = self._watches[state.uid]
            if not watch.has_files(state):
                watch.settled = None
            loading.index_folder(state.uid).sweep(loading.identity_of(state))
        with open_snapshot() as snapshot:
            uids = {uid for (uid,) in snapshot.rows("SELECT uid FROM vectordb_library")}
        sweep_libraries(settings.INDEX_DIR, uids)

    def _listed(self) -> list[LibraryState]:
        """All libraries that may have vectors. What is known of others is forgotten, and jobs that nobody wishes for
        any more are given up."""
        states = _states()
        for uid in self._watches.keys() - {state.uid for state in states}:
            del self._watches[uid]
        self._abandon_jobs(states)
        return states

    def _look_after(self, state: LibraryState, *, least: int, quiet: bool) -> _Found:
        """Seal rows, if there are `least` changes or more; else begin a job, if there is one to do."""
        watch = self._watches[state.uid]
        try:
            current = self._sealed(state, least, quiet=quiet)
        except NotFound:
            return _Found.NOTHING
        except Exception as error:
            watch.sealing = self._failed(state, watch.sealing, error)
            return _Found.WAITS
        if watch.sealing is not None:
            watch.sealing = None
            loading.index_folder(state.uid).note_failure(watch.reason)
        if isinstance(current, _Found):
            return current
        if watch.building is not None and watch.building.holds(current.state):
            return _Found.WAITS
        try:
            return self._begun(current, quiet=quiet)
        except Exception as error:
            watch.building = self._failed(current.state, watch.building, error)
            return _Found.WAITS

    def _sealed(self, state: LibraryState, least: int, *, quiet: bool) -> LoadedView | _Found:
        """Seal if that is due. Otherwise, the library with its files, or that nothing is due."""
        with open_snapshot() as snapshot:
            # Without opening its files or loading its rows, for which memory may have no place.
            if not state.manifest_number and not state.rebuild and snapshot.count_changes(state.key, 0) < least:
                return _Found.NOTHING
            watch = self._watches[state.uid]
            if watch.has_all_sealed(snapshot, state, least):
                if watch.is_in_shape(state, quiet=quiet):
                    return _Found.NOTHING
                if watch.has_to_wait(state, self._ended, quiet=quiet):
                    return _Found.WAITS
            current = self._current(snapshot, state)
            if current.view is None:
                return _Found.NOTHING
            state, changes = current.state, planning.count_unsealed(snapshot, current)
            numbers = loading.index_folder(state.uid).numbers()
            # All were told of a manifest that is not here any more. Where it never was, it is another host's.
            is_lost = max(numbers, default=0) < state.manifest_number == watch.greatest
            if not is_lost and not planning.wants_sealing(current, changes, numbers, least=least):
                return _Found.NOTHING if current.manifest is None else current
            if planning.wants_rebuild(current):
                # A job makes it of the wished type afterwards.
                loaded = loading.load_in_steps(snapshot, state)
                if loaded is None:
                    return _Found.NOTHING
                current = loaded
        publishing.seal(current)
        return _Found.DONE

    def _begun(self, current: LoadedView, *, quiet: bool) -> _Found:
        """Begin a job of the library, if there is one to do and a thread for it."""
        state, view, manifest = current.state, current.view, current.manifest
        assert view is not None
        assert manifest is not None
        watch = self._watches[state.uid]
        own = [job for job in self._all_jobs() if job.state.uid == state.uid and not job.is_abandoned]
        taken = {segment.name for job in own for segment in job.inputs}
        free = [segment for segment in planning.sealed_segments(view) if segment.name not in taken]
        inputs = planning.inputs(state, free, quiet=quiet)
        if inputs:
            job = Job(state, inputs, self._on_job_end)
            if job.is_slow in self._jobs:
                watch.note_waits(state, self._ended, quiet=quiet)
                return _Found.WAITS
            if watch.building is not None and not watch.building.is_of(state):
                watch.building = None
                loading.index_folder(state.uid).note_failure(None)
            job.start()
            self._jobs[job.is_slow] = job
            return _Found.DONE
        if own:
            watch.note_waits(state, self._ended, quiet=quiet)
            return _Found.WAITS
        if manifest.number > state.manifest_number:
            publishing.tell(state, manifest)  # whoever published it did not come to that
        watch.note_in_shape(state, quiet=quiet)
        loading.index_folder(state.uid).note_failure(None)
        return _Found.NOTHING

    def _current(self, snapshot: Snapshot, state: LibraryState) -> LoadedView:
        """The library's view, from files that are still there, are those that were opened, and are whole for all that
        others have found."""
        current = self._views.current(snapshot, state.public_id)
        state, manifest = current.state, current.manifest
        if manifest is None:
            return current
        watch, folder = self._watches[state.uid], loading.index_folder(state.uid)
        watch.greatest = max(watch.greatest, manifest.number)
        stamps = folder.stamps(manifest)
        if watch.manifest is None or watch.manifest.number != manifest.number:
            watch.manifest, watch.stamps = manifest, stamps
        damage = folder.damage()
        if stamps is not None and stamps == watch.stamps and damage is None:
            return current
        watch.manifest = None
        if not folder.numbers():
            logger.warning("index of library %s: files are gone; they are built anew", state.public_id)
        self._views.forget(state.key)
        current = self._views.current(snapshot, state.public_id)
        if damage is not None and current.manifest is not None and current.manifest.number == max(folder.numbers()):
            folder.forget_damage()  # mended, or whole after all
        return current

    def _abandon_jobs(self, states: Sequence[LibraryState]) -> None:
        """Give up the jobs that nobody wishes for any more. Each keeps its thread until it ends."""
        known = {state.uid: state for state in states}
        for job in self._all_jobs():
            state = known.get(job.state.uid)
            if not job.is_abandoned and (state is None or not job.is_wished(state)):
                job.abandon()
                why = "the library is deleted" if state is None else "something else is wished for"
                logger.info("index of library %s: a build is abandoned, for %s", job.state.public_id, why)

    def _all_jobs(self) -> list[Job]:
        """Those that are at work, and those whose results wait."""
        return [*self._jobs.values(), *self._unpublished]

    def _finish_jobs(self) -> bool:
        """Publish what jobs have made; answers whether there was any."""
        ended = [job for job in self._jobs.values() if not job.is_running()]
        for job in ended:
            del self._jobs[job.is_slow]
        ended += [job for job in self._unpublished if job.is_abandoned or job.not_before <= time.monotonic()]
        self._unpublished = [job for job in self._unpublished if job not in ended]
        self._ended += len(ended)
        for job in ended:
            if not job.is_abandoned:
                self._finish(job)
        return bool(ended)

    def _finish(self, job: Job) -> None:
        watch = self._watches[job.state.uid]
        try:
            segment, record = job.result()
            with open_snapshot() as snapshot:
                current = self._current(snapshot, job.state)
            if current.view is None or current.manifest is None or not job.is_wished(current.state):
                return
            publishing.replace_inputs(current, current.view, current.manifest, job, segment, record)
        except NotFound:
            return
        except Exception as error:
            watch.building = self._failed(job.state, watch.building, error)
            if job.is_made() and isinstance(error, _MAY_PASS):
                job.not_before = watch.building.not_before
                self._unpublished.append(job)
            return
        watch.building = None
        loading.index_folder(job.state.uid).note_failure(watch.reason)

    def _failed(self, state: LibraryState, before: Failure | None, error: Exception) -> Failure:
        """Tell of a failure, whatever it is: one library's must not hold up the others. `before` is the last one."""
        reason = str(error) or type(error).__name__
        trace = None if isinstance(error, _NOT_OUR_MISTAKE) else error
        logger.error("index of library %s: building failed: %s", state.public_id, reason, exc_info=trace)
        loading.index_folder(state.uid).note_failure(reason)
        return Failure.after(before, state, reason)


def _states() -> list[LibraryState]:
    """All libraries that may have vectors."""
    with open_snapshot() as snapshot:
        return [state for state in snapshot.libraries() if state.dimension is not None]
