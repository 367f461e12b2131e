"""Queries that the recall watch repeats: workers hand some over, maintenance takes them.

They pass by one file in the runtime folder, which is in memory where there is such a place: a line for each, written at
once. No worker waits for it: a full file takes no more. It holds vectors and filters, no texts, and only this user can
read it.
"""

import base64
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from django.conf import settings

from apps.access.requests import current_principal
from apps.engine.metadata.filter_json import dump_filter, load_filter
from apps.engine.metadata.filters import And, Filter
from apps.engine.vectors import Float32
from apps.search.query.search import RankedHits, SearchRequest
from apps.search.snapshots import LibraryState, Position, Snapshot
from apps.telemetry import metrics
from apps.telemetry.slots import runtime_folder

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 20
_LONGEST_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Sample:
    """A query and what an approximate index found for it, in the state of its library at `position` and the time `now`.
    `scores` are those of the hits, best first."""

    library_id: str
    uid: str
    generation: int
    position: Position
    now: int
    k: int
    vector: Float32
    filter: Filter
    left_out: int | None
    keys: list[int]
    scores: list[float]


def offer(state: LibraryState, snapshot: Snapshot, request: SearchRequest, hits: RankedHits) -> None:
    """Hand a query over by chance, at the rate of the settings, if an approximate index answered it. Pages behind the
    first, and filters applied afterwards, are passed over, and so are candidates of boosts and of diverse results, of
    which not all need be found."""
    if hits.exact or request.vector is None or random.random() >= settings.RECALL_WATCH:  # noqa: S311
        return
    if request.mode != "vector" or request.exact or request.offset or request.filter_mode == "post":
        return
    if request.sure is not None or request.first is not None:
        return
    result = "sampled" if _write(state, snapshot, request, hits) else "dropped"
    metrics.RECALL_SAMPLES.add(1, result)


def _write(state: LibraryState, snapshot: Snapshot, request: SearchRequest, hits: RankedHits) -> bool:
    assert request.vector is not None
    # Maintenance sees all rows; of a search token, only those count that it may see.
    permitted = current_principal.get().filter
    content = {
        "library": [state.public_id, state.uid, state.generation],
        "position": [state.position.seq, state.position.token],
        "now": snapshot.now,
        "k": request.fetch,
        "vector": base64.b64encode(request.vector.tobytes()).decode(),
        "filter": dump_filter(request.filter if permitted is None else And((permitted, request.filter))),
        "left_out": request.left_out,
        "keys": hits.keys,
        "scores": hits.scores,
    }
    line = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
    if len(line) > _LONGEST_SAMPLE:
        return False
    try:
        file = os.open(_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            return os.fstat(file).st_size < _MOST_BYTES and os.write(file, line) == len(line)
        finally:
            os.close(file)
    except OSError as error:
        logger.debug("a sample for the recall watch cannot be handed over: %s", error)
        return False


def take() -> Iterator[Sample]:
    """Take all samples that were handed over, the oldest first. Raises OSError."""
    path = _path()
    taken = path.with_suffix(".taken")
    try:
        path.rename(taken)
    except FileNotFoundError:
        return
    lines = taken.read_bytes().splitlines()
    taken.unlink()
    for line in lines:
        try:
            yield _parse(orjson.loads(line))
        except (ValueError, KeyError, TypeError):
            continue  # its worker was killed in the middle


def _parse(content: Any) -> Sample:
    library_id, uid, generation = content["library"]
    return Sample(
        library_id,
        uid,
        generation,
        Position(*content["position"]),
        content["now"],
        content["k"],
        np.frombuffer(base64.b64decode(content["vector"]), np.float32),
        load_filter(content["filter"]),
        content["left_out"],
        content["keys"],
        content["scores"],
    )


def _path() -> Path:
    return runtime_folder() / "recall-samples"
