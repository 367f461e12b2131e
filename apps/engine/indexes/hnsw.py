"""Approximate search in a graph of neighbours, built and walked by faiss: HNSW (Malkov, Yashunin, Efficient and robust
approximate nearest neighbor search using hierarchical navigable small world graphs, 2018).

A walk keeps the `ef` best nodes that it met, by codes of the graph's own, and costs some ef * m comparisons; the rows
of these nodes are then scored exactly. docs/indexes.md says what codes there are, and what is done about duplicates,
filters and graphs that lead nowhere.

Costs at 384 dimensions and m = 16: 0.9 KB per row in the file, which is mapped, and 12 bytes per row in each process.
The build takes one thread some 0.3 ms per row; the same rows give the same graph.
"""

import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from apps.engine.indexes.base import Checkpoint, Parameter, Params, VectorIndex
from apps.engine.indexes.calibration import Calibration
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.faiss_library import count_compared, library, metric_number, read, round_up, write
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.normalize import Normalizer
from apps.engine.indexes.recall import ENOUGH, RECALL, RecallCurve, Trial
from apps.engine.indexes.rerank import Candidates, rerank, search_lists
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

_M, _EF_CONSTRUCTION, _EF = 16, 128, 128
_LARGEST_EF = 4096
_CODES_FROM_DIMENSION = 64
# Rows that are farther from the origin than this multiple of their distance from each other get bytes as codes, which
# err half as much as bfloat16 then, and under cosine are walked by L2. Nearer, as embeddings are, inner products of
# bfloat16 are quicker.
_FAR = 2.0
_ROWS_PER_STEP = 512
# SIMD code of the library wants whole registers.
_WIDTH_STEP = 16
_ENOUGH = 0.93
_LEAST_EF = 12
# For a target of recall, walks grow with k by this power.
_GROWTH = {"ef": 0.5}
# A walk beside an exact search among some rows: gathered, a row costs what five in sequence do, and of an 8-bit copy a
# kept row of a walk what 150 gathered ones do.
_GATHER_COST = 5
_WALK_COST_OF_COPY = 150
# The least number of kept rows that are scored exactly; 4 k are, if that is more.
_SHORTEST = 32


