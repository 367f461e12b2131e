"""Writes of chunks that leave out those that cannot be stored (`on_invalid: skip`).

The write is tried with all chunks. Where it is refused for some of them, it is tried again without these: the service
has the rules, and each attempt is a transaction of its own, of which the last is kept.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, Invalid, LibraryError, NotFound
from apps.libraries.inputs import ChunksWrite
from apps.libraries.services.chunks import WriteResult, update_chunks, upsert_chunks

_CHUNK = re.compile(r"/chunks/(\d+)(/.*)?")


def write_chunks(
    *, library_id: str, write: ChunksWrite, invalid: Mapping[int, Sequence[Fault]] | None = None
) -> WriteResult:
    """Upsert, insert or update chunks, as `write` says. Those that are `invalid` already, by their numbers, are
    skipped. Raises as `upsert_chunks` and `update_chunks`."""

    def write_all(some: ChunksWrite) -> WriteResult:
        service = update_chunks if some.mode == "update" else upsert_chunks
        return service(library_id=library_id, write=some)

    return (
        write_all(write) if write.on_invalid == "refuse" else _write_valid(library_id, write, invalid or {}, write_all)
    )


def _write_valid(
    library_id: str,
    write: ChunksWrite,
    invalid: Mapping[int, Sequence[Fault]],
    write_all: Callable[[ChunksWrite], WriteResult],
) -> WriteResult:
    skipped = dict(invalid)
    while True:
        numbers = [i for i in range(len(write.chunks)) if i not in skipped]
        result = WriteResult([], created=0, updated=0)
        if numbers:
            try:
                result = write_all(write.model_copy(update={"chunks": [write.chunks[i] for i in numbers]}))
            except (Invalid, Conflict, NotFound) as error:
                skipped |= _faults_by_chunk(error, numbers)
                continue
        else:
            selectors.library_row(library_id)
        return replace(result, skipped=dict(sorted(skipped.items())))


def _faults_by_chunk(error: LibraryError, numbers: Sequence[int]) -> dict[int, Sequence[Fault]]:
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
