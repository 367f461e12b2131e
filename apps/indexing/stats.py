"""What there is to know about a library and its index."""

from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any

from apps.engine import kernels
from apps.engine.indexes.registry import index_type
from apps.engine.storage.index_folder import IndexFolder
from apps.engine.storage.memory import memory
from apps.indexing.merge_policy import matches_config, next_step, status_of, summarize, target
from apps.indexing.policy import DEFAULT_POLICY, IndexingPolicy
from apps.indexing.recall_watch import recall_of
from apps.libraries import selectors
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.libraries.expiry import EXPIRED_CHUNKS, EXPIRED_DOCUMENTS
from apps.search.cache import views
from apps.search.loading import LoadedView, index_folder
from apps.search.snapshots import Snapshot, open_snapshot


def library_stats(*, library_id: str, policy: IndexingPolicy = DEFAULT_POLICY) -> dict[str, Any]:
    """Counts, revision and the state of the index, from one snapshot. Raises NotFound.

    Brings this process's view up to date first, and describes that. Pending rows are in no file of the configured type
    yet; an exact scan finds them like all others, so nothing is stale. The tail's rows are in memory, in no segment.
    The state is `building` exactly while maintenance has something to do that needs no further write.
    """
    with open_snapshot() as snapshot:
        current = views.current(snapshot, library_id)
        state = current.state
        documents = _count_live(snapshot, "vectordb_document", state.key, EXPIRED_DOCUMENTS)
        move = selectors.reembedding(library_key=state.key, using=SNAPSHOT_ALIAS)
        reembedding = None if move is None else selectors.reembedding_data(move)
        chunks = _count_live(snapshot, "vectordb_chunk", state.key, EXPIRED_CHUNKS)
        is_building = _is_building(snapshot, current, index_folder(state.uid), policy)
        current = replace(current, view=current.view.at(snapshot.now))
    return {
        "documents": documents,
        "chunks": chunks,
        "chunks_without_vector": current.view.bare,
        "revision": state.position.seq,
        "index": _index(current, is_building, policy),
        "recall": _recall(state.uid),
        "reembedding": reembedding,
    }


def _count_live(snapshot: Snapshot, table: str, library_key: int, expired: str) -> int:
    """The number of the library's rows in a table without those whose keys `expired` selects. Reads no more than a
    count of all does, and those that have expired."""
    sql = f"SELECT count(*) FROM {table} WHERE library_id = %s"
    [(rows,)] = snapshot.rows(sql, [library_key])
    moments = [snapshot.moment] * expired.count("%s")
    [(gone,)] = snapshot.rows(f"{sql} AND id IN ({expired})", [library_key, *moments])
    return int(rows) - int(gone)


def _is_building(snapshot: Snapshot, current: LoadedView, folder: IndexFolder, policy: IndexingPolicy) -> bool:
    """Whether something is due, now or when the library has been quiet for long."""
    if folder.damage() is not None or (current.manifest is not None and folder.stamps(current.manifest) is None):
        return True
    return next_step(status_of(snapshot, current, folder, policy), inf, policy) is not None


def _index(current: LoadedView, is_building: bool, policy: IndexingPolicy) -> dict[str, Any]:
    state, view = current.state, current.view
    failure = index_folder(state.uid).failure()
    # Of a library without vectors, the type that it would have.
    kind, _ = target(state, len(view) - view.bare, state.dimension or 1, policy)
    warning = kernels.MISSING if kernels.are_missing() else index_type(kind).warning(state.dimension or 0)
    indexed = sum(segment.live for segment in summarize(view) if matches_config(segment, state, policy))
    return {
        "kind": kind,
        "state": "failed" if failure else "building" if is_building else "ready",
        "error": failure,
        "warning": warning,
        "rows_indexed": indexed,
        "rows_pending": len(view) - indexed,
        "rows_tail": view.tail.live + view.bare_tail.live,
        "rows_dead": view.dead,
        "bytes": view.nbytes,
        "memory": {name: found._asdict() for name, found in memory(view).items()},
        "built_at": _rfc3339(view.built_at),
        "segments": [
            {
                "kind": segment.index.kind,
                "rows": segment.live,
                "rows_dead": segment.dead,
                "bytes": segment.nbytes,
                "resident_bytes": segment.resident_bytes,
            }
            for segment in view.segments
        ],
    }


def _recall(uid: str) -> dict[str, Any] | None:
    recall = recall_of(uid)
    return None if recall is None else recall | {"since": _rfc3339(recall["since"])}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
