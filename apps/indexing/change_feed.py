"""Which libraries have changed since the last read, whoever changed them.

The change log tells: it names the libraries of changed chunks, and those whose row was made, changed or deleted. So a
read costs what changed, and one small statement while nobody commits anything. The log's numbers become visible in
order within a library, and on SQLite in all. On PostgreSQL a transaction may commit after another one that took later
numbers for another library: a full read, as each sweep does, finds what that hid. It costs some microseconds a library.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from apps.search.snapshots import LibraryState, Snapshot, StateRow

_NEWEST = "SELECT seq, token, library_key FROM vectordb_change ORDER BY seq DESC LIMIT 1"
# By the primary key: the plus keeps SQLite from a scan of the index that has the library first.
_SINCE = """
    SELECT +library_key FROM vectordb_change WHERE seq > %s AND +library_key <> 0
    UNION SELECT chunk_key FROM vectordb_change WHERE seq > %s AND library_key = 0"""


class Changes(NamedTuple):
    """Libraries that may have changed, in order of creation, and the uids of those that were deleted."""

    states: Collection[LibraryState] = ()
    deleted: Collection[str] = ()


class _Entry(NamedTuple):
    """An entry of the log; the library's key is 0 where it names a library."""

    seq: int
    token: int
    library_key: int


class ChangeFeed:
    """The libraries that have changed since the last read."""

    def __init__(self) -> None:
        self._version: tuple[Any, Any] | None = None
        # All libraries by key, as they were read last.
        self._rows: dict[int, StateRow] = {}
        self._last = _Entry(0, 0, 0)

    @property
    def uids(self) -> set[str]:
        """Those of all libraries."""
        return {row.uid for row in self._rows.values()}

    def read(self, snapshot: Snapshot, *, everything: bool = False) -> Changes:
        """What has changed; at the first read all libraries have. With `everything`, look at all of them."""
        version = snapshot.version()
        if version == self._version and not everything:
            return Changes()
        newest = _Entry(*(snapshot.rows(_NEWEST) or [(0, 0, 0)])[0])
        keys = None if everything else self._changed_keys(snapshot, newest)
        rows = {row.key: row for row in snapshot.library_rows(keys)}
        gone = (self._rows.keys() if keys is None else keys) - rows.keys()
        deleted = [self._rows.pop(key).uid for key in gone if key in self._rows]
        states = [row.state() for key, row in rows.items() if self._rows.get(key) != row]
        self._rows |= rows
        self._version, self._last = version, newest
        return Changes(states, deleted)

    def _changed_keys(self, snapshot: Snapshot, newest: _Entry) -> set[int] | None:
        """The keys that the log names past the last read; None where it is not the log that was read then."""
        if newest == self._last:
            return set() if self._rows else None
        keys = {key for (key,) in snapshot.rows(_SINCE, [self._last.seq] * 2)}
        return keys if self._is_continued(snapshot, keys) else None

    def _is_continued(self, snapshot: Snapshot, keys: set[int]) -> bool:
        """Whether the log still has the entry that was its newest one, or its library was deleted meanwhile. It has not
        at the first read, and after the database was put back to an older copy, whose entries have other tokens."""
        entry = snapshot.rows("SELECT token FROM vectordb_change WHERE seq = %s", [self._last.seq])
        if entry:
            return entry == [(self._last.token,)]
        return self._last.library_key in keys and not snapshot.existing_keys([self._last.library_key])
