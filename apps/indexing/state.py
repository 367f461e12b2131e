"""What maintenance knows of a library from one round to the next: for how long nobody has written to it, that nothing
is due, and what has failed. So it leaves alone what needs nothing, and what would only fail again."""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Self

from apps.engine.storage.manifest import Manifest
from apps.search import loading
from apps.search.snapshots import LibraryState, Position, Snapshot

# What failed is tried again after so long, then after twice as long each time.
_SECONDS_AFTER_FAILURE, _MOST_SECONDS_AFTER_FAILURE = 5.0, 60.0


@dataclass(frozen=True)
class Failure:
    """What failed is left alone until `not_before`, unless something else is wished for then."""

    wish: tuple[Any, ...]
    reason: str
    attempts: int
    not_before: float

    @classmethod
    def after(cls, before: "Failure | None", state: LibraryState, reason: str) -> Self:
        """A failure of what a library in `state` wishes for; `before` is the last one, if there was one."""
        attempts = before.attempts + 1 if before is not None and before.is_of(state) else 1
        seconds = min(_MOST_SECONDS_AFTER_FAILURE, _SECONDS_AFTER_FAILURE * 2 ** (attempts - 1))
        return cls(_wish(state), reason, attempts, time.monotonic() + seconds)

    def is_of(self, state: LibraryState) -> bool:
        """Whether what failed is what a library in `state` wishes for; another wish may succeed."""
        return self.wish == _wish(state)

    def holds(self, state: LibraryState) -> bool:
        return self.is_of(state) and time.monotonic() < self.not_before


@dataclass
class Watch:
    """What is known of one library."""

    position: Position | None = None
    since: float = field(default_factory=time.monotonic)
    # Rows could not be read or sealed; a job failed. Sealing goes on while a job waits.
    sealing: Failure | None = None
    building: Failure | None = None
    # The manifest in use, and what its files looked like when they were opened.
    manifest: Manifest | None = None
    stamps: tuple[tuple[int, ...], ...] | None = None
    # The greatest number of a manifest that was in use here.
    greatest: int = 0
    # There was nothing to do for this state, however quiet the library.
    settled: LibraryState | None = None
    # The last look at the segments found none to build anew: as of this state, whether or not the library was quiet.
    in_shape: tuple[LibraryState, bool] | None = None
    # Likewise, it found that segments wait for a job, of so many that had ended.
    waits: tuple[LibraryState, bool, int] | None = None

    @property
    def reason(self) -> str | None:
        """Why something fails; None if nothing does."""
        failure = self.sealing or self.building
        return None if failure is None else failure.reason

    def seconds_quiet(self, state: LibraryState) -> float:
        """For how long nobody has written to the library, which is in `state` now, as far as was looked."""
        if self.position != state.position:
            self.position, self.since = state.position, time.monotonic()
        return time.monotonic() - self.since

    def is_settled(self, state: LibraryState) -> bool:
        """Whether there was nothing to do for this state, and nobody has found damage since."""
        return self.settled == state and loading.index_folder(state.uid).damage() is None

    def has_files(self, state: LibraryState) -> bool:
        """Whether the files of the manifest in use are there as they were opened."""
        return (
            self.manifest is not None
            and self.stamps is not None
            and loading.index_folder(state.uid).stamps(self.manifest) == self.stamps
        )

    def has_all_sealed(self, snapshot: Snapshot, state: LibraryState, least: int) -> bool:
        """Whether the files are there as they were opened, and none that nobody was told of, and fewer than `least`
        changes have come since; opens nothing."""
        if self.manifest is None or self.manifest.number != state.manifest_number:
            return False
        if snapshot.count_changes(state.key, self.manifest.seq) >= least:
            return False
        folder = loading.index_folder(state.uid)
        return (
            max(folder.numbers(), default=0) == state.manifest_number
            and folder.damage() is None
            and self.has_files(state)
        )

    def is_in_shape(self, state: LibraryState, *, quiet: bool) -> bool:
        """Whether the last look found all segments as they are to be."""
        return self.in_shape == (_but_position(state), quiet)

    def has_to_wait(self, state: LibraryState, ended: int, *, quiet: bool) -> bool:
        """Whether segments wait until some time after a failure; or, as the last look found, for a job, and no further
        one has ended since, which are `ended` now."""
        if self.building is not None and self.building.holds(state):
            return True
        return self.waits == (_but_position(state), quiet, ended)

    def note_in_shape(self, state: LibraryState, *, quiet: bool) -> None:
        """A look found no segments to build anew, and the index of the library does not fail."""
        self.building, self.in_shape = None, (_but_position(state), quiet)

    def note_waits(self, state: LibraryState, ended: int, *, quiet: bool) -> None:
        """A look found that nothing can be begun before a job ends; `ended` jobs have."""
        self.waits = (_but_position(state), quiet, ended)


def _wish(state: LibraryState) -> tuple[Any, ...]:
    return state.index_type, state.params, state.rebuild


def _but_position(state: LibraryState) -> LibraryState:
    """The state, whatever was written to the library."""
    return replace(state, position=Position(0, 0))
