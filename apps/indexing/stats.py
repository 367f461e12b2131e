"""What there is to know about a library and its index."""

from datetime import UTC, datetime
from typing import Any

from apps.engine.indexes.registry import chosen_kind, index_type
from apps.indexing import merge_policy as planning
from apps.libraries import selectors
from apps.libraries.dialects import SNAPSHOT_ALIAS
from apps.search.cache import views
from apps.search.loading import LoadedView, index_folder
from apps.search.snapshots import open_snapshot


def library_stats(*, library_id: str) -> dict[str, Any]:
    """Counts, revision and the state of the index, from one snapshot. Raises NotFound.

    Brings this process's view up to date first, and describes that. Pending rows are those that are not yet in a file
    of the wished type; they are found like all others, by an exact scan: nothing is stale. The tail's rows are in
    memory, in no segment. The state is `building` exactly while maintenance has something to do that no further write
    is needed for.
    """
    with open_snapshot() as snapshot:
        current = views.current(snapshot, library_id)
        state = current.state
        [(documents,)] = snapshot.rows("SELECT count(*) FROM vectordb_document WHERE library_id = %s", [state.key])
        move = selectors.reembedding(library_key=state.key, using=SNAPSHOT_ALIAS)
        reembedding = None if move is None else selectors.reembedding_data(move)
        [(chunks,)] = snapshot.rows("SELECT count(*) FROM vectordb_chunk WHERE library_id = %s", [state.key])
        is_settled = planning.is_settled(snapshot, current, index_folder(state.uid))
    return {
        "documents": documents,
        "chunks": chunks,
        "revision": state.position.seq,
        "index": _index(current, is_settled),
        "reembedding": reembedding,
    }


def _index(current: LoadedView, is_settled: bool) -> dict[str, Any]:
    state, view = current.state, current.view
    failure = index_folder(state.uid).failure()
    segments = () if view is None else view.segments
    rows = 0 if view is None else len(view)
    kind = chosen_kind(state.index_type, rows, state.dimension or 0)
    wished = [one for one in segments if one.name and planning.matches_config(one, state)]
    indexed = sum(segment.live for segment in wished)
    return {
        "kind": kind,
        "state": "failed" if failure else "ready" if is_settled else "building",
        "error": failure,
        "warning": index_type(kind).warning(state.dimension or 0),
        "rows_indexed": indexed,
        "rows_pending": rows - indexed,
        "rows_tail": 0 if view is None else view.tail.live,
        "rows_dead": 0 if view is None else view.dead,
        "bytes": 0 if view is None else view.nbytes,
        "built_at": None if view is None else _rfc3339(view.built_at),
        "segments": [
            {"kind": segment.index.kind, "rows": segment.live, "rows_dead": segment.dead, "bytes": segment.nbytes}
            for segment in segments
        ],
    }


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
