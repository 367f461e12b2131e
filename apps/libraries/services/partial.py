"""Writes of chunks that leave out those that cannot be stored (`on_invalid: skip`).

The write is tried with all chunks. Where it is refused for some of them, it is tried again without these: the service
has the rules, and each attempt is a transaction of its own, of which the last is kept.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, Invalid, LibraryError, NotFound
from apps.libraries.inputs import ChunksWrite
from apps.libraries.services.chunks import Skipped, WriteResult, update_chunks, upsert_chunks

_CHUNK = re.compile(r"/chunks/(\d+)(/.*)?")


def write_chunks(*, library_id: str, write: ChunksWrite, invalid: Skipped | None = None) -> WriteResult:
    """Upsert, insert or update chunks, as `write` says. Those that are `invalid` already, by their numbers, are
    skipped. Raises as `upsert_chunks` and `update_chunks`."""
    service = update_chunks if write.mode == "update" else upsert_chunks
    if write.on_invalid == "refuse":
        return service(library_id=library_id, write=write)
    skipped = dict(invalid or {})
    while True:
        numbers = [i for i in range(len(write.chunks)) if i not in skipped]
        in_order = dict(sorted(skipped.items()))
        if not numbers:
            selectors.library_row(library_id)
            return WriteResult([], created=0, updated=0, skipped=in_order)
        valid = write.model_copy(update={"chunks": [write.chunks[i] for i in numbers]})
        try:
            return service(library_id=library_id, write=valid, skipped=in_order)
        except (Invalid, Conflict, NotFound) as error:
            skipped |= _faults_by_chunk(error, numbers)


def _faults_by_chunk(error: LibraryError, numbers: Sequence[int]) -> Skipped:
    """The faults of a write of the chunks with these numbers, by number. Raises `error` unless all are of chunks."""
    found: defaultdict[int, list[Fault]] = defaultdict(list)
    for fault in error.faults:
        place = _CHUNK.fullmatch(fault.pointer)
        if place is None:
            raise error
        number = numbers[int(place[1])]
        found[number].append(Fault(f"/chunks/{number}{place[2] or ''}", fault.detail))
    if not found:
        raise error
    return dict(found)
