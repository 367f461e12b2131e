"""Which libraries have changed since the last read, whoever changed them: by their row, or by the change log.

A read costs one small statement while nobody commits anything. Else it costs a scan of the table of libraries, some
microseconds a row, and the log's entries since the last read. The log's numbers become visible in order within a
library, and on SQLite in all. On PostgreSQL a transaction may commit after another one that took later numbers for
another library: a full read, as each sweep does, finds what that hid.
"""

from typing import Any

from apps.search.snapshots import LibraryState, Position, Snapshot

_ROWS = """
    SELECT id, uid, dimension, index_type, {index_params}, generation, {unindexed}, manifest, rebuild
    FROM vectordb_library"""
_NEWEST = "SELECT seq, token FROM vectordb_change ORDER BY seq DESC LIMIT 1"
# By the primary key: the plus keeps SQLite from a scan of the index that has the library first.
_SINCE = "SELECT DISTINCT +library_key FROM vectordb_change WHERE seq > %s"


class ChangeFeed:
    """The libraries that have changed since the last read. `uids` are those of all libraries."""

    def __init__(self) -> None:
        self.uids: set[str] = set()
        self._version: tuple[Any, Any] | None = None
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._last = Position(0, 0)

    def read(self, snapshot: Snapshot, *, everything: bool = False) -> list[LibraryState]:
        """The states of the libraries that may have changed, in order of creation; of all at the first read."""
        version = snapshot.version()
        if version == self._version and not everything:
            return []
        statement = _ROWS.format(
            index_params=snapshot.dialect.json_text("index_params"), unindexed=snapshot.dialect.json_text("unindexed")
        )
        rows = {row[0]: row for row in snapshot.rows(statement)}
        newest = Position(*(snapshot.rows(_NEWEST) or [(0, 0)])[0])
        if everything or not self._is_continued(snapshot, newest):
            states = snapshot.libraries()
        else:
            changed = {key for key, row in rows.items() if self._rows.get(key) != row}
            if newest != self._last:
                changed |= {key for (key,) in snapshot.rows(_SINCE, [self._last.seq])}
            states = snapshot.libraries(changed) if changed else []
        self._version, self._rows, self._last, self.uids = version, rows, newest, {row[1] for row in rows.values()}
        return states

    def _is_continued(self, snapshot: Snapshot, newest: Position) -> bool:
        """Whether the log still has the entry that was its newest one. It has not at the first read, after a library
        was deleted, and after the database was put back to an older copy, whose entries have other tokens."""
        if newest == self._last:
            return bool(self._rows)
        entry = snapshot.rows("SELECT token FROM vectordb_change WHERE seq = %s", [self._last.seq])
        return entry == [(self._last.token,)]
