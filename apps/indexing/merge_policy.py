"""What is due for a library's index files. Only this module decides it: maintenance acts on it, statistics show it.

Rows in no file are *sealed* when there are many, they are large, or the library is quiet. Merging is tiered by a factor
of four, so a row is rewritten about log4(n) times; a quiet library is merged further, as far as building its index is
quick. Rows without a vector are sealed and merged apart from the others.

`idle` is for how many seconds nobody has written to the library; infinity tells what is due in the end.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from apps.engine import kernels
from apps.engine.indexes.base import NO_PARAMS, Params
from apps.engine.indexes.registry import AUTO, BARE, BRUTE_FORCE, chosen_kind, index_type
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.manifest import Manifest
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.indexing.policy import IndexingPolicy
from apps.search.loading import LoadedView
from apps.search.snapshots import LibraryState, Snapshot


class Step(Enum):
    """One step of maintenance for a library."""

    REBUILD = "write new files from the database's rows, whatever the present files hold"
    SEAL = "write the rows that are in no file"
    ANNOUNCE = "tell all processes of a manifest that is written already"
    MERGE = "make one segment of others"


@dataclass(frozen=True)
class SegmentSummary:
    """What decides whether a segment is merged. Holds no rows, so maintenance may keep it for every library."""

    name: str
    kind: str
    params: Params
    dimension: int
    rows: int
    live: int
    row_data_bytes: int


@dataclass(frozen=True)
class IndexStatus:
    """What decides which step is due for a library.

    `manifest` is the one in use; `newest` is the greatest number of a manifest in the folder, 0 where there is none;
    `unsealed` counts the rows changed since `manifest`; `is_large` says that they are sealed for their size, though
    they are few. `is_lost` says that the manifest that was announced last is gone.
    """

    state: LibraryState
    manifest: Manifest | None
    newest: int
    unsealed: int
    is_large: bool
    segments: tuple[SegmentSummary, ...]
    is_lost: bool = False

    @property
    def needs_rebuild(self) -> bool:
        """Whether a rebuild was asked for that the manifest does not satisfy."""
        return self.state.rebuild > (0 if self.manifest is None else self.manifest.rebuild)


def read_status(
    snapshot: Snapshot,
    state: LibraryState,
    manifest: Manifest | None,
    newest: int,
    segments: tuple[SegmentSummary, ...],
    policy: IndexingPolicy,
) -> IndexStatus:
    """The status of a library in `state`, whose other fields are known."""
    since = 0 if manifest is None else manifest.seq
    unsealed = snapshot.count_changed(state.key, since)
    is_few = 0 < unsealed < policy.seal_changes
    is_large = is_few and snapshot.measure_changed(state.key, since) >= policy.seal_characters
    return IndexStatus(state, manifest, newest, unsealed, is_large, segments)


def status_of(snapshot: Snapshot, current: LoadedView, folder: IndexFolder, policy: IndexingPolicy) -> IndexStatus:
    """The status of a library whose view is open."""
    newest = max(folder.numbers(), default=0)
    return read_status(snapshot, current.state, current.manifest, newest, summarize(current.view), policy)


def next_step(index: IndexStatus, idle: float, policy: IndexingPolicy) -> Step | None:
    """The step that is due for a library; None where nothing is."""
    if index.needs_rebuild:
        return Step.REBUILD
    if _needs_seal(index, idle, policy):
        return Step.SEAL
    if index.manifest is not None and index.manifest.number > index.state.manifest_number:
        return Step.ANNOUNCE  # the process that wrote it ended before it announced it
    return Step.MERGE if merge_candidates(index, idle, policy) else None


def is_rebuilt(index: IndexStatus, policy: IndexingPolicy) -> bool:
    """Whether the last rebuild that was asked for is done, whatever was written since."""
    return not index.needs_rebuild and not merge_candidates(index, 0.0, policy)


def merge_candidates(index: IndexStatus, idle: float, policy: IndexingPolicy) -> list[SegmentSummary]:
    """The segments to merge into one next; empty where all are as they should be. Rows with a vector and bare ones are
    in no segment together."""
    bare = [segment for segment in index.segments if segment.kind == BARE]
    others = [segment for segment in index.segments if segment.kind != BARE]
    return _candidates(index.state, others, idle, policy) or _candidates(index.state, bare, idle, policy)


def _candidates(
    state: LibraryState, segments: Sequence[SegmentSummary], idle: float, policy: IndexingPolicy
) -> list[SegmentSummary]:
    tiers: defaultdict[int, list[SegmentSummary]] = defaultdict(list)
    for segment in segments:
        tiers[_tier(segment, policy)].append(segment)
    for _, members in sorted(tiers.items()):
        if len(members) >= policy.tier:
            return members
    for segment in segments:
        dead = segment.rows - segment.live
        is_sparse = dead >= policy.dead_rows and dead >= policy.dead_fraction * segment.rows
        if is_sparse or not matches_config(segment, state, policy):
            return [segment]
    if idle < policy.quiet_seconds or len(segments) < 2:
        return []
    largest, *others = sorted(segments, key=lambda segment: segment.live, reverse=True)
    rows = sum(segment.live for segment in segments)
    kind, _ = target(state, rows, largest.dimension, policy)
    factor = policy.tier if index_type(kind).slow_to_build else policy.quiet_tier
    if (rows - largest.live) * factor >= largest.live:
        return [largest, *others]
    return others if len(others) > 1 else []


def target(state: LibraryState, rows: int, dimension: int, policy: IndexingPolicy) -> tuple[str, Params]:
    """The index type and build parameters that a segment of `rows` rows of the library should have, as far as they can
    be had: without compiled code it is scanned. Rows without vectors, of dimension 0, have a type of their own."""
    if not dimension:
        return BARE, NO_PARAMS
    if kernels.are_missing():
        return BRUTE_FORCE, NO_PARAMS
    kind = chosen_kind(state.index_type, rows, dimension, policy.auto)
    return kind, NO_PARAMS if state.index_type == AUTO else state.params


def matches_config(segment: SegmentSummary, state: LibraryState, policy: IndexingPolicy) -> bool:
    """Whether a segment has the index type and parameters that the library is configured for, or no others can be
    had."""
    if segment.kind == BARE:
        return True
    kind, params = target(state, segment.rows, segment.dimension, policy)
    return kernels.are_missing() or (segment.kind == kind and (state.index_type == AUTO or segment.params == params))


def is_slow_merge(state: LibraryState, segments: Sequence[SegmentSummary], policy: IndexingPolicy) -> bool:
    """Whether building the index of the segments' rows takes minutes rather than seconds."""
    rows = sum(segment.live for segment in segments)
    kind, _ = target(state, rows, segments[0].dimension, policy)
    return rows >= policy.slow_rows and index_type(kind).slow_to_build


