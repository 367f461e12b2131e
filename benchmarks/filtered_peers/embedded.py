"""Engines within the process that asks."""

from typing import Any

import numpy as np

from benchmarks.dataset import Dataset, Float32
from benchmarks.filtered import K
from benchmarks.filtered_peers.engine import FIELDS, Engine, Equal, fields_of, portions


class Faiss(Engine):
    name = "faiss, IndexHNSWFlat with IDSelectorBitmap"
    about = "M 16, efConstruction 128, one thread; the bitmap is made beforehand"
    variants = ("efSearch 64", "efSearch 128")

    def build(self, data: Dataset) -> None:
        import faiss

        # Two threads build; one answers.
        self._index = faiss.IndexHNSWFlat(data.dimension, 16, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 128
        self._index.add(data.vectors)
        faiss.omp_set_num_threads(1)
        values: dict[str, list[str]] = {field: [row[field] for row in fields_of(data)] for field in FIELDS}
        self._values = {field: np.array(column) for field, column in values.items()}
        self._bitmaps: dict[tuple[tuple[str, str], ...], Any] = {}

    def choose(self, variant: str) -> None:
        self._ef = int(variant.split()[1])

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        import faiss

        params = faiss.SearchParametersHNSW(efSearch=self._ef)
        if equal:
            params = faiss.SearchParametersHNSW(efSearch=self._ef, sel=self._selector(equal))
        found = self._index.search(vector[np.newaxis], K, params=params)[1][0]
        return [row for row in found.tolist() if row >= 0]

    def _selector(self, equal: Equal) -> Any:
        import faiss

        key = tuple(equal.items())
        if key not in self._bitmaps:
            masks = [self._values[field] == value for field, value in key]
            bits = np.packbits(np.logical_and.reduce(masks), bitorder="little")
            self._bitmaps[key] = faiss.IDSelectorBitmap(bits)
        return self._bitmaps[key]


class Qdrant(Engine):
    name = "Qdrant Edge"
    about = "hnsw, m 16, ef_construct 100; keyword indexes made before the graph"
    variants = ("defaults", "acorn")

    def build(self, data: Dataset) -> None:
        import qdrant_edge as qdrant

        vectors = qdrant.EdgeVectorParams(size=data.dimension, distance=qdrant.Distance.Cosine)
        (self.folder / "qdrant").mkdir()
        self._shard = qdrant.EdgeShard.create(str(self.folder / "qdrant"), qdrant.EdgeConfig(vectors=vectors))
        self.closing.callback(self._shard.close)
        update = qdrant.UpdateOperation
        for field in FIELDS:
            self._shard.update(update.create_field_index(field, qdrant.PayloadSchemaType.Keyword))
        fields = fields_of(data)
        for rows in portions(data):
            points = [qdrant.Point(row, data.vectors[row].tolist(), fields[row]) for row in rows]
            self._shard.update(update.upsert_points(points))
        while self._shard.optimize():
            pass

    def choose(self, variant: str) -> None:
        import qdrant_edge as qdrant

        acorn = qdrant.AcornSearchParams(enable=True) if variant == "acorn" else None
        self._params = qdrant.SearchParams(acorn=acorn)

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        import qdrant_edge as qdrant

        must = [qdrant.FieldCondition(field, match=qdrant.MatchValue(value)) for field, value in equal.items()]
        found = self._shard.query(
            qdrant.QueryRequest(
                limit=K,
                query=qdrant.Query.Nearest(vector.tolist()),
                filter=qdrant.Filter(must=must) if must else None,
                params=self._params,
            )
        )
        return [point.id for point in found]


class Zvec(Engine):
    name = "zvec"
    about = "HNSW, m 16, ef_construction 128; inverted indexes on fields"
    variants = ("ef 64", "ef 128")

    def build(self, data: Dataset) -> None:
        import zvec

        text = zvec.InvertIndexParam()
        graph = zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE, m=16, ef_construction=128)
        schema = zvec.CollectionSchema(
            "item",
            fields=[zvec.FieldSchema(field, zvec.DataType.STRING, index_param=text) for field in FIELDS],
            vectors=[zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, data.dimension, index_param=graph)],
        )
        self._collection = zvec.create_and_open(str(self.folder / "zvec"), schema)
        self.closing.callback(self._collection.close)
        fields = fields_of(data)
        for rows in portions(data):
            self._collection.insert(
                [zvec.Doc(str(row), vectors={"vector": data.vectors[row]}, fields=fields[row]) for row in rows]
            )
        self._collection.flush()
        self._collection.optimize()

    def choose(self, variant: str) -> None:
        import zvec

        self._param = zvec.HnswQueryParam(ef=int(variant.split()[1]))

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        import zvec

        condition = " and ".join(f"{field} = '{value}'" for field, value in equal.items())
        query = zvec.Query(field_name="vector", vector=vector, param=self._param)
        found = self._collection.query(query, topk=K, filter=condition or None, output_fields=[])
        return [int(doc.id) for doc in found]


