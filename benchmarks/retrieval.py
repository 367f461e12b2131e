"""How well queries find what they are about: usage examples, of which each illustrates one row, the only right answer.

Each row of the table is a way to search at the server's defaults: by vectors of a model, by words, or by both. The
searches are the server's own, exact and without HTTP. Examples are no part of the texts.

Run as `python -m benchmarks.retrieval DATA QUERIES` with VECTORDB_DATA_DIR set, this file is a process that has the
server's settings; it prints JSON.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from benchmarks.dataset import Dataset, Float32
from benchmarks.report import Row, times_at_least
from benchmarks.testbed import ONE_THREAD, Testbed, run_module
from benchmarks.timing import progress

Mode = Literal["vector", "lexical", "hybrid"]

_FILE = "queries.json"
_MADE = {"hashing-384": "hashing", "hashing-1536": "hashing", "l2-supercat-256": "wordllama"}
_MODEL = "the data's vectors"
_WORDS = "by words"
_NAMES: dict[Mode, str] = {"vector": "{}", "lexical": _WORDS, "hybrid": "hybrid, {}"}
_QUERIES_AT_ONCE = 200


def run(testbed: Testbed) -> list[Row]:
    if not (testbed.data.folder / _FILE).is_file():
        print(f"retrieval: {testbed.data.folder / _FILE} does not exist, so this is left out", file=sys.stderr)
        return []
    count = testbed.repeat(len(testbed.data.queries), 500)
    folder = testbed.new_path("retrieval")
    found = orjson.loads(run_module("retrieval", str(testbed.data.folder), str(count), folder=folder, **ONE_THREAD))
    rows = []
    for name in (_WORDS, *_MADE, _MODEL):
        rows += [Row(f"{measure}, {name}", value, "") for measure, value in found[name].items()]
    for vectors in (*_MADE, _MODEL):
        for measure, value in found[f"hybrid, {vectors}"].items():
            better = max(found[name][measure] for name in (_WORDS, vectors))
            name = f"{measure}, hybrid: words and {vectors}"
            rows.append(Row(name, value, "", "the better of both", better, times_at_least(1)))
    return rows


def main(data_folder: str, count: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")

    import django

    django.setup()

    from apps.embeddings.services import embed
    from apps.engine import kernels

    kernels.load()
    data = Dataset.load(data_folder)
    asked = orjson.loads((Path(data_folder) / _FILE).read_bytes())[:count]
    texts = [query["text"] for query in asked]
    right = [data.positions[query["of"]] for query in asked]
    row_texts = [row["text"] for row in data.rows]
    found: dict[str, dict[str, float]] = {}
    for model in (_MODEL, *_MADE):
        if model == _MODEL:
            vectors, queries = data.vectors, data.queries[:count]
        else:
            vectors = embed(_MADE[model], model, row_texts, "document")
            queries = embed(_MADE[model], model, texts, "query")
        # Words are the same beside any vectors.
        modes = [mode for mode in _NAMES if mode != "lexical" or _WORDS not in found]
        for mode, answers in search(row_texts, vectors, texts, queries, modes).items():
            found[_NAMES[mode].format(model)] = _quality(answers, right)
    print(orjson.dumps(found).decode())


def search(
    row_texts: Sequence[str],
    vectors: Float32,
    texts: Sequence[str],
    queries: Float32,
    modes: Sequence[Mode] = tuple(_NAMES),
    k: int = 10,
) -> dict[Mode, list[list[int]]]:
    """Positions of the rows that each query finds, by mode."""
    from apps.engine.metadata import Attributes
    from apps.engine.metrics import Metric
    from apps.engine.storage.row_data import Row as ContentRow
    from apps.engine.storage.view import View
    from apps.engine.text.analyzer import parse_query
    from apps.search.query.search import Searcher, SearchRequest
    from apps.search.query.spec import EVERYTHING, Hybrid

    rows = [ContentRow(Attributes(str(key), None, 0, b"{}"), text) for key, text in enumerate(row_texts)]
    keys = np.arange(len(rows))
    view = View.build(dimension=vectors.shape[1], metric=Metric.COSINE, keys=keys, vectors=vectors, rows=rows)
    searcher, defaults = Searcher(view), Hybrid()
    answers: dict[Mode, list[list[int]]] = {mode: [] for mode in modes}
    for start in progress(range(0, len(texts), _QUERIES_AT_ONCE), "retrieval"):
        some = range(start, min(start + _QUERIES_AT_ONCE, len(texts)))
        for mode in modes:
            requests = [
                SearchRequest(
                    fetch=k,
                    mode=mode,
                    vector=None if mode == "lexical" else queries[query],
                    words=None if mode == "vector" else parse_query(texts[query]),
                    filter=EVERYTHING,
                    filter_mode="auto",
                    exact=True,
                    params={},
                    hybrid=defaults,
                )
                for query in some
            ]
            answers[mode] += [ranked.keys for ranked in searcher.search(requests)]
    return answers


def _quality(answers: Sequence[Sequence[int]], right: Sequence[int]) -> dict[str, float]:
    """The share of queries whose right row comes first, and among ten; and the mean of 1 / its rank, 0 beyond ten."""
    ranks = [answer.index(row) + 1 if row in answer else 0 for answer, row in zip(answers, right, strict=True)]
    return {
        "recall@1": sum(rank == 1 for rank in ranks) / len(ranks),
        "recall@10": sum(rank > 0 for rank in ranks) / len(ranks),
        "MRR@10": sum(1 / rank for rank in ranks if rank) / len(ranks),
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
