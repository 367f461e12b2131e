"""An index of faiss, and a file of JSON with the rows of its vectors."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import orjson

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError
from apps.transfer.sources.base import KEYS_AT_A_TIME, Collection, Fields, Page, Row, VectorSource, split_record

_METRICS: Final = {0: "dot", 1: "euclidean"}


class FaissSource(VectorSource):
    """Rows are in the order of the vectors, or named by the ids of an IndexIDMap. The key is the field `id` of a row,
    or that id, or the vector's number, by which a page begins."""

    def __init__(self, path: Path, fields: Fields) -> None:
        self.place, self._fields = str(path), fields
        # Slow to import.
        from apps.engine.indexes.faiss_library import library

        faiss = library()
        try:
            self._whole = faiss.read_index(str(path))
        except RuntimeError as error:
            raise TransferError(f"{path} is no index of faiss: {str(error).splitlines()[-1]}") from None
        # What is below it belongs to the whole index.
        index, self._ids = faiss.downcast_index(self._whole), None
        if isinstance(index, faiss.IndexIDMap):
            self._ids = faiss.vector_to_array(index.id_map)
            index = faiss.downcast_index(index.index)
        if (lists := faiss.try_extract_index_ivf(index)) is not None:
            lists.make_direct_map()
        self._index = index

    @classmethod
    def open(cls, location: str, fields: Fields) -> Self:
        path = Path(location).expanduser().resolve()
        if not path.is_file():
            raise TransferError(f"{location!r} is no file.")
        return cls(path, fields)

    @cached_property
    def _records(self) -> Sequence[Any]:
        """The rows of the vectors in order, as bytes or parsed; none where no file is named."""
        if self._fields.rows is None:
            return []
        path = Path(self._fields.rows).expanduser()
        try:
            content = path.read_bytes()
            records: Any = content.splitlines() if path.suffix in (".jsonl", ".ndjson") else orjson.loads(content)
        except OSError as error:
            raise TransferError(f"{path} cannot be read: {error.strerror}") from None
        except orjson.JSONDecodeError as error:
            raise TransferError(f"{path} is not JSON: {error}. Name a file of lines .jsonl.") from None
        if isinstance(records, dict):
            numbers = range(self._index.ntotal) if self._ids is None else self._ids.tolist()
            records = [records.get(str(number)) for number in numbers]
        if not isinstance(records, list) or len(records) != self._index.ntotal:
            raise TransferError(f"{path} must have a row for each of the {self._index.ntotal} vectors of the index.")
        return records

    def names(self) -> list[str]:
        return [Path(self.place).stem]

    def collection(self, name: str) -> Collection:
        # Looked at before anything is written.
        _ = self._records
        return Collection(name, self._index.ntotal, self._index.d, _METRICS.get(self._whole.metric_type))

    def page(self, name: str, after: Any, limit: int) -> Page:
        first = after or 0
        count = min(limit, self._index.ntotal - first)
        rows = [self._row(first + i, vector) for i, vector in enumerate(self._vectors(first, count))]
        return Page(rows, first + count if first + count < self._index.ntotal else None)

    def _vectors(self, first: int, count: int) -> Float32:
        if not count:
            return np.empty((0, self._index.d), np.float32)
        try:
            vectors: Float32 = self._index.reconstruct_n(first, count)
        except RuntimeError as error:
            raise TransferError(f"{self.place} cannot give its vectors back: {str(error).splitlines()[-1]}") from None
        return vectors

    def _row(self, number: int, vector: Float32) -> Row:
        record = self._record(number)
        text, metadata = split_record(record, self._fields)
        metadata.pop(self._key_field, None)
        return Row(self._key(number, record), vector, text, metadata)

    @property
    def _key_field(self) -> str:
        return self._fields.id or "id"

    def _record(self, number: int) -> dict[str, Any]:
        record = self._records[number] if self._records else {}
        try:
            record = orjson.loads(record) if isinstance(record, bytes) else record
        except orjson.JSONDecodeError as error:
            raise TransferError(f"{self._fields.rows}, row {number + 1}, is not JSON: {error}") from None
        if isinstance(record, str):
            return {self._fields.text: record}
        if not isinstance(record, dict):
            raise TransferError(f"{self._fields.rows}, row {number + 1}, must be an object or a text.")
        return record

    def _key(self, number: int, record: dict[str, Any]) -> str:
        own = number if self._ids is None else int(self._ids[number])
        return str(record.get(self._key_field, own))

    def keys(self, name: str) -> Iterator[Sequence[str]]:
        for first in range(0, self._index.ntotal, KEYS_AT_A_TIME):
            numbers = range(first, min(first + KEYS_AT_A_TIME, self._index.ntotal))
            yield [self._key(number, self._record(number)) for number in numbers]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of the vector of each key."""
        return {self._key(number, self._record(number)): number for number in range(self._index.ntotal)}

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        numbers = [self._numbers[key] for key in keys if key in self._numbers]
        return [self._row(number, self._vectors(number, 1)[0]) for number in numbers]

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        _, found = self._index.search(vectors, k)
        return [[self._key(number, self._record(number)) for number in row if number >= 0] for row in found.tolist()]
