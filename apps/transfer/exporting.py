"""A library as a file: all of it from one snapshot, in parts, so that memory does not grow with it."""

from collections.abc import Iterator

from apps.search.snapshots import open_snapshot
from apps.transfer.formats.base import Format
from apps.transfer.stored import StoredLibrary


def export_library(*, library_id: str, format: Format) -> Iterator[bytes]:
    """The parts of a file that has the library. The snapshot is opened when the first is asked for, in that thread, and
    held until the last was taken: writers go on meanwhile. Raises NotFound, Refused for a key that was revoked."""
    with open_snapshot() as snapshot:
        yield from filter(None, format.write(StoredLibrary.open(snapshot, library_id)))
