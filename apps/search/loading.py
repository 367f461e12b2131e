"""From index files or rows to a view, and from changes to the next one; a view always shows one snapshot.

Opening maps the files of the newest manifest and applies the changes since. Where no manifest can be used, loading
costs one pass over the library's rows, and its vectors' memory once. It reads each page in a snapshot of its own and
then applies the changes since the first, so that no snapshot is held for as long as that takes. Catching up costs what
changed.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from django.conf import settings

from apps.engine.errors import Damaged, Superseded
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.manifest import Identity, Manifest
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import COMPACT_ROWS, View
from apps.search.snapshots import LibraryState, Position, Snapshot
from apps.search.stored_rows import StoredRows, read_all, read_changed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadingPolicy:
    """Numbers of rows."""

    page_rows: int = 2_000
    # Past this many changed rows, or half of all there are, reading all rows is quicker than replaying.
    max_replay: int = 20_000
    # A part of a view in memory gets rid of its dead rows from this many on.
    compact_rows: int = COMPACT_ROWS


DEFAULT_POLICY = LoadingPolicy()


@dataclass(frozen=True)
class LoadedView:
    """A view and the state of the library that it shows. `manifest` names the segments that have files; None where none
    has."""

    state: LibraryState
    view: View
    manifest: Manifest | None = None


def open_view(
    snapshot: Snapshot, state: LibraryState, known: Iterable[Segment] = (), policy: LoadingPolicy = DEFAULT_POLICY
) -> LoadedView | None:
    """The view of `state`, from index files where they can be used; else as `load_in_steps`. None also where the files
    were replaced and deleted while they were opened. `known` are segments of this library that are mapped already."""
    opened = _open_newest(snapshot, state, {segment.name: segment for segment in known if segment.name})
    if opened is None:
        return None
    manifest, segments = opened
    if manifest is not None and manifest.seq:
        view = View.of(
            dimension=manifest.identity.dimension,
            metric=state.metric,
            segments=segments,
            built_at=manifest.created_at,
            compact_rows=policy.compact_rows,
        )
        caught_up = catch_up(snapshot, state, view, Position(manifest.seq, manifest.token), policy)
        if caught_up is not None:
            return LoadedView(state, caught_up, manifest)
        manifest = None
    loaded = load_in_steps(snapshot, state, policy)
    return loaded and replace(loaded, manifest=manifest)


def _open_newest(
    snapshot: Snapshot, state: LibraryState, known: Mapping[str, Segment]
) -> tuple[Manifest | None, tuple[Segment, ...]] | None:
    """The newest manifest that is undamaged and belongs to the library's history, with its segments; (None, ()) where
    there is none. None where files were missing, or all are newer than `snapshot`, and there are others or the library
    is in another state by now: a newer snapshot may use them.

    The database's column says when there is a newer one; which one can be used, the files say. So several hosts may
    share a database, each with index files of its own.
    """
    folder, identity = index_folder(state.uid), identity_of(state)
    found: tuple[Manifest | None, tuple[Segment, ...]] = None, ()
    damages = []
    is_ahead = False
    numbers = folder.numbers()
    for number in numbers:
        try:
            manifest = folder.read(number, identity)
            if manifest.usable_seq > state.position.seq:
                # Written after this snapshot was taken; or the database was put back to an older copy.
                is_ahead = True
                logger.info("index of library %s: manifest %s is ahead of the database", state.public_id, number)
            elif _is_in_history(snapshot, state, manifest):
                found = manifest, folder.open(manifest, known)
                break
            elif manifest.seq:
                damages.append(f"manifest {number} is of another history of the library")
        except Superseded as error:
            logger.info("index of library %s: %s", state.public_id, error)
        except Damaged as error:
            damages.append(str(error))
    if damages and folder.numbers() != numbers:
        return None
    if is_ahead and found[0] is None and _has_moved_on(snapshot, state):
        return None
    if damages:
        instead = "the rows serve" if found[0] is None else f"manifest {found[0].number} serves"
        # Of several processes that find the same, one warns.
        level = logging.WARNING if folder.note_damage(damages[0]) else logging.INFO
        logger.log(level, "index of library %s: %s; %s instead", state.public_id, damages[0], instead)
    return found


def _has_moved_on(snapshot: Snapshot, state: LibraryState) -> bool:
    """Whether the library is in another state than `state` by now. `snapshot` is a new one afterwards."""
    snapshot.renew()
    now = snapshot.library(state.public_id)
    return now is None or now.position != state.position


def _is_in_history(snapshot: Snapshot, state: LibraryState, manifest: Manifest) -> bool:
    if manifest.usable_seq:
        positions = {Position(manifest.seq, manifest.token), Position(manifest.usable_seq, manifest.usable_token)}
        return all(snapshot.has(state.key, position) for position in positions)
    # A library that was never written to has no entry to stand at.
    return state.position.seq == 0


def sealed_position(state: LibraryState) -> int | None:
    """The log's position of the newest manifest that can be read; None where there is none."""
    manifest = index_folder(state.uid).newest(identity_of(state))
    return None if manifest is None else manifest.seq


