"""What metadata takes in the index, in bytes for a row, in process: with documents of five fields beside none, and with
the JSON that LlamaIndex keeps in `_node_content`, indexed and `unindexed`, beside none.

Every fifth row. The index is vectors, their 8-bit copy, words and columns.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from apps.engine import kernels
from apps.engine.indexes.matrix import Matrix
from apps.engine.metadata import Attributes, Columns
from apps.engine.metrics import Metric
from apps.engine.text.inverted_index import InvertedIndex
from apps.search.unindexed import indexed_metadata
from benchmarks.dataset import Dataset
from benchmarks.report import Row, times_at_most
from benchmarks.testbed import Testbed

_STEP = 5
_CREATED_AT = 1_764_000_000_000_000
_UNINDEXED = ("_node_content",)


def run(testbed: Testbed) -> list[Row]:
    kernels.load()
    data = testbed.data
    places = np.arange(0, len(data), _STEP)
    matrix = Matrix.build(data.vectors[places], Metric.COSINE)
    words = InvertedIndex.build([data.rows[i]["text"] for i in places])
    rest = (matrix.nbytes + words.nbytes) / len(places)

    def measure(rows: Iterator[Attributes]) -> float:
        return Columns.build(list(rows)).nbytes / len(places)

    none = measure(_with_documents(data, 0))
    rows = []
    for chunks in (100, 10, 1):
        size = measure(_with_documents(data, chunks))
        name = f"a document of five fields for each {chunks} chunks" if chunks > 1 else "a document for each chunk"
        wanted = times_at_most(1.3)
        rows.append(Row(f"columns, {name}", size, "bytes/row", "no documents", none, wanted))
        rows.append(Row(f"index, {name}", size + rest, "bytes/row", "no documents", none + rest, wanted))
    own = measure(_with_own_fields(data))
    rows.append(Row("columns, a document for each chunk", size, "bytes/row", "the fields are the chunk's", own))
    for name, paths in (("indexed", ()), ("unindexed", _UNINDEXED)):
        size = measure(_with_node_content(data, paths))
        rows.append(Row(f"columns, `_node_content` {name}", size, "bytes/row", "without it", none))
    return rows


def _rows(data: Dataset) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return ((i, data.rows[i]) for i in range(0, len(data), _STEP))


def _with_documents(data: Dataset, chunks: int) -> Iterator[Attributes]:
    """The rows, each `chunks` of a topic in a document; 0 for none."""
    seen, numbers = Counter[str](), dict[str, int]()
    for i, row in _rows(data):
        if not chunks:
            yield _attributes(i, row, row["metadata"])
            continue
        fields = _fields(row, chunks, seen, numbers)
        yield _attributes(i, row, row["metadata"])._replace(
            document_id=f"{fields['topic']}-{fields['part']}", document=orjson.dumps(fields).decode()
        )


def _with_own_fields(data: Dataset) -> Iterator[Attributes]:
    """The rows, each in a document of its own whose fields are in the metadata of the row."""
    seen, numbers = Counter[str](), dict[str, int]()
    for i, row in _rows(data):
        fields = _fields(row, 1, seen, numbers)
        own = {f"document_{name}": value for name, value in fields.items()}
        yield _attributes(i, row, row["metadata"] | own)._replace(document_id=f"{fields['topic']}-{fields['part']}")


def _with_node_content(data: Dataset, unindexed: tuple[str, ...]) -> Iterator[Attributes]:
    """The rows, each with what LlamaIndex writes for a node whose text is kept apart."""
    rng = random.Random(1)
    for i, row in _rows(data):
        node, source, digest = (f"{rng.getrandbits(bits):0{bits // 4}x}" for bits in (128, 128, 256))
        metadata = {"file_name": f"{row['id']}.txt", "topic": row["metadata"]["topic"]}
        related = {"node_id": source, "node_type": "4", "metadata": metadata, "hash": digest}
        content = {
            "id_": node,
            "embedding": None,
            "metadata": metadata,
            "excluded_embed_metadata_keys": ["file_name"],
            "excluded_llm_metadata_keys": ["file_name"],
            "relationships": {"1": related | {"class_name": "RelatedNodeInfo"}},
            "text": "",
            "mimetype": "text/plain",
            "start_char_idx": 0,
            "end_char_idx": len(row["text"]),
            "text_template": "{metadata_str}\n\n{content}",
            "metadata_template": "{key}: {value}",
            "metadata_seperator": "\n",
            "class_name": "TextNode",
        }
        given = _attributes(i, row, row["metadata"] | {"_node_content": orjson.dumps(content).decode()})
        yield given._replace(metadata=indexed_metadata(str(given.metadata), unindexed))


def _fields(row: Mapping[str, Any], chunks: int, seen: Counter[str], numbers: dict[str, int]) -> dict[str, str | int]:
    """Five fields of the document that the next row of its topic is in."""
    topic = row["metadata"]["topic"]
    part = seen[topic] // chunks
    seen[topic] += 1
    number = numbers.setdefault(f"{topic}-{part}", len(numbers))
    return {"topic": topic, "number": number, "part": part, "language": "en", "checked": number % 2}


def _attributes(place: int, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> Attributes:
    return Attributes(row["id"], None, _CREATED_AT + place, orjson.dumps(metadata).decode())
