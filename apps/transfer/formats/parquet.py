"""Apache Parquet, one file: a row for each chunk, with its document's fields beside it, and one without an id for each
document that has no chunks. The file's metadata has the library under the key `vectordb`.

Of other files each column with a field's name is that field, and all others are metadata.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apps.engine.vectors import DTYPE, Float32, to_float32
from apps.libraries.errors import Invalid
from apps.transfer.formats.base import Format
from apps.transfer.formats.jsonl import VERSION, read_head
from apps.transfer.formats.parquet_reader import open_file
from apps.transfer.formats.sections import Outflow
from apps.transfer.formats.tables import fields_of
from apps.transfer.rows import BYTES_PER_BATCH, ROWS_PER_BATCH, Batch, ChunkData, DocumentData, Source, json_value
from apps.transfer.stored import ChunkPage, DocumentRow, StoredLibrary

_KEY: Final = b"vectordb"
_TIME = pa.timestamp("us", tz="UTC")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = {
    "id": pa.string(),
    "document_id": pa.string(),
    "position": pa.int32(),
    "text": pa.string(),
    "embed_text": pa.string(),
    "metadata": pa.string(),
    "expires_at": _TIME,
    "created_at": _TIME,
    "updated_at": _TIME,
}
_OF_DOCUMENT: Final = {
    "document_title": pa.string(),
    "document_source": pa.string(),
    "document_metadata": pa.string(),
    "document_expires_at": _TIME,
    "document_created_at": _TIME,
    "document_updated_at": _TIME,
}
# A group of rows is held in memory by who writes and by who reads it.
_BYTES_PER_GROUP: Final = 8 << 20
# Of these, parts of an export are made.
_BYTES_PER_WRITE: Final = 2 << 20
# Of rows that are larger the others are not read either: no writer means them.
_LARGEST_ROW: Final = 64 << 20
# What of an export's columns is read.
_READ: Final = [name for name in (*_COLUMNS, "vector", *_OF_DOCUMENT) if not name.endswith("updated_at")]
# Of a script that is run by its path its folder comes first in sys.path, but for -P; here that has a csv.py.
_READER: Final = (sys.executable, "-P", str(Path(__file__).with_name("parquet_reader.py")))
# Few values come twice in these.
_PLAIN: Final = ("id", "text", "embed_text", "metadata", "vector")


class Parquet(Format):
    """Apache Parquet. A file is read by a process that may take `memory` bytes, for a page and a dictionary of each
    column, and its rows."""

    media_type = "application/vnd.apache.parquet"

    def __init__(self, memory: int = 1 << 30) -> None:
        self._memory = memory

    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        out = Outflow()
        schema = _schema(stored)
        # Vectors do not shrink, and texts are the smaller part.
        others = [name for name in schema.names if name not in _PLAIN]
        options: Any = {"compression": "NONE", "use_dictionary": others, "write_statistics": False}
        options |= {"write_page_checksum": True, "write_batch_size": 8192}
        with (
            _released_memory(),
            # Small writes are put together before they come to Python.
            pa.BufferedOutputStream(pa.PythonFile(out, "w"), _BYTES_PER_WRITE) as file,
            pq.ParquetWriter(file, schema, **options) as writer,
            ThreadPoolExecutor(1, "parquet") as thread,
        ):
            # Arrow writes without Python, while the next rows are read.
            writing: Future[None] | None = None
            written: Iterator[bytes] = iter(())
            for table in _groups(stored, schema):
                if table is None:
                    # A part for each page that is read: all at once, reading would wait until they are sent.
                    yield next(written, b"")
                    continue
                yield from written
                if writing is not None:
                    writing.result()
                written = out.take()
                writing = thread.submit(writer.write_table, table)
            yield from written
            if writing is not None:
                writing.result()
        yield from out.take()

    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        try:
            parquet = open_file(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            why = " ".join(str(error).split()).rstrip(".")
            raise Invalid(f"The file is no Parquet, or is cut off: {why}. Nothing of it was imported.") from None
        head = (parquet.schema_arrow.metadata or {}).get(_KEY)
        library = None if head is None else read_head(head)
        names, count = parquet.schema_arrow.names, parquet.metadata.num_rows
        if library is None:
            fields = {name: field for name, field in fields_of(names, columns or {}).items() if field}
            batches = _foreign_batches(self._read_parts(file, list(fields), start or 0, count), fields)
        else:
            if missing := set(_READ).difference(names):
                raise Invalid(f"The file has no column {', '.join(sorted(missing))}, as every export has.")
            batches = _own_batches(self._read_parts(file, _READ, start or 0, count))
        # Without rows one batch is empty: it notes that all is read.
        return Source(library or {}, batches if count else iter([Batch()]), count, "row", runs_in_threads=True)

    def _read_parts(self, file: BinaryIO, names: list[str], start: int, count: int) -> Iterator[tuple[int, Any]]:
        """Some columns of the rows from the row `start` on, of `count` rows; at most as many and as large as a batch,
        each part with the number of rows before it. They are read in a process of their own. Raises Invalid."""
        options = {"names": names, "start": start, "rows": ROWS_PER_BATCH, "size": BYTES_PER_BATCH}
        options |= {"largest": _LARGEST_ROW, "memory": self._memory}
        command, pipe = [*_READER, orjson.dumps(options).decode()], subprocess.PIPE
        with subprocess.Popen(command, stdin=file, stdout=pipe, stderr=pipe) as process:
            try:
                assert process.stdout is not None
                for part in _stream(process.stdout):
                    yield start, part
                    start += len(part)
                _, told = process.communicate()
            finally:
                process.kill()
        if process.returncode < 0:
            raise Invalid(f"The process that reads the file was ended by the signal {-process.returncode}.")
        if process.returncode:
            raise Invalid(told.decode(errors="replace").strip().rpartition("\n")[2].rstrip(".") + ".")
        if start < count:
            raise Invalid(f"The file is damaged: it has {start} rows, and says that it has {count}.")


@contextlib.contextmanager
def _released_memory() -> Iterator[None]:
    """Give back at the end what Arrow would keep for the next time: some 60 MB."""
    try:
        yield
    finally:
        pa.default_memory_pool().release_unused()


def _schema(stored: StoredLibrary) -> Any:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), stored.dimension or 1)
    head = orjson.dumps({"library": stored.library, "format": VERSION})
    return pa.schema({**_COLUMNS, "vector": vector, **_OF_DOCUMENT}, metadata={_KEY: head})


def _groups(stored: StoredLibrary, schema: Any) -> Iterator[Any]:
    """Tables of all rows, each a group of them in the file; before it None for each page that was read for it."""
    tables, size = [], 0
    for page, documents in stored.chunks_with_documents():
        tables.append(_table_of_chunks(page, documents, schema))
        size += tables[-1].nbytes
        yield None
        if size >= _BYTES_PER_GROUP:
            yield pa.concat_tables(tables)
            tables, size = [], 0
    tables += [_table_of_documents(documents, schema) for documents in stored.documents(without_chunks=True)]
    if tables:
        yield pa.concat_tables(tables)


def _table_of_chunks(page: ChunkPage, documents: dict[int, DocumentRow], schema: Any) -> Any:
    arrays = [_array(getattr(page, name), kind) for name, kind in _COLUMNS.items()]
    arrays.append(_vectors_of(page, schema.field("vector").type))
    # Many chunks share a document: its values are made once.
    places = {key: place for place, key in enumerate(documents)}
    of_chunks = pa.array([None if key is None else places[key] for key in page.document_key], pa.int32())
    for i, kind in enumerate(_OF_DOCUMENT.values(), 2):
        arrays.append(_array([row[i] for row in documents.values()], kind).take(of_chunks))
    return pa.Table.from_arrays(arrays, schema=schema)


def _table_of_documents(rows: list[DocumentRow], schema: Any) -> Any:
    _, ids, *values = zip(*rows, strict=True)
    known = {"document_id": ids, **dict(zip(_OF_DOCUMENT, values, strict=True))}
    arrays = [
        _array(known[field.name], field.type) if field.name in known else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], kind: Any) -> Any:
    if kind == _TIME:
        # Rows that were written together share their times.
        known = {moment: _microseconds(moment) for moment in set(values)}
        values = [known[moment] for moment in values]
    return pa.array(values, kind)


def _microseconds(text: str | None) -> int | None:
    """A time of the database, which on SQLite is in UTC without saying so, since the epoch."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _vectors_of(page: ChunkPage, kind: Any) -> Any:
    rows, is_missing = np.frombuffer(page.vectors, DTYPE), pa.array(page.vector_of).is_null()
    if len(rows) < len(page.vector_of) * kind.list_size:
        # Arrow has room for those that are missing.
        found = np.zeros((len(page.vector_of), kind.list_size), DTYPE)
        found[~is_missing.to_numpy(zero_copy_only=False)] = rows.reshape(-1, kind.list_size)
        rows = found.reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows), type=kind, mask=is_missing)


