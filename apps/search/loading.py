"""From index files or rows to a view, and from changes to the next one; what comes out is always of one snapshot.

Opening maps the newest manifest's files and applies the changes since. Loading, where there is no manifest that can be
used, costs one pass over the library's rows, and its vectors' memory once; it reads each page in a snapshot of its own
and then applies the changes since the first, so that no snapshot is held for as long as that takes. Catching up costs
what changed. Vectors that no search can use, or of another length than the library's dimension, are left out: no
service has written them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import compress
from typing import Any

import numpy as np
from django.conf import settings

from apps.engine.errors import Damaged, Superseded
from apps.engine.metadata import Attributes
from apps.engine.metrics import Metric
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.manifest import Identity, Manifest
from apps.engine.storage.row_data import Row
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.engine.vectors import DTYPE, Float32, Int64, usable
from apps.libraries.dialects.base import Dialect
from apps.search.snapshots import LibraryState, Position, Snapshot

logger = logging.getLogger(__name__)

_ROWS_PER_PAGE = 2000
_BELOW_ALL_KEYS = -(2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Past so many changes, or half as many as there are rows, reading all rows is quicker than replaying.
_REPLAY_AT_MOST = 20_000

_EXTENT = """
    SELECT count(*), max(chunk.id)
    FROM vectordb_chunk AS chunk
    JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
    WHERE chunk.library_id = %s AND length(embedding.vector) = %s"""

_ROW = "embedding.vector, chunk.public_id, document.public_id, chunk.created_at, {metadata}, chunk.text"

_PAGE = f"""
    SELECT chunk.id, {_ROW}
    FROM vectordb_chunk AS chunk
    JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
    LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id
    WHERE chunk.library_id = %s AND length(embedding.vector) = %s AND chunk.id > %s AND chunk.id <= %s
    ORDER BY chunk.id LIMIT %s"""

_CHANGED = f"""
    SELECT changed.chunk_key, {_ROW}
    FROM (SELECT DISTINCT chunk_key FROM vectordb_change WHERE library_key = %s AND seq > %s) AS changed
    LEFT JOIN vectordb_chunk AS chunk ON chunk.id = changed.chunk_key AND chunk.library_id = %s
    LEFT JOIN vectordb_document AS document ON document.id = chunk.document_id
    LEFT JOIN vectordb_embedding AS embedding ON embedding.chunk_id = chunk.id AND embedding.generation = %s
                       AND length(embedding.vector) = %s"""


def open_view(
    snapshot: Snapshot, state: LibraryState, known: Iterable[Segment] = ()
) -> tuple[LibraryState, View, Manifest | None] | None:
    """The view of `state`, from index files where they can be used, and their manifest; else from the rows, and of the
    state in which `snapshot` is then. None as `load_in_steps`. `known` are segments of this library that are mapped
    already."""
    manifest, segments = _newest_manifest(snapshot, state, {segment.name: segment for segment in known if segment.name})
    if manifest is not None and manifest.seq:
        view = View.of(
            dimension=manifest.identity.dimension,
            metric=state.metric,
            segments=segments,
            built_at=manifest.created_at,
        )
        caught_up = catch_up(snapshot, state, view, Position(manifest.seq, manifest.token))
        if caught_up is not None:
            return state, caught_up, manifest
        manifest = None
    loaded = load_in_steps(snapshot, state)
    return None if loaded is None else (*loaded, manifest)


def _newest_manifest(
    snapshot: Snapshot, state: LibraryState, known: Mapping[str, Segment]
) -> tuple[Manifest | None, tuple[Segment, ...]]:
    """The newest manifest that is undamaged and belongs to the library's history, with its segments; else None.

    The database's column says when there is a newer one; which one can be used, the files say. So several hosts may
    share a database, each with index files of its own.
    """
    assert state.dimension is not None
    folder = index_folder(state.uid)
    found: tuple[Manifest | None, tuple[Segment, ...]] = None, ()
    damages = []
    for number in folder.numbers():
        try:
            manifest = folder.read(number, identity_of(state))
            if manifest.usable_seq > state.position.seq:
                # Written after this snapshot was taken; or the database was put back to an older copy.
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
    if damages:
        instead = "the rows serve" if found[0] is None else f"manifest {found[0].number} serves"
        # Maintenance looks for the mark; of several processes that find the same, one tells.
        level = logging.WARNING if folder.note_damage(damages[0]) else logging.INFO
        logger.log(level, "index of library %s: %s; %s instead", state.public_id, damages[0], instead)
    return found


def _is_in_history(snapshot: Snapshot, state: LibraryState, manifest: Manifest) -> bool:
    if manifest.usable_seq:
        positions = {Position(manifest.seq, manifest.token), Position(manifest.usable_seq, manifest.usable_token)}
        return all(snapshot.has(state.key, position) for position in positions)
    # A library that was never written to has no entry to stand at.
    return state.position.seq == 0


def sealed_position(state: LibraryState) -> int | None:
    """The log's position of the newest manifest that can be read; None where there is none."""
    manifest = None if state.dimension is None else index_folder(state.uid).newest(identity_of(state))
    return None if manifest is None else manifest.seq


