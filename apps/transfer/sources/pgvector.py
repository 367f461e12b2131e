"""PostgreSQL with pgvector: a table with a vector column, read in one snapshot."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError
from apps.transfer.sources.base import KEYS_AT_A_TIME, Collection, Fields, Page, Row, VectorSource, choose, split_record

# The metric of an operator class, and the operator that finds the nearest rows.
_METRICS: Final = {"cosine": "cosine", "l2": "euclidean", "ip": "dot"}
_OPERATORS: Final = {"cosine": "<=>", "euclidean": "<->", "dot": "<#>"}
_VECTORS: Final = ("vector", "halfvec")
# Columns of these types are no metadata.
_LEFT_OUT: Final = (*_VECTORS, "sparsevec", "tsvector")
_VECTOR, _KEY = "vectordb vector", "vectordb key"

_TABLES = """
    SELECT DISTINCT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND t.typname = ANY(%s)
    ORDER BY 1, 2"""
_COLUMNS = """
    SELECT a.attname, t.typname, a.atttypmod FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
_PRIMARY_KEY = """
    SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
    WHERE i.indrelid = %s::regclass AND i.indisprimary"""
_INDEXES = """
    SELECT o.opcname FROM pg_index i JOIN pg_opclass o ON o.oid = ANY(i.indclass)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
    WHERE i.indrelid = %s::regclass AND a.attname = %s"""


class _Table(NamedTuple):
    name: sql.Identifier
    key: str
    vector: str
    # Without a typmod, what the column has is -1.
    dimension: int
    columns: list[str]


class PgvectorSource(VectorSource):
    """Columns are metadata. Rows are read in order of their key, which is unique; a page begins behind a key."""

    def __init__(self, location: str, fields: Fields) -> None:
        known = conninfo_to_dict(location)
        self.place = " ".join(f"{name}={known[name]}" for name in ("host", "port", "dbname") if known.get(name))
        self._fields = fields
        self._tables: dict[str, _Table] = {}
        self._connection = psycopg.connect(location, row_factory=dict_row)
        self._connection.read_only = True
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    @classmethod
    def open(cls, location: str, fields: Fields) -> Self:
        return cls(location, fields)

    def names(self) -> list[str]:
        found = self._rows(_TABLES, [list(_VECTORS)])
        return [row["relname"] if row["nspname"] == "public" else f"{row['nspname']}.{row['relname']}" for row in found]

    def _rows(self, query: str | sql.Composed, params: Sequence[Any]) -> list[dict[str, Any]]:
        return self._connection.execute(query, params).fetchall()

    def _table(self, name: str) -> _Table:
        if name not in self._tables:
            table = sql.Identifier(*name.split("."))
            quoted = table.as_string(self._connection)
            columns = {row["attname"]: row for row in self._rows(_COLUMNS, [quoted])}
            vectors = [one for one, row in columns.items() if row["typname"] in _VECTORS]
            vector = choose(vectors, self._fields.vector, "vector column", "--vector")
            keys = [row["attname"] for row in self._rows(_PRIMARY_KEY, [quoted])]
            key = choose(keys if self._fields.id is None else list(columns), self._fields.id, "key column", "--id")
            others = [one for one, row in columns.items() if row["typname"] not in _LEFT_OUT and one != key]
            self._tables[name] = _Table(table, key, vector, columns[vector]["atttypmod"], others)
        return self._tables[name]

    def collection(self, name: str) -> Collection:
        table = self._table(name)
        count = sql.SQL("SELECT count(*) AS n FROM {}").format(table.name)
        dimension = table.dimension if table.dimension > 0 else None
        if dimension is None:
            first = self._read(table, sql.SQL("WHERE {} IS NOT NULL LIMIT 1").format(sql.Identifier(table.vector)), [])
            dimension = None if not first or first[0].vector is None else len(first[0].vector)
        classes = self._rows(_INDEXES, [table.name.as_string(self._connection), table.vector])
        metrics = {_METRICS.get(row["opcname"].removesuffix("_ops").rpartition("_")[2]) for row in classes}
        metric = metrics.pop() if len(metrics) == 1 else None
        return Collection(name, self._rows(count, [])[0]["n"], dimension, metric)

    def page(self, name: str, after: Any, limit: int) -> Page:
        table = self._table(name)
        key = sql.Identifier(table.key)
        behind = sql.SQL("" if after is None else "WHERE {} > %s ").format(*([] if after is None else [key]))
        end = behind + sql.SQL("ORDER BY {} LIMIT %s").format(key)
        rows = self._read(table, end, [limit] if after is None else [after, limit])
        return Page(rows, rows[-1].key if len(rows) == limit else None)

    def keys(self, name: str) -> Iterator[Sequence[str]]:
        table = self._table(name)
        statement = sql.SQL("SELECT {}::text AS key FROM {}").format(sql.Identifier(table.key), table.name)
        with self._connection.cursor("keys") as cursor:
            cursor.execute(statement)
            while rows := cursor.fetchmany(KEYS_AT_A_TIME):
                yield [row["key"] for row in rows]

    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        table = self._table(name)
        end = sql.SQL("WHERE {}::text = ANY(%s)").format(sql.Identifier(table.key))
        return self._read(table, end, [list(keys)])

    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        table = self._table(name)
        statement = sql.SQL("SELECT {key}::text AS key FROM {table} ORDER BY {vector} {nearest} %s LIMIT %s").format(
            key=sql.Identifier(table.key),
            table=table.name,
            vector=sql.Identifier(table.vector),
            nearest=sql.SQL(_OPERATORS[metric]),
        )
        return [[row["key"] for row in self._rows(statement, [str(query), k])] for query in vectors.tolist()]

    def _read(self, table: _Table, end: sql.Composable, params: Sequence[Any]) -> list[Row]:
        statement = sql.SQL(
            "SELECT {columns}, {key}::text AS {key_name}, vector_send({vector}::vector) AS {vector_name} FROM {table} "
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, table.columns)) if table.columns else sql.SQL("NULL"),
            key=sql.Identifier(table.key),
            key_name=sql.Identifier(_KEY),
            vector=sql.Identifier(table.vector),
            vector_name=sql.Identifier(_VECTOR),
            table=table.name,
        )
        rows = []
        for record in self._rows(statement + end, params):
            key, packed = record.pop(_KEY), record.pop(_VECTOR)
            if key is None:
                raise TransferError(f"A row has no {table.key}: name a column that every row has by --id.")
            text, metadata = split_record(record, self._fields)
            # Two numbers of 16 bits, then big-endian float32.
            vector = None if packed is None else np.frombuffer(packed, ">f4", offset=4).astype(np.float32)
            rows.append(Row(key, vector, text, metadata))
        return rows

    def close(self) -> None:
        self._connection.close()
