"""Tables of text with a head of names. A column is a field of a chunk, or metadata.

Cells are text. In metadata, those that JSON reads as a number, true or false are that; an empty cell is left out. A
cell of `metadata` is a JSON object, one of `embedding` or `vector` an array of numbers or base64.
"""

import csv
import io
import os
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, cast

import orjson

from apps.libraries.errors import Invalid
from apps.transfer.formats.base import Format
from apps.transfer.formats.lines import LONGEST_LINE
from apps.transfer.formats.sections import Section
from apps.transfer.formats.tables import fields_of
from apps.transfer.rows import Batch, ChunkData, Gathering, Source
from apps.transfer.stored import StoredLibrary

_SAMPLE_CHARACTERS = 1 << 16
_NEVER_CLOSED = "has a quote that is never closed"


class Csv(Format):
    """Comma-separated values, or with semicolons, tabs or bars between them."""

    media_type = "text/csv"

    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        raise NotImplementedError

    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        total = file.seek(0, os.SEEK_END)
        csv.field_size_limit(LONGEST_LINE)
        # Of a section, as it closes what it reads.
        section = io.BufferedReader(Section(file, 0, total))
        # What is no UTF-8 refuses its row, not the file.
        text = io.TextIOWrapper(section, "utf-8-sig", errors="surrogateescape", newline="")
        sample = text.read(_SAMPLE_CHARACTERS)
        if "\0" in sample:
            raise Invalid("The file is no text in UTF-8: it has the character NUL.")
        text.seek(0)
        lines = _Lines(text)
        try:
            reader = csv.reader(lines, **_style_of(sample))
            names = next(reader, [])
        except csv.Error as error:
            raise Invalid(f"The file is no CSV: {error}.") from None
        if lines.fault or lines.has_ended:
            raise Invalid(f"The first line, of names, {lines.fault or _NEVER_CLOSED}.")
        if len(set(names)) < len(names) or not any(names):
            raise Invalid("The first line must name the columns, each once.")
        fields = fields_of(names, columns or {})
        batches = _batches(reader, lines, [fields[name] for name in names], file, start or 0)
        return Source({}, batches, total, "B", runs_in_threads=True)


def _style_of(sample: str) -> Any:
    """What is between the cells: the character that makes most names of the head, and perhaps a space behind each.
    Quotes are as in RFC 4180: `csv.Sniffer` would take an apostrophe for one."""
    heads = {mark: next(csv.reader(io.StringIO(sample, newline=""), delimiter=mark), []) for mark in ",;\t|"}
    mark, names = max(heads.items(), key=lambda head: len(head[1]))
    return {"delimiter": mark, "skipinitialspace": len(names) > 1 and all(one[:1] == " " for one in names[1:])}


class _Lines:
    """The lines of a text, of which a row may have many. csv.Error is raised where a row has more characters than any
    needs: where the next one would begin, nobody knows then. `fault` says what is wrong with those of the row.

    Only within quotes a reader asks for what is behind the last line of a row: `has_ended` says that nothing was."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self.has_ended = False
        self.begin_row()

    def begin_row(self) -> None:
        """Count for the next row."""
        self._left, self.fault = LONGEST_LINE, ""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise csv.Error(f"a row is longer than {LONGEST_LINE} characters, which no row needs")
        if not line:
            self.has_ended = True
            raise StopIteration
        try:
            line.isascii() or line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) & 0xFF
            self.fault = f"is no text in UTF-8: it has the byte 0x{byte:02x}; save the file as UTF-8"
        return line


def _batches(reader: Any, lines: _Lines, fields: list[str], file: BinaryIO, start: int) -> Iterator[Batch]:
    """The rows behind the first `start`. Raises Invalid, after the rows that are there, where the file cannot be read
    on."""
    rows, number, fault = Gathering(), 0, ""
    while not fault:
        lines.begin_row()
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            fault = f"The file cannot be read at line {reader.line_num}: {error}."
            continue
        if cells is None:
            break
        if lines.has_ended:
            fault = f"The row that begins at line {first} {_NEVER_CLOSED}."
            continue
        number += 1
        if number <= start or not cells:
            continue
        at = f"line {reader.line_num}"
        try:
            if lines.fault:
                raise ValueError(lines.fault)
            rows.chunks[at] = _row(cells, fields)
        except ValueError as error:
            rows.refused[at] = str(error)
        rows.bytes += sum(map(len, cells))
        if rows.is_full:
            yield rows.take(number, file.tell())
    yield rows.take(number, file.tell())
    if fault:
        raise Invalid(f"{fault} The rows that were read are in the library.")


def _row(cells: list[str], fields: list[str]) -> ChunkData:
    """Raises ValueError with what is wrong with it."""
    if len(cells) != len(fields):
        raise ValueError(f"has {len(cells)} cells, and there are {len(fields)} columns")
    row: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for field, cell in zip(fields, cells, strict=True):
        if not cell or not field:
            continue
        if field.startswith("metadata."):
            others[field.removeprefix("metadata.")] = _scalar(cell)
        elif field == "metadata" or field == "position" or (field == "embedding" and cell.lstrip().startswith("[")):
            row[field] = _json(field, cell)
        else:
            row[field] = cell
    if others:
        known = row.get("metadata", {})
        row["metadata"] = {**others, **known} if isinstance(known, dict) else known
    return cast(ChunkData, row)


def _json(field: str, cell: str) -> Any:
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"has no valid JSON in {field}: {error}") from None


def _scalar(cell: str) -> Any:
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell
    return value if isinstance(value, bool | int | float) else cell
