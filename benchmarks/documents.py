"""What filters on the metadata of documents cost beside the same filters on chunks' own: rates and recall, in turns
over HTTP by one client, where each hundred chunks of a topic are a document with five fields. What a comparison of
dates costs beside one of numbers that the same half of the rows matches. And how soon a worker shows a change of a
document of 1,000 chunks that another one has answered.
"""

from collections import defaultdict
from datetime import date, timedelta
from statistics import median
from typing import Any

import orjson

from benchmarks.client import call, call_json
from benchmarks.dataset import Dataset, as_base64
from benchmarks.filtered import ANIMAL, Truth
from benchmarks.report import Row, at_least, at_most, times_at_least
from benchmarks.testbed import (
    ALL,
    ROWS_PER_WRITE,
    Testbed,
    chunks_path,
    query_path,
    wait_until_built,
    warm,
)
from benchmarks.timing import milliseconds_each, progress, seconds

_PER_DOCUMENT = 100
_PER_BLOCK = 25
# A block's first queries find the caches as the other side left them.
_DROPPED = 5
_OWN, _OF_DOCUMENT = "topic", "@document.topic"
_NUMBER, _DATE = "number", "$date"
_FIRST_DAY = date(2000, 1, 1)
_BIG = "big"


def run(testbed: Testbed) -> list[Row]:
    data, folder = testbed.data, testbed.copy_of_filled()
    with testbed.serving(folder) as server:
        documents = _make_documents(server.port, data)
        call_json(server.port, "POST", f"/api/v1/libraries/{ALL}/reindex", {})
        wait_until_built(server.port, ALL)
        warm(server, data)
        rows = _rates(testbed, server.port, documents // 2)
    return [*rows, *_catch_up(testbed)]


def _rates(testbed: Testbed, port: int, half: int) -> list[Row]:
    data = testbed.data
    filters: dict[str, dict[str, Any]] = {
        _OWN: {_OWN: ANIMAL.filter[_OWN]},
        _OF_DOCUMENT: {_OF_DOCUMENT: ANIMAL.filter[_OWN]},
        _NUMBER: {"@document.number": {"$gte": half}},
        _DATE: {"@document.day": {"$gte": {"$date": _day(half)}}},
    }
    times: defaultdict[str, list[float]] = defaultdict(list)
    answers: defaultdict[str, list[list[int]]] = defaultdict(list)

    def query(body: bytes) -> bytes:
        return call(port, "POST", query_path(ALL), body)

    for turn in progress(range(testbed.repeat(20, 4)), "documents"):
        places = [(turn * _PER_BLOCK + i) % len(data.queries) for i in range(_PER_BLOCK)]
        for field, filter in filters.items():
            bodies = [data.query_body(place, as_base64, filter=filter) for place in places]
            times[field] += milliseconds_each(query, bodies)[_DROPPED:]
            for body in bodies:
                found = orjson.loads(query(body))["results"]
                answers[field].append([data.positions[result["id"]] for result in found])
    rates = {field: 1000 * len(some) / sum(some) for field, some in times.items()}
    truth = Truth(data, ANIMAL, len(answers[_OWN]))
    assert answers[_NUMBER] == answers[_DATE]
    recall, own_recall = (truth.recall(answers[field]) for field in (_OF_DOCUMENT, _OWN))
    name = f"= {ANIMAL.filter[_OWN]}"
    return [
        Row(f"queries, {_OF_DOCUMENT} {name}", rates[_OF_DOCUMENT], "1/s", _OWN, rates[_OWN], times_at_least(0.9)),
        Row(f"recall@10, {_OF_DOCUMENT} {name}", recall, "", _OWN, own_recall, at_least(own_recall)),
        Row(
            "queries, half of the rows by $date",
            rates[_DATE],
            "1/s",
            "by a number",
            rates[_NUMBER],
            times_at_least(0.95),
        ),
    ]


def _day(number: int) -> str:
    return (_FIRST_DAY + timedelta(days=number)).isoformat()


def _make_documents(port: int, data: Dataset) -> int:
    """Let each hundred chunks of a topic be a document, whose metadata has five fields; return their number."""
    by_topic: defaultdict[str, list[str]] = defaultdict(list)
    for row in data.rows:
        by_topic[row["metadata"][_OWN]].append(row["id"])
    documents: dict[str, dict[str, Any]] = {}
    changes = []
    for topic, ids in by_topic.items():
        for i, chunk_id in enumerate(ids):
            document = f"{topic}-{i // _PER_DOCUMENT}"
            number = len(documents)
            documents.setdefault(
                document,
                {"topic": topic, "number": number, "part": i // _PER_DOCUMENT, "language": "en", "day": _day(number)},
            )
            changes.append({"id": chunk_id, "document_id": document})
    for start in progress(range(0, len(changes), ROWS_PER_WRITE), "documents are made"):
        some = changes[start : start + ROWS_PER_WRITE]
        call_json(port, "POST", chunks_path(ALL), {"chunks": some, "mode": "update", "create_documents": True})
    for document, metadata in documents.items():
        call_json(port, "PATCH", f"/api/v1/libraries/{ALL}/documents/{document}", {"metadata": metadata})
    return len(documents)


def _catch_up(testbed: Testbed) -> list[Row]:
    """Two servers of one worker each run on the same folder, so that it is known who answers."""
    data, folder = testbed.data, testbed.copy_of_filled()
    path = f"/api/v1/libraries/{ALL}/documents/{_BIG}"
    with testbed.serving(folder, VECTORDB_WORKERS=1) as first, testbed.serving(folder, VECTORDB_WORKERS=1) as second:
        changes = [{"id": row["id"], "document_id": _BIG} for row in data.rows[:1000]]
        body = {"chunks": changes, "mode": "update", "create_documents": True}
        call_json(first.port, "POST", chunks_path(ALL), body)
        times = []
        for turn in range(testbed.repeat(50, 10)):
            call_json(first.port, "PATCH", path, {"metadata": {"turn": turn}})
            count = orjson.dumps({"filter": {"@document.turn": turn}})
            times.append(seconds(call, second.port, "POST", f"{chunks_path(ALL)}/count", count) * 1000)
            found = call_json(second.port, "POST", f"{chunks_path(ALL)}/count", {"filter": {"@document.turn": turn}})
            assert found["count"] == len(changes), "the change was not seen"
    return [
        Row("change of a document of 1,000 chunks, seen by the other worker", median(times), "ms", wanted=at_most(50))
    ]