def _stream(pipe: IO[bytes]) -> Iterator[Any]:
    """The parts of a stream, which may break off, or have none."""
    with contextlib.suppress(pa.ArrowInvalid, OSError), pa.ipc.open_stream(pipe) as stream:
        yield from stream


def _own_batches(parts: Iterator[tuple[int, Any]]) -> Iterator[Batch]:
    """The rows of an export."""
    of_chunk, of_document = ([name for name in _READ if name in some] for some in (_COLUMNS, _OF_DOCUMENT))
    for number, part in parts:
        values = {name: _values(part[name]) for name in _READ if name != "vector"}
        documents: dict[str, DocumentData] = {}
        chunks: dict[str, ChunkData] = {}
        refused: dict[str, str] = {}
        seen = {None}
        rows = zip(*(values[name] for name in of_chunk), strict=True)
        for i, (cells, vector) in enumerate(zip(rows, _vectors(part["vector"]), strict=True)):
            at = f"row {number + i + 1}"
            row: dict[str, Any] = dict(zip(of_chunk, cells, strict=True))
            try:
                if row["document_id"] not in seen:
                    seen.add(row["document_id"])
                    fields = {name.removeprefix("document_"): values[name][i] for name in of_document}
                    fields["metadata"] = _parse_metadata(fields["metadata"])
                    documents[f"{at}, its document"] = cast(DocumentData, {"id": row["document_id"], **fields})
                if row["id"] is not None:
                    row["metadata"], row["embedding"] = _parse_metadata(row["metadata"]), vector
                    chunks[at] = cast(ChunkData, row)
            except ValueError as error:
                refused[at] = str(error)
        yield Batch(documents, chunks, refused, number + len(part), number + len(part))


