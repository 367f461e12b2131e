"""What maintenance remembers of each library: when it changed last, when to look at it next, what failed, and what its
files were when they were opened. So an idle library costs nothing, and no file is read twice to find nothing due."""

from dataclasses import dataclass
from math import inf
from typing import Any

from apps.engine.storage.index_folder import SECONDS_SUPERSEDED
from apps.engine.storage.manifest import Manifest
from apps.indexing.merge_policy import SegmentSummary, summarize
from apps.indexing.policy import IndexingPolicy
from apps.search import loading
from apps.search.loading import LoadedView
from apps.search.snapshots import LibraryState


@dataclass(frozen=True)
class Failure:
    """A failed step. It is not retried before `not_before` unless the index configuration changes."""

    config: tuple[Any, ...]
    reason: str
    attempts: int
    not_before: float

    def is_of(self, state: LibraryState) -> bool:
        """Whether the library is still configured as it was for the step that failed."""
        return self.config == _config(state)

    def blocks(self, state: LibraryState, now: float) -> bool:
        """Whether it is too early to retry."""
        return self.is_of(state) and now < self.not_before


def failure_after(
    previous: Failure | None, state: LibraryState, reason: str, now: float, policy: IndexingPolicy
) -> Failure:
    """The failure of a step for a library in `state`, which waits longer where the `previous` one was of the same."""
    attempts = previous.attempts + 1 if previous is not None and previous.is_of(state) else 1
    seconds = min(policy.max_retry_seconds, policy.retry_seconds * 2 ** (attempts - 1))
    return Failure(_config(state), reason, attempts, now + seconds)


def _config(state: LibraryState) -> tuple[Any, ...]:
    return state.index_type, state.params, state.rebuild


@dataclass
class MaintenanceState:
    """What maintenance remembers of one library; times are those of the indexer's clock.

    `manifest`, `stamps`, `segments` and `view_bytes` describe the view when it was opened last; `greatest` is the
    greatest number of a manifest that was opened. `unsealed` is the number of rows that changed since.
    """

    library: LibraryState
    changed_at: float
    next_look: float
    # When files were last written that may be left without use, and when such files were last looked for.
    worked_at: float
    swept_at: float = -inf
    # When files that were replaced can be deleted.
    sweep_at: float = inf
    # Of reading and sealing rows, and of merges: sealing goes on while a merge fails.
    failure: Failure | None = None
    merge_failure: Failure | None = None
    # Segments are to be merged, and the thread for that is taken.
    waits_for_merge: bool = False
    manifest: Manifest | None = None
    stamps: tuple[tuple[int, ...], ...] | None = None
    segments: tuple[SegmentSummary, ...] = ()
    view_bytes: int = 0
    unsealed: int = 0
    greatest: int = 0

    @property
    def reason(self) -> str | None:
        """Why a step failed; None where none fails."""
        failure = self.failure or self.merge_failure
        return None if failure is None else failure.reason

    def update(self, library: LibraryState, now: float) -> None:
        """Take over the library's state in the database; look at it soon where it is another one."""
        if library.position != self.library.position:
            self.changed_at = now
        if library != self.library:
            self.library, self.next_look = library, now

    def note_work(self, now: float) -> None:
        """Look again at once, and for files to delete when they may be."""
        self.worked_at = self.next_look = now
        self.sweep_at = min(self.sweep_at, now + SECONDS_SUPERSEDED)

    def note_sweep(self, now: float) -> None:
        """Look for files to delete again, if some were written that could not be deleted yet."""
        self.swept_at = now
        due = self.worked_at + SECONDS_SUPERSEDED
        self.sweep_at = due if due > now else inf

    def note_opened(self, current: LoadedView) -> None:
        """Remember the files of a view that is open and up to date."""
        self.manifest, self.segments, self.stamps = current.manifest, summarize(current.view), None
        self.view_bytes = current.view.nbytes
        if current.manifest is not None:
            self.stamps = loading.index_folder(self.library.uid).stamps(current.manifest)
            self.greatest = max(self.greatest, current.manifest.number)

    def has_files(self) -> bool:
        """Whether the files are there, unchanged since they were opened. Costs a stat for each."""
        folder = loading.index_folder(self.library.uid)
        return self.manifest is not None and self.stamps is not None and folder.stamps(self.manifest) == self.stamps
