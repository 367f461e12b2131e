"""Lines of JSON. In an export the first is the library, then come documents, then chunks, and last how many there were:

    {"library": {"name": "Animals", "dimension": 3, ...}, "format": 1}
    {"document": {"id": "cats", "title": "Cats", ...}}
    {"id": "cats-1", "document_id": "cats", "text": "...", "embedding": "AACAPwAAAAAAAAAA", ...}
    {"end": {"documents": 1, "chunks": 1}}

A chunk is what POST /chunks takes, so lines of chunks alone are a file, too.
"""

import base64
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from apps.libraries.errors import Invalid
from apps.transfer.formats.base import LARGEST_HEAD, Format
from apps.transfer.formats.lines import dump_lines, parse_object, read_lines
from apps.transfer.rows import Batch, Gathering, LibraryData, Source
from apps.transfer.stored import ChunkRow, StoredLibrary, chunk_data, document_data

VERSION: Final = 1


class Jsonl(Format):
    """Lines of JSON."""

    media_type = "application/x-ndjson"

    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        yield dump_lines(iter([{"library": stored.library, "format": VERSION}]))
        documents = chunks = 0
        for page in stored.documents():
            documents += len(page)
            yield dump_lines({"document": document_data(row)} for row in page)
        for rows in stored.chunks(with_vectors=True):
            chunks += len(rows)
            yield dump_lines(chunk_data(row) | {"embedding": _vector(row)} for row in rows)
        yield dump_lines(iter([{"end": {"documents": documents, "chunks": chunks}}]))

    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        library = read_head(file.readline(LARGEST_HEAD))
        place = {"offset": 0, "line": 0, "has_ended": library is None} if start is None else start
        return Source(library or {}, _batches(file, **place), total, "B", runs_in_threads=True)


def _vector(row: ChunkRow) -> str | None:
    return None if row.vector is None else base64.b64encode(row.vector).decode()


def read_head(line: bytes) -> LibraryData | None:
    """The library that the first line of an export has; None where it is something else. Raises Invalid for an export
    of a newer version."""
    try:
        head = parse_object(line)
    except ValueError:
        return None
    library = head.get("library")
    if not isinstance(library, dict):
        return None
    if head.get("format") != VERSION:
        raise Invalid(f"This is an export of format {head.get('format')!r}; this server reads format {VERSION}.")
    return library  # type: ignore[return-value]


def _batches(file: BinaryIO, offset: int, line: int, has_ended: bool) -> Iterator[Batch]:
    """The rows behind a line. Raises Invalid at the end of a file that should have said that this is its end."""
    file.seek(offset)
    rows = Gathering()
    for text in read_lines(file):
        line += 1
        has_ended = _add(rows, f"line {line}", text) or has_ended
        if rows.is_full:
            yield rows.take(_place(file, line, has_ended), file.tell())
    if not has_ended:
        raise Invalid(f"The file is cut off: it has no last line that counts its rows, but ends at line {line}.")
    yield rows.take(_place(file, line, has_ended), file.tell())


def _place(file: BinaryIO, line: int, has_ended: bool) -> dict[str, Any]:
    return {"offset": file.tell(), "line": line, "has_ended": has_ended}


def _add(rows: Gathering, at: str, line: bytes | None) -> bool:
    """Add what a line has; return whether it is the last one of an export."""
    if line is not None and not line.strip():
        return False
    try:
        row = parse_object(line)
    except ValueError as error:
        rows.refused[at] = str(error)
        return False
    rows.bytes += len(line or b"")
    if row.keys() == {"document"} and isinstance(row["document"], dict):
        rows.documents[at] = row["document"]  # type: ignore[assignment]
    elif row.keys() == {"end"}:
        return True
    elif not row.keys() <= {"library", "format"}:
        rows.chunks[at] = row  # type: ignore[assignment]
    return False