def index_folder(uid: str) -> IndexFolder:
    """Where the index files of a library are."""
    return IndexFolder(settings.INDEX_DIR / uid)


def identity_of(state: LibraryState) -> Identity:
    """What index files of the library must say they are."""
    return Identity(state.uid, state.dimension or 0, state.metric.value, state.generation, state.unindexed)


def load_in_steps(snapshot: Snapshot, state: LibraryState, policy: LoadingPolicy = DEFAULT_POLICY) -> LoadedView | None:
    """The view of all rows, in the state of `snapshot` at the end: it is renewed between pages. None where the library
    is gone by then, or its vectors are others than those of `state`."""
    if state.position.seq == 0:
        # There is nothing in the log to catch up from.
        return LoadedView(state, load(snapshot, state, policy))
    seen: set[Position] = set()
    pages = 1

    def renew() -> None:
        nonlocal pages
        pages += 1
        snapshot.renew()
        between = snapshot.library(state.public_id)
        if between is not None:
            seen.add(between.position)

    view = _view_of(state, policy, read_all(snapshot, state, policy.page_rows, renew))
    if pages == 1:
        return LoadedView(state, view)
    now = snapshot.library(state.public_id)
    if now is None or now.vector_identity != state.vector_identity:
        return None
    # Files that were made meanwhile are not what this view is of: the next reader is to open them.
    now = replace(now, manifest_number=state.manifest_number)
    # A row that changed after the first page may have been read before or after that; now it is read again. Where the
    # database was put back meanwhile, some pages are of another history, and all rows are read again.
    caught_up = None
    if all(snapshot.has(now.key, position) for position in seen):
        caught_up = catch_up(snapshot, now, view, state.position, policy)
    return LoadedView(now, load(snapshot, now, policy) if caught_up is None else caught_up)


def load(snapshot: Snapshot, state: LibraryState, policy: LoadingPolicy = DEFAULT_POLICY) -> View:
    """The view of all rows, in one snapshot."""
    return _view_of(state, policy, read_all(snapshot, state, policy.page_rows, lambda: None))


def _view_of(state: LibraryState, policy: LoadingPolicy, stored: StoredRows) -> View:
    return View.build(
        dimension=state.dimension or 0, metric=state.metric, compact_rows=policy.compact_rows, **stored._asdict()
    )


def catch_up(
    snapshot: Snapshot, state: LibraryState, view: View, since: Position, policy: LoadingPolicy = DEFAULT_POLICY
) -> View | None:
    """The view of `state`, made from `view`, which stands at `since`; None where the library's history does not contain
    `since` any more, or reading all rows is quicker."""
    if not snapshot.has(state.key, since):
        return None
    if snapshot.count_changed(state.key, since.seq) > max(policy.max_replay, len(view) // 2):
        return None
    changed, gone = read_changed(snapshot, state, since.seq)
    return view.apply(**changed._asdict(), gone=gone)
