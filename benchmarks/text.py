"""Queries by words, and by words and vector, of an `auto` library; by one client, over HTTP.

Beside it: SQLite's own full text index (FTS5, bm25), in this process and in memory, for any of the same words.
"""

import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from benchmarks.client import call
from benchmarks.dataset import Dataset, as_array
from benchmarks.report import Row, above_at_most, at_most
from benchmarks.testbed import ALL, Testbed, query_path, warm
from benchmarks.timing import milliseconds_each, progress, quantile

_RARE, _OFTEN = 500, 5_000
_LONG = 12
# Among the most frequent words of English.
_COMMON = ("the", "of")
_PER_BLOCK = 20
_FTS5 = "SQLite FTS5, in process"
_PARTS = "by words + by vector"


def run(testbed: Testbed) -> list[Row]:
    data = testbed.data
    texts = queries(data, testbed.repeat(200, _PER_BLOCK))
    reference = _fts5(data)
    with testbed.serving(testbed.filled_auto) as server:
        warm(server, data)
        times = _time_in_turns(data, server.port, texts, reference)
    rows = []
    for name, wanted in (("three words", 15), ("a sentence", 50)):
        p50 = {way: quantile(times[name, way], 0.5) for way in ("words", "vector", "hybrid", "reference")}
        theirs = p50["reference"] if reference else None
        together = p50["words"] + p50["vector"]
        rows += [
            Row(f"by words, {name}, p50", p50["words"], "ms", _FTS5 if reference else "", theirs, at_most(wanted)),
            Row(f"by words and vector, {name}, p50", p50["hybrid"], "ms", _PARTS, together, above_at_most(1)),
        ]
    return rows


def _time_in_turns(
    data: Dataset, port: int, texts: Mapping[str, Sequence[str]], reference: sqlite3.Connection | None
) -> defaultdict[tuple[str, str], list[float]]:
    """Milliseconds by texts and way, in blocks of queries that take turns."""
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def over_http(body: bytes) -> bytes:
        return call(port, "POST", query_path(ALL), body)

    starts = range(0, min(map(len, texts.values())), _PER_BLOCK)
    for start in progress(starts, "text"):
        for name, some in texts.items():
            block = range(start, start + _PER_BLOCK)
            ways = {
                "words": [orjson.dumps({"text": some[i], "mode": "lexical"}) for i in block],
                "vector": [data.query_body(i, as_array) for i in block],
                "hybrid": [data.query_body(i, as_array, text=some[i], mode="hybrid") for i in block],
            }
            for way, bodies in ways.items():
                times[name, way] += milliseconds_each(over_http, bodies)
            if reference is not None:
                times[name, "reference"] += milliseconds_each(
                    lambda text: _ask_fts5(reference, text), [some[i] for i in block]
                )
    return times


def queries(data: Dataset, count: int) -> dict[str, list[str]]:
    """`count` texts of each kind, by its name."""
    return {"three words": _three_words(data, count), "a sentence": _sentences(data, count)}


def _rows_with(data: Dataset) -> Counter[str]:
    """How many rows have each word."""
    from apps.engine.text.analyzer import tokenize

    return Counter(word for row in data.rows for word in set(tokenize(row["text"])) if word)


def _three_words(data: Dataset, count: int) -> list[str]:
    middling = sorted(word for word, rows in _rows_with(data).items() if _RARE <= rows <= _OFTEN)
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(middling, 3, replace=False)) for _ in range(count)]


def _sentences(data: Dataset, count: int) -> list[str]:
    """Texts of rows that are long and have common words."""
    texts = [row["text"] for row in data.rows]
    some = [text for text in texts if len(text.split()) >= _LONG and set(_COMMON) <= set(text.split())]
    return some[:: len(some) // count][:count]


def _fts5(data: Dataset) -> sqlite3.Connection | None:
    """SQLite's index of the same texts; None where SQLite was built without it."""
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE VIRTUAL TABLE texts USING fts5(text)")
    except sqlite3.OperationalError as error:
        print(f"text: {error}, so there is no reference for queries by words", file=sys.stderr)
        return None
    database.executemany("INSERT INTO texts VALUES (?)", ((row["text"],) for row in data.rows))
    return database


def _ask_fts5(database: sqlite3.Connection, text: str) -> list[Any]:
    from apps.engine.text.analyzer import parse_query

    any_of = " OR ".join(f'"{word}"' for word in parse_query(text).words)
    return database.execute(
        "SELECT rowid, bm25(texts) FROM texts WHERE texts MATCH ? ORDER BY bm25(texts) LIMIT 10", [any_of]
    ).fetchall()
