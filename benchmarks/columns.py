"""What metadata takes in the index, in bytes for a row, in process: with documents of five fields beside none, and with
the JSON that LlamaIndex keeps in `_node_content`, indexed and `unindexed`, beside none.

Every fifth row. The index is vectors, their 8-bit copy, words and columns.

Run as `python -m benchmarks.columns DATA` with VECTORDB_DATA_DIR set, this file is a process that has the server's
settings; it prints the rows as JSON.
"""

import os
import random
import sys
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
from benchmarks.dataset import Dataset
from benchmarks.report import Row, times_at_most
from benchmarks.testbed import Testbed, run_module

_STEP = 5
_CREATED_AT = 1_764_000_000_000_000


def run(testbed: Testbed) -> list[Row]:
    printed = run_module("columns", str(testbed.data.folder), folder=testbed.new_path("columns"))
    return [
        Row(name, size, "bytes/row", reference, beside, times_at_most(limit) if limit else None)
        for name, size, reference, beside, limit in orjson.loads(printed)
    ]


def main(data_folder: str) -> None:
    kernels.load()
    sys.stdout.buffer.write(orjson.dumps(_measure(Dataset.load(data_folder))))


def _measure(data: Dataset) -> list[tuple[str, float, str, float, float | None]]:
    """What was measured, its bytes for a row, those of what it is compared with, and how many times these it may be."""
    places = np.arange(0, len(data), _STEP)
    matrix = Matrix.build(data.vectors[places], Metric.COSINE)
    words = InvertedIndex.build([data.rows[i]["text"] for i in places])
    rest = (matrix.nbytes + words.nbytes) / len(places)

    def measure(rows: Iterator[Attributes]) -> float:
        return Columns.build(list(rows)).nbytes / len(places)

    none = measure(_with_documents(data, 0))
    rows: list[tuple[str, float, str, float, float | None]] = []
    for chunks in (100, 10, 1):
        size = measure(_with_documents(data, chunks))
        name = f"a document of five fields for each {chunks} chunks" if chunks > 1 else "a document for each chunk"
        rows.append((f"columns, {name}", size, "no documents", none, 1.3))
        rows.append((f"index, {name}", size + rest, "no documents", none + rest, 1.3))
    own = measure(_with_own_fields(data))
    rows.append(("columns, a document for each chunk", size, "the fields are the chunk's", own, None))
    for name, unindexed in (("indexed", ()), ("unindexed", ("_node_content",))):
        size = measure(_with_node_content(data, unindexed))
        rows.append((f"columns, `_node_content` {name}", size, "without it", none, None))
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
    """The rows as the index gets them, each with what LlamaIndex writes for a node whose text is kept apart."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")

    from apps.search.unindexed import indexed_metadata

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


if __name__ == "__main__":
    main(*sys.argv[1:])