class Hnsw(VectorIndex):
    """A walk in a graph that keeps `ef` rows, then their exact scores.

    `compared` counts the codes that the walks for a query looked at, allowed or not, as faiss counts them.
    """

    kind = "hnsw"
    slow_to_build = True
    # The fewest nodes for which a graph is built.
    fewest_nodes = 1000
    # How many rows an exact search scores in the time that a walk takes for each row that it keeps.
    walk_cost = 48
    build_parameters = (
        Parameter("m", 4, 64, f"{_M}", "links per row and level, twice as many on the ground level"),
        Parameter("ef_construction", 8, 1024, f"{_EF_CONSTRUCTION}", "how many rows a walk keeps while linking a row"),
    )
    search_parameters = (
        Parameter(
            "ef",
            1,
            _LARGEST_EF,
            f"{_EF}, more where a trial at build found too few, and at least 2 k",
            "how many rows a walk keeps; more cost time and find more; at least k are",
        ),
        RECALL,
    )

    def __init__(self, matrix: Matrix, graph: "_Graph | None") -> None:
        super().__init__(matrix)
        self._graph = graph

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        """Make the graph, set its default `ef` to what calibration requires, and drop it where that does not pay."""
        index = cls(matrix, None)
        calibration = Calibration.draw(matrix) if index._pays(_EF, len(matrix)) else None
        if calibration is None or not calibration.separable:
            return index
        m, ef_construction = params.get("m", _M), params.get("ef_construction", _EF_CONSTRUCTION)
        index._graph = _Graph.build(matrix, m, ef_construction, cls.fewest_nodes, checkpoint)
        while index._graph is not None:
            if not index._pays(index._graph.ef, len(matrix)):
                index._graph = None
                break
            found = index.search(calibration.queries, calibration.k, params={"ef": index._graph.ef})
            if calibration.recall(found.scores) >= _ENOUGH:
                break
            index._graph.ef *= 2
        if index._graph is not None:
            index._graph.curve = RecallCurve.fit(index._trials(calibration, checkpoint))
        return index

    def _trials(self, calibration: Calibration, checkpoint: Checkpoint) -> list[Trial]:
        """What longer and longer walks find, as far as they pay."""
        ef, trials = _LEAST_EF, list[Trial]()
        while not trials or (ef <= _LARGEST_EF and self._pays(ef, len(self)) and trials[-1].recall < ENOUGH):
            checkpoint()
            found = self.search(calibration.queries, calibration.k, params={"ef": ef})
            trials.append(Trial(calibration.recall(found.scores), ef, {"ef": ef}))
            ef *= 2
        return trials

    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        graph = self._graph
        if graph is None:
            return None
        usual = max(graph.ef, 2 * sure)
        if graph.curve is not None and RECALL.name in params:
            usual = graph.curve.at(params[RECALL.name], sure, _GROWTH)["ef"]
        first = max(k, params.get("ef", usual)) * len(self) // count

        def search(block: Float32, kept: int) -> Candidates:
            length = min(kept, max(_SHORTEST, 4 * k)) if allowed is None and kept == first else kept
            representatives, compared = graph.walk(block, kept, length)
            positions, scores, _ = rerank(
                self.matrix, block, k, representatives, duplicates=graph.duplicates, allowed=allowed
            )
            return Candidates(positions, scores, compared, positions[:, min(k, count) - 1] >= 0)

        return search_lists(
            queries,
            k,
            allowed,
            matrix=self.matrix,
            length=first,
            pays=lambda kept: self._pays(kept, count),
            search=search,
        )

    def _pays(self, kept: int, count: int) -> bool:
        """Whether a walk that keeps `kept` rows costs less than an exact search among `count` rows."""
        if count < len(self) and self.matrix.codes is not None:
            return _WALK_COST_OF_COPY * kept <= count
        return self.walk_cost * kept <= min(len(self), _GATHER_COST * count)

    def save(self, folder: Path) -> None:
        about = None if self._graph is None else self._graph.save(folder)
        (folder / "graph.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        about = json.loads((folder / "graph.json").read_text())
        return cls(matrix, None if about is None else _Graph.load(folder, about, matrix))

    @property
    def nbytes(self) -> int:
        return self._graph.nbytes if self._graph else 0


class _Graph:
    """Nodes, one for each row that is no duplicate, with their codes and links, the default `ef`, and what walks of
    other lengths find once that was tried."""

    def __init__(
        self, index: Any, duplicates: Duplicates, normalizer: Normalizer, ef: int, curve: RecallCurve | None = None
    ) -> None:
        self._index = index
        self.duplicates = duplicates
        # The row of each node, and -1, that of no node, at the end; None where each is its number.
        self._rows = np.append(duplicates.representatives(), -1) if duplicates.pairs.size else None
        self._normalizer = normalizer
        self.ef = ef
        self.curve = curve

    @classmethod
    def build(
        cls, matrix: Matrix, m: int, ef_construction: int, fewest_nodes: int, checkpoint: Checkpoint
    ) -> Self | None:
        """The graph of all rows; None where fewer than `fewest_nodes` differ."""
        faiss = library()
        normalizer = Normalizer.fit(matrix, round_up(matrix.dimension, _WIDTH_STEP))
        corners = _corners(normalizer, matrix.vectors)
        is_far = bool(np.linalg.norm(np.abs(corners).max(axis=0)) > _FAR * np.linalg.norm(corners[1] - corners[0]))
        by_l2 = is_far and matrix.metric is Metric.COSINE
        number = faiss.METRIC_L2 if by_l2 else metric_number(matrix.metric)
        if _faiss_class(matrix) == "IndexHNSWFlat":
            index = faiss.IndexHNSWFlat(normalizer.width, m, number)
        else:
            code = faiss.ScalarQuantizer.QT_8bit if is_far else faiss.ScalarQuantizer.QT_bf16
            index = faiss.IndexHNSWSQ(normalizer.width, code, m, number)
            index.train(corners)
        index.hnsw.efConstruction = ef_construction
        storage = faiss.downcast_index(index.storage)
        duplicates = Duplicates.find(storage.sa_encode(block) for block in normalizer.row_blocks(matrix.vectors))
        if duplicates.count < fewest_nodes:
            return None
        # A few at a time, so that the build can be ended. It takes no longer for that, and finds as much.
        for block in normalizer.row_blocks(matrix.vectors, duplicates.representatives()):
            for start in range(0, len(block), _ROWS_PER_STEP):
                checkpoint()
                index.add(block[start : start + _ROWS_PER_STEP])
        return cls(index, duplicates, normalizer, _EF)

    @classmethod
    def load(cls, folder: Path, about: dict[str, Any], matrix: Matrix) -> Self:
        try:
            scale, ef, is_by_l2 = float(about["scale"]), int(about["ef"]), about["by_l2"] is True
            curve = RecallCurve.parse(about["recall"], _GROWTH)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder} has no description of a graph: {error!r}") from None
        duplicates = Duplicates.load(folder, len(matrix))
        normalizer = Normalizer(matrix.metric, round_up(matrix.dimension, _WIDTH_STEP), scale)
        number = library().METRIC_L2 if is_by_l2 else metric_number(matrix.metric)
        index = read(folder / "graph.faiss", _faiss_class(matrix), number, normalizer.width, duplicates.count)
        return cls(index, duplicates, normalizer, ef, curve)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the graph into `folder`; what is returned goes to `load` with it."""
        write(self._index, folder / "graph.faiss")
        self.duplicates.save(folder)
        assert self.curve is not None
        is_by_l2 = self._index.metric_type == library().METRIC_L2
        return {"scale": self._normalizer.scale, "ef": self.ef, "by_l2": is_by_l2, "recall": self.curve.as_dict()}

    def walk(self, queries: Float32, kept: int, length: int) -> tuple[Int64, Int64]:
        """For each of `queries` [m, d] the representatives of the `length` best of `kept` nodes [m, length], -1 where
        there are fewer, and the number of nodes that it was compared with [m]."""
        params = _search_parameters(kept)
        nodes, scores = np.empty((len(queries), length), np.int64), np.empty((1, length), np.float32)
        compared = np.empty(len(queries), np.int64)
        normalized = self._normalizer.queries(queries)
        # One by one, for faiss counts all queries of a call together; it walks from one after the other anyway.
        for i in range(len(queries)):
            one = slice(i, i + 1)
            walk = partial(self._index.search, normalized[one], length, params=params, D=scores, I=nodes[one])
            compared[i] = count_compared(walk)
        return nodes if self._rows is None else self._rows[nodes], compared

    @property
    def nbytes(self) -> int:
        code_bytes = int(library().downcast_index(self._index.storage).code_size)
        links = int(self._index.hnsw.neighbors.size())
        rows = 0 if self._rows is None else self._rows.nbytes
        return self.duplicates.count * (code_bytes + 12) + 4 * links + self.duplicates.pairs.nbytes + rows


@lru_cache(maxsize=64)
def _search_parameters(kept: int) -> Any:
    """faiss's parameters for a walk that keeps `kept` nodes; threads share them, and faiss only reads them."""
    return library().SearchParametersHNSW(efSearch=kept)


def _faiss_class(matrix: Matrix) -> str:
    return "IndexHNSWSQ" if matrix.dimension >= _CODES_FROM_DIMENSION else "IndexHNSWFlat"


def _corners(normalizer: Normalizer, vectors: Float32) -> Float32:
    """The least and the greatest value in each dimension, float32 [2, width]."""
    blocks = [np.stack([block.min(axis=0), block.max(axis=0)]) for block in normalizer.row_blocks(vectors)]
    both = np.concatenate(blocks)
    return np.stack([both.min(axis=0), both.max(axis=0)])
