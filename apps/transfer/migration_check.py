"""What was migrated, compared with its source: counts, all ids, a sample of rows, and the answers to queries between
them."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from apps.engine.vectors import Float32
from apps.libraries.chunk_fields import Shown
from apps.libraries.models import Chunk
from apps.libraries.selectors import library_row
from apps.search.query.service import query_batch
from apps.search.query.spec import QuerySpec
from apps.search.reading import get_chunks
from apps.transfer.migrating import Migrated, Plan, count_lasting_chunks, source_errors
from apps.transfer.rows import ChunkData
from apps.transfer.sources.chunks import chunk_id_of, chunk_of

K: Final = 10
_AT_A_TIME = 20
_IDS_AT_A_TIME = 1000
_MOST_LISTED = 10
# Another order of additions in float32 changes a score by less, relative to its size.
_TOLERANCE = 1e-5
_SHOWN = Shown.of(("text", "metadata", "embedding"), vectors="base64", is_item=True)


@dataclass
class Comparison:
    """What was found. `missing` of the `ids` of all rows are not in the library. `differences` are sentences about
    rows, of which some are listed; queries are better where our answer has a nearer row than the source's, and worse
    where it has a farther one."""

    ids: int = 0
    missing: int = 0
    rows: int = 0
    different: int = 0
    differences: list[str] = field(default_factory=list)
    queries: int = 0
    better: int = 0
    worse: int = 0

    @property
    def is_fine(self) -> bool:
        """Whether nothing is lost or changed."""
        return not self.different and not self.worse

    def note(self, difference: str) -> None:
        """Count a difference."""
        self.different += 1
        if len(self.differences) < _MOST_LISTED:
            self.differences.append(difference)


def compare(plan: Plan, migrated: Migrated) -> Comparison:
    """Compare what became of a collection with the source as it is now."""
    found = Comparison()
    with source_errors(plan.source.place):
        count = plan.source.collection(plan.collection.name).count
    if count != migrated.read:
        found.note(f"The source has {count} rows, and {migrated.read} were read")
    _compare_counts(migrated, count_lasting_chunks(plan.library_id), found)
    _compare_ids(plan, migrated.report.refused, found)
    vectors = [vector for some in _parts(migrated.sample, _AT_A_TIME) for vector in _compare_rows(plan, some, found)]
    # Between two rows, so that neither is the obvious answer.
    between = [(one + other) / 2 for one, other in zip(vectors, vectors[1:] + vectors[:1], strict=True)]
    for queries in _parts([one for one in between if np.any(one)], _AT_A_TIME):
        _compare_answers(plan, np.stack(queries), found)
    return found


def _compare_counts(migrated: Migrated, stored: int, found: Comparison) -> None:
    """Compare what was read with the report, and with how many chunks the library has."""
    report = migrated.report
    told = report.created + report.updated + report.left + report.refused
    if told != migrated.read:
        found.note(f"{migrated.read} rows were read, and the report tells of {told}")
    # Where there were chunks before, only those that are new can be counted.
    expected = migrated.before + report.created if migrated.before else migrated.read - report.refused
    if stored < expected:
        found.note(
            f"The library had {migrated.before} chunks, {migrated.read} rows were read, of which {report.created} were "
            f"made and {report.refused} refused, and it has {stored} chunks: rows of one id are one chunk, or some are "
            "lost"
        )


def _compare_ids(plan: Plan, refused: int, found: Comparison) -> None:
    """Look for the chunk of each row that the source has now: no more may be missing than were refused."""
    examples: list[str] = []
    # By no order, for which SQLite would read the whole library each time.
    in_library = Chunk.objects.filter(library=library_row(plan.library_id)).order_by()
    for ids in _ids(plan):
        there = set(in_library.filter(public_id__in=ids).values_list("public_id", flat=True))
        missing = [one for one in ids if one not in there]
        found.ids += len(ids)
        found.missing += len(missing)
        examples += missing[: _MOST_LISTED - len(examples)]
    if found.missing > refused:
        found.note(
            f"{found.missing} ids of the source are not in the library, and {refused} rows were refused; among the ids "
            f"are {', '.join(examples)}"
        )


def _ids(plan: Plan) -> Iterator[Sequence[str]]:
    """The ids of the chunks of all rows of the source, some at a time."""
    with source_errors(plan.source.place):
        for keys in plan.source.keys(plan.collection.name):
            yield from _parts([chunk_id_of(key) for key in keys], _IDS_AT_A_TIME)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _compare_rows(plan: Plan, keys: Sequence[str], found: Comparison) -> list[Float32]:
    """Compare rows; return the vectors of those that are the same."""
    with source_errors(plan.source.place):
        chunks = [chunk_of(row) for row in plan.source.fetch(plan.collection.name, keys)]
    stored = _stored(plan, [chunk["id"] for chunk in chunks])
    vectors = []
    for chunk in chunks:
        found.rows += 1
        if difference := _difference(chunk, stored.get(chunk["id"])):
            found.note(f"{chunk['id']}: {difference}")
        elif isinstance(vector := chunk["embedding"], np.ndarray):
            vectors.append(vector)
    return vectors


def _difference(chunk: ChunkData, item: dict[str, Any] | None) -> str | None:
    if item is None:
        return "is not there"
    vector = chunk["embedding"]
    if item["text"] != chunk["text"]:
        return "has another text"
    if _canonical(item["metadata"]) != _canonical(chunk["metadata"]):
        return "has other metadata"
    if _vector(item) != (vector.tobytes() if isinstance(vector, np.ndarray) else b""):
        return "has another vector"
    return None


def _canonical(metadata: dict[str, Any]) -> bytes:
    return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)


def _vector(item: dict[str, Any]) -> bytes:
    return base64.b64decode(item["embedding"] or "")


def _stored(plan: Plan, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    items, _ = get_chunks(library_id=plan.library_id, ids=ids, shown=_SHOWN)
    plain: list[dict[str, Any]] = orjson.loads(orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY))
    return {item["id"]: item for item in plain}


def _compare_answers(plan: Plan, queries: Float32, found: Comparison) -> None:
    metric = library_row(plan.library_id).metric
    with source_errors(plan.source.place):
        theirs = plan.source.search(plan.collection.name, queries, metric, K)
    options = {"k": K, "exact": True, "include": ()}
    specs = [QuerySpec.model_validate({"vector": one} | options) for one in queries.tolist()]
    answers = query_batch(library_id=plan.library_id, specs=specs)
    for query, keys, answer in zip(queries, theirs, answers, strict=True):
        ids = [chunk_id_of(key) for key in keys], [result["id"] for result in answer["results"]]
        stored = _stored(plan, [one for some in ids for one in some])
        expected, got = (_scores(metric, query, [stored[one] for one in some if one in stored]) for some in ids)
        slack = _TOLERANCE * (1 + np.abs(expected))
        found.queries += 1
        if len(got) < len(expected) or np.any(got[: len(expected)] < expected - slack):
            found.worse += 1
        elif len(got) > len(expected) or np.any(got > expected + slack):
            found.better += 1


def _scores(metric: str, query: Float32, items: Sequence[dict[str, Any]]) -> np.ndarray:
    """The scores [n] of rows, best first, higher for nearer ones."""
    rows = np.array([np.frombuffer(_vector(item), "<f4") for item in items], np.float64).reshape(len(items), -1)
    wide = query.astype(np.float64)
    if not items:
        return np.empty(0)
    if metric == "euclidean":
        scores = -np.linalg.norm(rows - wide, axis=1)
    else:
        scores = rows @ wide
        if metric == "cosine":
            scores /= np.linalg.norm(rows, axis=1) * np.linalg.norm(wide)
    return np.sort(scores)[::-1]