def sealed_segments(view: View) -> list[Segment]:
    """The segments that have files and live rows."""
    return [segment for segment in view.segments if segment.name and segment.live]


def summarize(view: View) -> tuple[SegmentSummary, ...]:
    """Summaries of the view's sealed segments."""
    return tuple(
        SegmentSummary(
            one.name, one.kind, one.params, one.matrix.dimension, len(one.keys), one.live, one.row_data.nbytes
        )
        for one in sealed_segments(view)
    )


def _needs_seal(index: IndexStatus, idle: float, policy: IndexingPolicy) -> bool:
    if index.is_lost or index.newest > (0 if index.manifest is None else index.manifest.number):
        return True  # there are newer files, and they cannot be used; or there are none any more
    if index.manifest is None and index.state.manifest_number:
        return index.unsealed > 0
    return index.is_large or index.unsealed >= _seal_threshold(index.state, idle, policy)


def _seal_threshold(state: LibraryState, idle: float, policy: IndexingPolicy) -> int:
    """The number of changed rows from which on they are sealed."""
    if idle < policy.quiet_seconds:
        return policy.seal_changes
    if state.index_type != AUTO or (idle >= policy.very_quiet_seconds and state.manifest_number):
        return 1
    return policy.quiet_seal_changes


def _tier(segment: SegmentSummary, policy: IndexingPolicy) -> int:
    """0 for what one seal makes, by rows or by size, and one more for each merge."""
    seals = max(segment.rows / policy.seal_changes, segment.row_data_bytes / policy.seal_characters)
    seals *= segment.live / segment.rows
    tier = 0
    while seals >= policy.tier:
        seals /= policy.tier
        tier += 1
    return tier