def _foreign_batches(parts: Iterator[tuple[int, Any]], fields: dict[str, str]) -> Iterator[Batch]:
    """The rows of another file, its columns by their fields."""
    for number, part in parts:
        values = {
            name: _vectors(part[name]) if field == "embedding" else part[name].to_pylist()
            for name, field in fields.items()
        }
        chunks: dict[str, ChunkData] = {}
        refused: dict[str, str] = {}
        for i in range(len(part)):
            at = f"row {number + i + 1}"
            try:
                chunks[at] = _foreign_row({field: values[name][i] for name, field in fields.items()})
            except ValueError as error:
                refused[at] = str(error)
        yield Batch({}, chunks, refused, number + len(part), number + len(part))


def _foreign_row(given: dict[str, Any]) -> ChunkData:
    """Raises ValueError with what is wrong with it."""
    row = {name: value for name, value in given.items() if value is not None and not name.startswith("metadata.")}
    if isinstance(row.get("id"), int):
        row["id"] = str(row["id"])
    others = {name.removeprefix("metadata."): value for name, value in given.items() if name.startswith("metadata.")}
    known = row.get("metadata", {})
    known = _parse_metadata(known) if isinstance(known, str) else known
    if not isinstance(known, dict):
        raise ValueError("has metadata that is no object")
    row["metadata"] = json_value({**others, **known})
    return cast(ChunkData, row)


def _values(column: Any) -> list[Any]:
    """A column's values by row. Rows that were written together share their times, and few columns have any."""
    if column.null_count == len(column):
        return [None] * len(column)
    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    # Arrow would load pandas to make times, where that is installed.
    numbers = column.cast(_TIME, safe=False).cast(pa.int64()).to_pylist()
    times = {number: _time(number) for number in set(numbers)}
    return [times[number] for number in numbers]


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


def _parse_metadata(text: str | None) -> Any:
    try:
        return {} if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"has no valid JSON in metadata: {error}") from None


def _numbers(column: Any) -> Any:
    # As they are, where that can be: for copies Arrow would load pandas, where that is installed.
    is_as_stored = column.type in (pa.float32(), pa.int32()) and not column.null_count
    return np.from_dlpack(column) if is_as_stored else column.to_numpy(zero_copy_only=False)


def _vectors(column: Any) -> list[Float32 | str | None]:
    """A column of lists of numbers, or of texts, by row."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        found: list[Any] = column.to_pylist()
        return found
    present = column.drop_null()
    flat = to_float32(_numbers(present.flatten()))
    lengths = _numbers(pc.list_value_length(present))
    if len(lengths) and (lengths == lengths[0]).all():
        rows = iter(flat.reshape(len(lengths), lengths[0]))
    else:
        rows = iter(np.split(flat, np.cumsum(lengths, dtype=np.int64)[:-1]) if len(lengths) else [])
    return [next(rows) if is_valid else None for is_valid in column.is_valid().to_pylist()]
