"""What there is to know about a library and its index."""

from datetime import UTC, datetime
from typing import Any

from apps.engine.registry import index_type
from apps.engine.view import View
from apps.search.cache import views
from apps.search.snapshots import open_snapshot


def library_stats(*, library_id: str) -> dict[str, Any]:
    """Counts, revision and the state of the index, from one snapshot. Raises NotFound.

    Brings this process's view up to date first, and describes that: pending rows are those of its tail. They are found
    like all others; nothing is stale.
    """
    with open_snapshot() as snapshot:
        current = views.current(snapshot, library_id)
        state, view = current.state, current.view
        [(documents,)] = snapshot.rows("SELECT count(*) FROM document WHERE library_id = %s", [state.key])
        [(chunks,)] = snapshot.rows("SELECT count(*) FROM chunk WHERE library_id = %s", [state.key])
    return {
        "documents": documents,
        "chunks": chunks,
        "revision": state.position.seq,
        "index": {
            "kind": index_type(state.index_type).kind,
            "state": "ready",
            "rows_indexed": 0 if view is None else len(view) - view.pending,
            "rows_pending": 0 if view is None else view.pending,
            "rows_dead": 0 if view is None else view.dead,
            "bytes": 0 if view is None else view.nbytes,
            "built_at": None if view is None else _rfc3339(view.built_at),
            "segments": [] if view is None else _segments(view),
        },
    }


def _segments(view: View) -> list[dict[str, Any]]:
    return [
        {"kind": segment.index.kind, "rows": len(segment.keys) - segment.dead, "rows_dead": segment.dead}
        for segment in view.segments
    ]


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