def index_folder(uid: str) -> IndexFolder:
    """Where the index files of a library are."""
    return IndexFolder(settings.INDEX_DIR / uid)


def identity_of(state: LibraryState) -> Identity:
    """What index files of the library must say they are."""
    assert state.dimension is not None
    return Identity(state.uid, state.dimension, state.metric.value, state.generation)


def load_in_steps(snapshot: Snapshot, state: LibraryState) -> tuple[LibraryState, View] | None:
    """The view of all rows, and the state that it shows: that of `snapshot`, which has been renewed many times.

    None where the library is gone by then, or its vectors are others than those of `state`.
    """
    if not snapshot.has(state.key, state.position):
        return state, load(snapshot, state)
    seen: set[Position] = set()

    def renew() -> None:
        snapshot.renew()
        between = snapshot.library(state.public_id)
        if between is not None:
            seen.add(between.position)

    view = _read(snapshot, state, between_pages=renew)
    now = snapshot.library(state.public_id)
    if now is None or now.vector_identity != state.vector_identity:
        return None
    # Files that were made meanwhile are not what this view is of: whoever asks next is to open them.
    now = replace(now, manifest_number=state.manifest_number)
    # A row that has changed since the first page may have been read before that or after; now it is read again. Not so
    # where the database was put back, and some pages are of another history.
    caught_up = None
    if all(snapshot.has(now.key, position) for position in seen):
        caught_up = catch_up(snapshot, now, view, state.position)
    return now, load(snapshot, now) if caught_up is None else caught_up


def load(snapshot: Snapshot, state: LibraryState) -> View:
    """The view of all rows, in one snapshot; `state.dimension` must not be None."""
    return _read(snapshot, state, between_pages=lambda: None)


def _read(snapshot: Snapshot, state: LibraryState, between_pages: Callable[[], None]) -> View:
    assert state.dimension is not None
    params = [state.generation, state.key, state.dimension * DTYPE.itemsize]
    [(count, greatest)] = snapshot.rows(_EXTENT, params)
    keys = np.empty(count, np.int64)
    vectors = np.empty((count, state.dimension), np.float32)
    rows: list[Row] = []
    end, last = 0, _BELOW_ALL_KEYS
    statement = _statement(_PAGE, snapshot.dialect)
    # By pages: a client of PostgreSQL would hold all rows at once. Rows are added at the end, perhaps faster than this.
    while count and last != greatest and (block := snapshot.rows(statement, [*params, last, greatest, _ROWS_PER_PAGE])):
        between_pages()
        last = block[-1][0]
        found, matrix, besides = _usable(block, state.metric, state.dimension)
        start, end = end, end + len(found)
        if end > len(keys):
            # Rows were added among these since they were counted; they are few.
            keys.resize(end, refcheck=False)
            vectors.resize((end, state.dimension), refcheck=False)
        keys[start:end], vectors[start:end] = found, matrix
        rows += besides
    return View.build(dimension=state.dimension, metric=state.metric, keys=keys[:end], vectors=vectors[:end], rows=rows)


def catch_up(snapshot: Snapshot, state: LibraryState, view: View, since: Position) -> View | None:
    """The view of `state`, made from `view`, which stands at `since`; None where the library's history does not contain
    `since` any more, or reading all rows is quicker."""
    if not snapshot.has(state.key, since):
        return None
    if snapshot.count_changes(state.key, since.seq) > max(_REPLAY_AT_MOST, len(view) // 2):
        return None
    changed = snapshot.rows(
        _statement(_CHANGED, snapshot.dialect),
        [state.key, since.seq, state.key, state.generation, view.dimension * DTYPE.itemsize],
    )
    keys, vectors, rows = _usable([row for row in changed if row[1] is not None], state.metric, view.dimension)
    touched = np.array([row[0] for row in changed], np.int64)
    return view.advanced(keys=keys, vectors=vectors, rows=rows, gone=np.setdiff1d(touched, keys))


@lru_cache(maxsize=4096)
def _microseconds(moment: str | datetime) -> int:
    """A time of the database in microseconds since the epoch; what is no time, which no service writes, is 0."""
    try:
        at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        return 0
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


@lru_cache
def _statement(sql: str, dialect: Dialect) -> str:
    return sql.format(metadata=dialect.json_text("chunk.metadata"))


def _usable(found: list[tuple[Any, ...]], metric: Metric, dimension: int) -> tuple[Int64, Float32, list[Row]]:
    """Keys, vectors and what is besides, of rows of the database, without those that no search could use: what a
    service has checked may have been written past it."""
    vectors = np.frombuffer(b"".join([row[1] for row in found]), DTYPE).reshape(len(found), dimension)
    fine = usable(vectors, metric)
    if not fine.all():
        found, vectors = list(compress(found, fine)), vectors[fine]
    keys = np.array([row[0] for row in found], np.int64)
    rows = [
        Row(Attributes(id, document_id, _microseconds(created_at), metadata), text)
        for _, _, id, document_id, created_at, metadata, text in found
    ]
    return keys, vectors, rows