class MilvusLite(Engine):
    name = "Milvus Lite"
    way = "gRPC, same process"
    about = "HNSW, M 16, efConstruction 200, ef 64"

    def build(self, data: Dataset) -> None:
        from pymilvus import DataType, MilvusClient

        self._client = MilvusClient(str(self.folder / "milvus.db"))
        self.closing.callback(self._client.close)
        schema = MilvusClient.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=data.dimension)
        for field in FIELDS:
            schema.add_field(field, DataType.VARCHAR, max_length=100)
        index = self._client.prepare_index_params()
        build = {"M": 16, "efConstruction": 200}
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=build)
        self._client.create_collection("item", schema=schema)
        fields = fields_of(data)
        for rows in portions(data):
            self._client.insert("item", [{"id": row, "vector": data.vectors[row], **fields[row]} for row in rows])
        self._client.flush("item")
        self._client.create_index("item", index)
        self._client.load_collection("item")

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        condition = " and ".join(f'{field} == "{value}"' for field, value in equal.items())
        params = {"metric_type": "COSINE", "params": {"ef": 64}}
        [found] = self._client.search("item", [vector], filter=condition, limit=K, search_params=params)
        return [hit["id"] for hit in found]


class LanceDB(Engine):
    name = "LanceDB"
    about = "bitmap indexes on fields, prefilter"
    variants = ("IVF_PQ", "IVF_PQ, refine_factor 10", "IVF_HNSW_SQ")

    def build(self, data: Dataset) -> None:
        import lancedb
        import pyarrow

        fields = fields_of(data)
        vectors = pyarrow.FixedSizeListArray.from_arrays(data.vectors.reshape(-1), data.dimension)
        columns = {field: [row[field] for row in fields] for field in FIELDS}
        table = pyarrow.table({"id": range(len(data)), "vector": vectors} | columns)
        self._table = lancedb.connect(self.folder / "lance").create_table("item", table)
        for field in FIELDS:
            self._table.create_scalar_index(field, index_type="BITMAP")
        self._kind = ""
        self._index("IVF_PQ")

    def _index(self, kind: str) -> None:
        if self._kind != kind:
            self._table.create_index("cosine", index_type=kind, replace=True)
            self._kind = kind

    def choose(self, variant: str) -> None:
        self._index(variant.partition(",")[0])
        self._refine = 10 if variant.endswith("refine_factor 10") else None

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        search = self._table.search(vector).distance_type("cosine").limit(K).select(["id", "_distance"])
        if self._refine is not None:
            search = search.refine_factor(self._refine)
        if equal:
            condition = " AND ".join(f"{field} = '{value}'" for field, value in equal.items())
            search = search.where(condition, prefilter=True)
        found: list[int] = search.to_arrow()["id"].to_pylist()
        return found
