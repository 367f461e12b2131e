"""What is to be done about a library's index files, by their state alone: maintenance does it, stats tell of it.

Rows that are in no file yet are *sealed* when there are many of them, or fewer and the library is quiet. A library of
few rows needs no files; one that has files is to have all of its rows there, some time.

Merging is tiered by a factor of four, so that a row is rewritten some log4(n) times while rows are written. A quiet
library is merged further, as far as building its index is quick.
"""

from collections import defaultdict
from collections.abc import Sequence

from apps.engine.indexes.registry import AUTO, chosen_kind, index_type
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View, is_sparse
from apps.search.loading import LoadedView
from apps.search.snapshots import LibraryState, Snapshot

# So many changes are sealed at once; fewer, when the library has been quiet.
SEAL_CHANGES = 4096
_SEAL_CHANGES_WHEN_QUIET = 1000
_TIER = 4
_DEAD_ROWS = 1024
# A quiet library's small segments join the largest from so small a share on: each costs every query some time.
_QUIET_TIER = 32


def least_changes(state: LibraryState, *, quiet: bool, very_quiet: bool) -> int:
    """From how many changes on the rows of a library are sealed."""
    if not quiet:
        return SEAL_CHANGES
    return 1 if state.index_type != AUTO or (very_quiet and state.manifest_number) else _SEAL_CHANGES_WHEN_QUIET


def count_unsealed(snapshot: Snapshot, current: LoadedView) -> int:
    """How many changes are not in the files."""
    return snapshot.count_changes(current.state.key, 0 if current.manifest is None else current.manifest.seq)


def wants_rebuild(current: LoadedView) -> bool:
    """Whether files are to be made from the rows, whatever the present ones say."""
    return current.state.rebuild > (0 if current.manifest is None else current.manifest.rebuild)


def wants_sealing(current: LoadedView, changes: int, numbers: Sequence[int], *, least: int) -> bool:
    """Whether `changes` that are not in the files are to be sealed, from `least` on; `numbers` are those of the
    manifests that are there."""
    state, manifest = current.state, current.manifest
    if wants_rebuild(current):
        return True
    if manifest is None:
        # Files that cannot be used, or are lost, are made anew.
        return changes >= (0 if numbers else 1 if state.manifest_number else least)
    # There are newer files, which cannot be used.
    return changes >= least or manifest.number < max(numbers, default=0)


def sealed_segments(view: View) -> list[Segment]:
    """The segments that have files and rows."""
    return [segment for segment in view.segments if segment.name and segment.live]


def inputs(state: LibraryState, segments: Sequence[Segment], *, quiet: bool) -> list[Segment]:
    """The segments to make one of; none where all is well."""
    tiers: defaultdict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        tiers[_tier(segment.live)].append(segment)
    for _, members in sorted(tiers.items()):
        if len(members) >= _TIER:
            return members
    for segment in segments:
        is_other = not matches_config(segment, state)
        if is_other or is_sparse(segment, _DEAD_ROWS):
            return [segment]
    if not quiet or len(segments) < 2:
        return []
    largest, *others = sorted(segments, key=lambda segment: segment.live, reverse=True)
    rows, dimension = sum(segment.live for segment in segments), largest.matrix.dimension
    is_slow = index_type(chosen_kind(state.index_type, rows, dimension)).slow_to_build
    if (rows - largest.live) * (_TIER if is_slow else _QUIET_TIER) >= largest.live:
        return [largest, *others]
    return others if len(others) > 1 else []


def is_settled(snapshot: Snapshot, current: LoadedView, folder: IndexFolder) -> bool:
    """Whether the library's files, which are in `folder`, stay as they are, however long nobody writes to it."""
    if current.view is None:
        return True
    if current.manifest is not None and current.manifest.number > current.state.manifest_number:
        return False  # not all processes have been told
    if folder.damage() is not None or (current.manifest is not None and folder.stamps(current.manifest) is None):
        return False
    least = least_changes(current.state, quiet=True, very_quiet=True)
    if wants_sealing(current, count_unsealed(snapshot, current), folder.numbers(), least=least):
        return False
    return not inputs(current.state, sealed_segments(current.view), quiet=True)


def is_rebuilt(current: LoadedView) -> bool:
    """Whether the last rebuild that was asked for is done, whatever was written since."""
    if current.view is None:
        return True
    return not wants_rebuild(current) and not inputs(current.state, sealed_segments(current.view), quiet=False)


def matches_config(segment: Segment, state: LibraryState) -> bool:
    """Whether a segment is of the type and parameters that its library is configured for."""
    kind = chosen_kind(state.index_type, *segment.matrix.vectors.shape)
    return segment.kind == kind and (state.index_type == AUTO or segment.params == state.params)


def _tier(rows: int) -> int:
    tier = 0
    while rows >= SEAL_CHANGES * _TIER:
        rows //= _TIER
        tier += 1
    return tier
