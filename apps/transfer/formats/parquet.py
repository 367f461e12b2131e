"""Apache Parquet, one file: a row for each chunk, with its document's fields beside it, and one without an id for each
document that has no chunks. The file's metadata has the library under the key `vectordb`.

Of other files each column with a field's name is that field, and all others are metadata.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apps.engine.vectors import DTYPE, Float32, to_float32
from apps.libraries.errors import Invalid
from apps.transfer.formats.base import Format
from apps.transfer.formats.jsonl import VERSION, read_head
from apps.transfer.formats.sections import Outflow
from apps.transfer.formats.tables import fields_of
from apps.transfer.rows import BYTES_PER_BATCH, ROWS_PER_BATCH, Batch, ChunkData, DocumentData, Source, json_value
from apps.transfer.stored import DocumentRow, StoredLibrary

_KEY: Final = b"vectordb"
_TIME = pa.timestamp("us", tz="UTC")
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
# Few values come twice in these.
_PLAIN: Final = ("id", "text", "embed_text", "metadata", "vector")


class Parquet(Format):
    """Apache Parquet."""

    media_type = "application/vnd.apache.parquet"
    package = "pyarrow"
    requirements = "parquet"

    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        out = Outflow()
        schema = _schema(stored)
        # Vectors do not shrink, and texts are the smaller part.
        others = [name for name in schema.names if name not in _PLAIN]
        options: Any = {"compression": "NONE", "use_dictionary": others, "write_statistics": False}
        with pq.ParquetWriter(out, schema, **options) as writer:
            tables, size = [], 0
            for page in stored.chunks_with_documents():
                tables.append(_table_of_chunks(page, schema))
                size += tables[-1].nbytes
                if size >= _BYTES_PER_GROUP:
                    writer.write_table(pa.concat_tables(tables))
                    tables, size = [], 0
                    yield from out.take()
            for documents in stored.documents(without_chunks=True):
                tables.append(_table_of_documents(documents, schema))
            if tables:
                writer.write_table(pa.concat_tables(tables))
        yield from out.take()

    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError, ValueError) as error:
            why = str(error).rstrip(".")
            raise Invalid(f"The file is no Parquet, or is cut off: {why}. Nothing of it was imported.") from None
        head = (parquet.schema_arrow.metadata or {}).get(_KEY)
        library = None if head is None else read_head(head)
        if library is None:
            batches = _foreign_batches(parquet, start or 0, columns or {})
        else:
            batches = _own_batches(parquet, start or 0)
        return Source(library or {}, batches, parquet.metadata.num_rows, "row", runs_in_threads=True)


def _schema(stored: StoredLibrary) -> Any:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), stored.dimension or 1)
    head = orjson.dumps({"library": stored.library, "format": VERSION})
    return pa.schema({**_COLUMNS, "vector": vector, **_OF_DOCUMENT}, metadata={_KEY: head})


def _table_of_chunks(page: list[tuple[Any, ...]], schema: Any) -> Any:
    _, *values = zip(*page, strict=True)
    arrays = []
    for field, column in zip(schema, values, strict=True):
        if field.name == "vector":
            arrays.append(_vectors_of(column, field.type))
        else:
            arrays.append(_array(column, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _table_of_documents(rows: list[DocumentRow], schema: Any) -> Any:
    _, ids, *values = zip(*rows, strict=True)
    known = {"document_id": ids, **dict(zip(_OF_DOCUMENT, values, strict=True))}
    arrays = [
        _array(known[field.name], field.type) if field.name in known else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: Any) -> Any:
    return pa.array(map(_time, values) if kind == _TIME else values, kind)


@lru_cache(maxsize=4096)
def _time(moment: str | datetime | None) -> datetime | None:
    """A time of the database, which on SQLite is a text in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _vectors_of(blobs: Any, kind: Any) -> Any:
    empty = bytes(kind.list_size * DTYPE.itemsize)
    flat = np.frombuffer(b"".join([empty if blob is None else blob for blob in blobs]), DTYPE)
    missing = pa.array([blob is None for blob in blobs], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=missing)


