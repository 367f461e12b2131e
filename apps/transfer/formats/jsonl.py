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

import orjson

from apps.libraries.errors import Invalid
from apps.transfer.formats.base import LARGEST_HEAD, Format
from apps.transfer.formats.lines import dump_lines, parse_object, read_lines
from apps.transfer.rows import Batch, Gathering, LibraryData, Source
from apps.transfer.stored import ChunkPage, StoredLibrary, chunks_data, document_data

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
        for chunk_page in stored.chunks(with_vectors=True):
            chunks += len(chunk_page.id)
            vectors = _vectors(chunk_page, stored.vector_bytes)
            yield dump_lines(
                row | {"embedding": vector} for row, vector in zip(chunks_data(chunk_page), vectors, strict=True)
            )
        yield dump_lines(iter([{"end": {"documents": documents, "chunks": chunks}}]))

    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        line = file.readline(LARGEST_HEAD)
        if line.strip() and not line.lstrip().startswith(b"{"):
            raise Invalid(
                "The file is no JSON lines in UTF-8: its first line must be a JSON object, and begins with "
                f"{line[:8]!r}. Nothing of it was imported."
            )
        library = read_head(line)
        place = {"offset": 0, "line": 0, "has_ended": library is None, "others": 0} if start is None else start
        return Source(library or {}, _batches(file, **place), total, "B", runs_in_threads=True)


def _vectors(page: ChunkPage, size: int) -> Iterator[orjson.Fragment | None]:
    vectors, at = memoryview(page.vectors), 0
    for key in page.vector_of:
        if key is None:
            yield None
            continue
        # As JSON text: orjson would look at each character of a string.
        yield orjson.Fragment(b'"%b"' % base64.b64encode(vectors[at : at + size]))
        at += size


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


def _batches(file: BinaryIO, offset: int, line: int, has_ended: bool, others: int = 1, end: int = 0) -> Iterator[Batch]:
    """The rows behind a line. Of the lines up to it, `others` are no rows, and `end` is the one that counts the rows, 0
    before that; `has_ended` is false as long as such a line must follow. Raises Invalid where it does not, or does not
    count what is there, after the rows that are."""
    file.seek(offset)
    rows, fault = Gathering(), ""

    def take() -> Batch:
        place = {"offset": offset, "line": line, "has_ended": has_ended, "others": others, "end": end}
        return rows.take(place, offset)

    for number, text in enumerate(read_lines(file), line + 1):
        if text is not None and not text.strip():
            others += 1
        elif end:
            fault = f"Line {number} comes behind the last line of an export, which is line {end}."
            break
        elif (row := _parse(rows, f"line {number}", text)) is None:
            # A first line that cannot be read is no row either, if there is a last one.
            others += number == 1
        elif row.keys() <= {"library", "format"}:
            if "library" in row and line > others:
                fault = f"At line {number} begins another export, before the end of what comes before it."
                break
            others += 1
        elif (counted := _count(row)) is not None:
            if fault := _compare(line - others, counted):
                break
            has_ended, end, others = True, number, others + 1
        else:
            _add(rows, f"line {number}", row)
        line, offset = number, file.tell()
        if rows.is_full:
            yield take()
    if not has_ended:
        fault = fault or f"The file is cut off: it has no last line that counts its rows, but ends at line {line}."
    yield take()
    if fault:
        raise Invalid(f"{fault} The rows that were read are in the library.")


def _parse(rows: Gathering, at: str, line: bytes | None) -> dict[str, Any] | None:
    """The object of a line; None for one that is refused."""
    try:
        row = parse_object(line)
    except ValueError as error:
        rows.refused[at] = str(error)
        return None
    rows.bytes += len(line or b"")
    return row


def _count(row: dict[str, Any]) -> int | None:
    """How many rows the last line of an export counts; None for another line."""
    end = row.get("end")
    if len(row) > 1 or not isinstance(end, dict):
        return None
    documents, chunks = end.get("documents"), end.get("chunks")
    return documents + chunks if isinstance(documents, int) and isinstance(chunks, int) else None


def _compare(found: int, counted: int) -> str:
    """What is wrong with the number of rows, empty where it is what the last line says."""
    if found < counted:
        return f"{counted - found} rows are missing: the last line counts {counted}, and there are {found}."
    if found > counted:
        return f"There are {found - counted} rows too many: the last line counts {counted}, and there are {found}."
    return ""


def _add(rows: Gathering, at: str, row: dict[str, Any]) -> None:
    if row.keys() == {"document"} and isinstance(row["document"], dict):
        rows.documents[at] = row["document"]  # type: ignore[assignment]
    else:
        rows.chunks[at] = row  # type: ignore[assignment]
