"""LanceDB: the tables of a folder or of an object store, each in the version that it has when the reading begins."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError
from apps.transfer.sources.base import (
    KEYS_AT_A_TIME,
    Collection,
    Fields,
    Page,
    Row,
    VectorSource,
    choose,
    import_package,
    split_record,
    without_secrets,
)

_METRICS: Final = {"cosine": "cosine", "l2": "euclidean", "dot": "dot"}
_DISTANCES: Final = {metric: distance for distance, metric in _METRICS.items()}
_ROW_ID: Final = "_rowid"


class LanceDBSource(VectorSource):
    """Columns are metadata. The key is the column `id`, or the row's own number in LanceDB. A page begins at a version
    and a number of rows."""

    def __init__(self, place: str, database: Any, fields: Fields) -> None:
        self.place, self._database, self._fields = place, database, fields
        self._tables: dict[str, Any] = {}

    @classmethod
    def open(cls, location: str, fields: Fields) -> Self:
        if "://" in location:
            return cls(without_secrets(location), import_package("lancedb", "lancedb").connect(location), fields)
        folder = Path(location).expanduser().resolve()
        if not any(folder.glob("*.lance")):
            raise TransferError(f"{location!r} is no folder of LanceDB's: it has no table NAME.lance.")
        return cls(str(folder), import_package("lancedb", "lancedb").connect(str(folder)), fields)

    def names(self) -> list[str]:
        names: list[str] = []
        token: str | None = ""
        while token is not None:
            found = self._database.list_tables(page_token=token or None)
            names += found.tables
            token = found.page_token
        return names

    def _table(self, name: str) -> Any:
        if name not in self._tables:
            self._tables[name] = self._database.open_table(name)
        return self._tables[name]

    def _vector(self, name: str) -> str:
        # An array of numbers of a fixed length is a vector.
        fixed = [one for one in self._table(name).schema if hasattr(one.type, "list_size")]
        return choose([one.name for one in fixed], self._fields.vector, "vector column", "--vector")

    def _key(self, name: str) -> str:
        columns = self._table(name).schema.names
        if self._fields.id is not None:
            return choose(columns, self._fields.id, "key column", "--id")
        return "id" if "id" in columns else _ROW_ID

    def collection(self, name: str) -> Collection:
        table, vector = self._table(name), self._vector(name)
        indexes = [table.index_stats(one.name) for one in table.list_indices() if vector in one.columns]
        # What LanceDB itself takes where there is no index.
        distance = next((one.distance_type for one in indexes if one and one.distance_type), "l2")
        dimension = table.schema.field(vector).type.list_size
        return Collection(name, table.count_rows(), dimension, _METRICS.get(str(distance).lower()))

    def page(self, name: str, after: Any, limit: int) -> Page:
        table = self._table(name)
        version, offset = after or (table.version, 0)
        table.checkout(version)
        rows = self._rows(name, table.search().with_row_id(True).offset(offset).limit(limit))
        return Page(rows, [version, offset + limit] if len(rows) == limit else None)

    def keys(self, name: str) -> Iterator[Sequence[str]]:
        key = self._key(name)
        for batch in self._table(name).search().select([key]).with_row_id(True).to_batches(KEYS_AT_A_TIME):
            yield [str(one) for one in batch.column(key).to_pylist()]

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        table, key = self._table(name), self._key(name)
        if key == _ROW_ID:
            return self._rows(name, table.take_row_ids([int(one) for one in keys]).with_row_id())
        of_text = str(table.schema.field(key).type) in ("string", "large_string")
        values = [f"'{one.replace(chr(39), chr(39) * 2)}'" if of_text else one for one in keys]
        query = table.search().where(f"`{key}` IN ({', '.join(values)})").with_row_id(True)
        return self._rows(name, query.limit(len(values)))

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        table, key, column = self._table(name), self._key(name), self._vector(name)
        columns = [] if key == _ROW_ID else [key]
        found = []
        for query in vectors:
            search = table.search(query, vector_column_name=column).distance_type(_DISTANCES[metric])
            answer = search.select([*columns, "_distance"]).with_row_id(True).limit(k).to_arrow()
            found.append([str(one) for one in answer.column(key).to_pylist()])
        return found

    def _rows(self, name: str, query: Any) -> list[Row]:
        found, vector, key = query.to_arrow(), self._vector(name), self._key(name)
        column = found.column(vector).combine_chunks()
        matrix = np.asarray(column.flatten(), np.float32).reshape(-1, column.type.list_size)
        # Rows without a vector have none in the flattened array.
        has_vector = np.asarray(column.is_valid())
        places = np.cumsum(has_vector) - 1
        fields = Fields(key, self._fields.text, vector, self._fields.metadata)
        rows = []
        for i, record in enumerate(found.drop_columns([vector]).to_pylist()):
            row_id = record.pop(_ROW_ID)
            text, metadata = split_record(record, fields)
            value = row_id if key == _ROW_ID else record[key]
            if value is None:
                raise TransferError(f"A row has no {key}: name a column that every row has by --id.")
            rows.append(Row(str(value), matrix[places[i]] if has_vector[i] else None, text, metadata))
        return rows