def _own_batches(parquet: Any, start: int) -> Iterator[Batch]:
    """The rows of an export from the row `start` on."""
    names = [name for name in (*_COLUMNS, "vector", *_OF_DOCUMENT) if not name.endswith("updated_at")]
    if missing := set(names).difference(parquet.schema_arrow.names):
        raise Invalid(f"The file has no column {', '.join(sorted(missing))}, as every export has.")
    of_chunk, of_document = ([name for name in names if name in some] for some in (_COLUMNS, _OF_DOCUMENT))
    for number, part in _parts(parquet, start, names):
        values = {name: part[name].to_pylist() for name in names if name != "vector"}
        documents: dict[str, DocumentData] = {}
        chunks: dict[str, ChunkData] = {}
        refused: dict[str, str] = {}
        seen = {None}
        for i, vector in enumerate(_vectors(part["vector"])):
            at = f"row {number + i + 1}"
            try:
                document_id = values["document_id"][i]
                if document_id not in seen:
                    seen.add(document_id)
                    fields = {name.removeprefix("document_"): values[name][i] for name in of_document}
                    fields["metadata"] = _parse_metadata(fields["metadata"])
                    documents[f"{at}, its document"] = cast(DocumentData, {"id": document_id, **fields})
                if values["id"][i] is not None:
                    row: dict[str, Any] = {name: values[name][i] for name in of_chunk}
                    row["metadata"], row["embedding"] = _parse_metadata(row["metadata"]), vector
                    chunks[at] = cast(ChunkData, row)
            except ValueError as error:
                refused[at] = str(error)
        yield Batch(documents, chunks, refused, number + len(part), number + len(part))


def _foreign_batches(parquet: Any, start: int, columns: dict[str, str]) -> Iterator[Batch]:
    """The rows of another file from the row `start` on."""
    fields = fields_of(parquet.schema_arrow.names, columns)
    names = [name for name, field in fields.items() if field]
    for number, part in _parts(parquet, start, names):
        values = {
            name: _vectors(part[name]) if fields[name] == "embedding" else part[name].to_pylist() for name in names
        }
        chunks: dict[str, ChunkData] = {}
        refused: dict[str, str] = {}
        for i in range(len(part)):
            at = f"row {number + i + 1}"
            try:
                chunks[at] = _foreign_row({fields[name]: values[name][i] for name in names})
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


def _parse_metadata(text: str | None) -> Any:
    try:
        return {} if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"has no valid JSON in metadata: {error}") from None


def _parts(parquet: Any, start: int, names: list[str]) -> Iterator[tuple[int, Any]]:
    """Some rows at a time, from the row `start` on, each with the number of rows before them."""
    at = 0
    try:
        for group in range(parquet.num_row_groups):
            about = parquet.metadata.row_group(group)
            if at + about.num_rows <= start:
                at += about.num_rows
                continue
            row_bytes = max(1, about.total_byte_size // max(1, about.num_rows))
            size = max(1, min(ROWS_PER_BATCH, BYTES_PER_BATCH // row_bytes))
            for part in parquet.iter_batches(size, row_groups=[group], columns=names):
                skipped = min(len(part), max(0, start - at))
                at += skipped
                if skipped < len(part):
                    yield at, part.slice(skipped)
                    at += len(part) - skipped
    except (pa.ArrowException, OSError) as error:
        raise Invalid(f"The file is damaged: {error}.") from None


def _vectors(column: Any) -> list[Float32 | str | None]:
    """A column of lists of numbers, or of texts, by row."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        found: list[Any] = column.to_pylist()
        return found
    present = column.drop_null()
    flat = to_float32(present.flatten().to_numpy(zero_copy_only=False))
    ends = np.cumsum(pc.list_value_length(present).to_numpy(zero_copy_only=False), dtype=np.int64)
    rows = iter(np.split(flat, ends[:-1]) if len(ends) else [])
    return [next(rows) if is_valid else None for is_valid in column.is_valid().to_pylist()]
