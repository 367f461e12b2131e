"""Locality-sensitive hashing with random hyperplanes: approximate search that looks at a part of the rows (Charikar,
Similarity estimation techniques from rounding algorithms, 2002).

On which side of 512 hyperplanes a row is makes its *signature*. Each *table* takes some bits of it as the number of a
*bucket*. A query looks into the buckets that it is nearest to in each table (Lv et al., Multi-probe LSH, 2007). The
rows found are compared by the Hamming distance of their signatures, and the nearest are scored exactly. docs/indexes.md
says where the hyperplanes come from, and how scores become angles.

Costs 64 + 4 * tables bytes a row, and some 3 microseconds a row to build. No BLAS goes into a signature, whose sums
depend on where a row lies: equal rows have equal signatures, and a query has the same answer alone and in a batch,
before saving and after.
"""

import json
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine import kernels
from apps.engine.array_files import map_array, save_array
from apps.engine.errors import InvalidParameter
from apps.engine.indexes.base import Checkpoint, Parameter, Params, VectorIndex
from apps.engine.indexes.calibration import Calibration
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.recall import RECALL, RecallCurve, Trial
from apps.engine.metrics import Metric, row_norms
from apps.engine.vectors import Float32, Float64, Mask

Int32 = NDArray[np.int32]
Words = NDArray[np.uint64]

SIGNATURE_BITS = 512
_ROUNDS = 3
_USUAL = 0.999
_TABLES = 32
_MOST_BITS = 16
_BUCKET_ROWS = 12
# By default a query for few rows looks into buckets of this part of n: 19% of 100,000, 8% of a million. As n grows,
# the nearest rows stand out more; the further ones do so less, so for k above 10 the part grows with this power of k.
_SHARE, _SHARE_POWER = 19.0, -0.4
_FEW, _SHARE_GROWTH = 10, 0.28
# The rows that are scored exactly: some c * k**power.
_SHORTLIST, _SHORTLIST_POWER = 36, 0.75
_SHORTEST = 64
# Of n rows with s allowed, the nearest are further away, where signatures tell less: the part grows by this power of
# n / s, and the short-list by n / s.
_MASK_POWER = 6
# If fewer than one row in five is allowed, an exact scan is as quick.
_SCAN_SHARE = 5
# Where more rows than usual are near a query, it stops at this multiple of that.
_CROWD = 1.5
_BLOCK_SIZE = 1 << 20
# What a trial at build multiplies the usual number of buckets by, and how many queries it makes.
_TRIED, _TRIAL_QUERIES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4), 48
_GROWTH = {"probes": _SHARE_GROWTH, "shortlist": _SHORTLIST_POWER}
_CURVE = "recall.json"


class Arrays(NamedTuple):
    """What an index holds.

    frame       [d + 3] float64: the mean, with that of the element that dot adds; the element that is the same for all;
                by what rows are multiplied under dot and euclidean
    signs       [3, size] float32, of the rotation; size is a power of two
    signatures  [n, 8] uint64
    starts      [tables, 2**bits + 1] int32: where in `rows` each bucket begins
    rows        [tables, n] int32, bucket by bucket
    """

    frame: Float64
    signs: Float32
    signatures: Words
    starts: Int32
    rows: Int32


class Lsh(VectorIndex):
    """Compares a query's signature with those of the rows that hash tables name, which `compared` counts."""

    kind = "lsh"
    # Rows with no more elements than this in all are searched exactly, which takes some 0.1 ms.
    scan_size = 1 << 19
    build_parameters = (
        Parameter("tables", 1, 128, str(_TABLES), "hash tables: more of them find more, for 4 bytes a row each"),
        Parameter(
            "bits", 1, _MOST_BITS, f"{_BUCKET_ROWS} rows to a bucket", "hyperplanes a table; times tables at most 512"
        ),
        Parameter("seed", 0, 2**32 - 1, "0", "chooses the hyperplanes"),
    )
    search_parameters = (
        Parameter(
            "probes",
            1,
            1 << _MOST_BITS,
            "for k = 10: of 100,000 rows 19%, of a million 8%; more for a larger k or under a filter",
            "buckets to look into, a table",
        ),
        Parameter(
            "shortlist",
            1,
            1_000_000,
            "202 for k = 10, 6,402 for k = 1,000; more under a filter",
            "rows with the nearest signatures that are scored exactly; at least k are",
        ),
        RECALL,
    )

    def __init__(self, matrix: Matrix, arrays: Arrays, curve: RecallCurve | None = None) -> None:
        super().__init__(matrix)
        self.arrays = arrays
        self._curve = curve
        self._all = _pack(np.ones(len(matrix), np.bool_))

    @classmethod
    def check_params(cls, params: Params) -> None:
        super().check_params(params)
        tables, bits = params.get("tables", 1), params.get("bits", 1)
        if tables * bits > SIGNATURE_BITS:
            raise InvalidParameter("bits", f"times tables must be at most {SIGNATURE_BITS}, not {bits} * {tables}")

    @classmethod
    def _build(cls, matrix: Matrix, params: Params, checkpoint: Checkpoint) -> Self:
        vectors = matrix.vectors
        n, d = vectors.shape
        tables = params.get("tables", min(_TABLES, SIGNATURE_BITS // params.get("bits", 1)))
        filling = max(1, round(np.log2(max(n, 1) / _BUCKET_ROWS)))
        bits = params.get("bits", min(filling, _MOST_BITS, SIGNATURE_BITS // tables))
        size = max(SIGNATURE_BITS, 1 << (d + 1).bit_length())
        signs = np.random.default_rng(params.get("seed", 0)).choice(np.array([-1, 1], np.float32), (_ROUNDS, size))
        frame, factors, extras = _fit_frame(vectors, matrix.metric)
        signatures = np.empty((n, SIGNATURE_BITS // 64), np.uint64)
        kernels.get("lsh").fill_signatures(vectors, factors, extras, frame, signs, signatures)
        starts = np.zeros((tables, (1 << bits) + 1), np.int32)
        rows = np.empty((tables, n), np.int32)
        for table in range(tables):
            keys = table_keys(signatures, table, bits)
            rows[table] = np.argsort(keys, kind="stable")
            np.cumsum(np.bincount(keys, minlength=1 << bits), out=starts[table, 1:])
        index = cls(matrix, Arrays(frame, signs, signatures, starts, rows))
        index._curve = index._try_efforts()
        return index

    def _try_efforts(self) -> RecallCurve | None:
        """What is found in fewer and in more buckets than is usual; None where an exact search is as quick."""
        usual = self.effort({}, len(self), Calibration.k)
        if usual is None:
            return None
        calibration = Calibration.draw(self.matrix, _TRIAL_QUERIES)
        if not calibration.separable:
            return None
        buckets = self.arrays.starts.shape[1] - 1
        trials = []
        for part in _TRIED:
            probes = min(buckets, max(1, round(part * (usual[0] or buckets))))
            values = {"probes": probes, "shortlist": max(Calibration.k, round(usual[2] * part**_SHORTLIST_POWER))}
            found = self.search(calibration.queries, Calibration.k, params=values)
            trials.append(Trial(calibration.recall(found.scores), part, values))
        return RecallCurve.fit(trials)

    def _search(
        self, queries: Float32, k: int, allowed: Mask | None, count: int, params: Params, sure: int
    ) -> Neighbors | None:
        effort = self.effort(params, count, k)
        if effort is None:
            return None
        m = len(queries)
        positions, scores, compared = np.empty((m, k), np.int64), np.empty((m, k), np.float32), np.empty(m, np.int64)
        given = self.matrix.vectors, *self.arrays, queries, self._all if allowed is None else _pack(allowed), *effort
        kernels.get("lsh").search(self.matrix.metric.number, *given, positions, scores, compared)
        false = np.zeros(m, np.bool_)
        return Neighbors(positions, scores, compared, proven=false, scanned=false)

    def save(self, folder: Path) -> None:
        for name, array in self.arrays._asdict().items():
            save_array(folder / f"{name}.npy", array)
        (folder / _CURVE).write_text(json.dumps(self._curve and self._curve.as_dict()))

    @classmethod
    def load(cls, folder: Path, matrix: Matrix) -> Self:
        arrays = Arrays(*(map_array(folder / f"{name}.npy") for name in Arrays._fields))
        n, d = matrix.vectors.shape
        if arrays.signatures.shape[0] != n or arrays.rows.shape[1] != n or arrays.frame.shape != (d + 3,):
            raise ValueError(f"{folder} has hashes of other rows")
        curve = json.loads((folder / _CURVE).read_text())
        return cls(matrix, arrays, None if curve is None else RecallCurve.parse(curve, _GROWTH))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def effort(self, params: Params, count: int, k: int) -> tuple[int, int, int] | None:
        """What a search for the k best of `count` allowed rows costs: the number of buckets of a table to look into, 0
        for all rows; of rows in them; and of rows to score exactly. None where an exact search is as quick."""
        n, tables, buckets = len(self), len(self.arrays.rows), self.arrays.starts.shape[1] - 1
        if count * self.matrix.dimension <= self.scan_size or count * _SCAN_SHARE < n:
            return None
        aimed: dict[str, int] = {}
        if self._curve is not None and RECALL.name in params:
            aimed = self._curve.at(params[RECALL.name], k, _GROWTH)
        usual = round(aimed.get("shortlist", max(_SHORTEST, _SHORTLIST * k**_SHORTLIST_POWER)) * n / count)
        scored = max(k, params.get("shortlist", usual))
        if count <= scored:
            return None
        if "probes" in params:
            return min(params["probes"], buckets), n, scored
        if aimed:
            return min(round(aimed["probes"] * (n / count) ** _MASK_POWER), buckets), n, scored
        share = _SHARE * n**_SHARE_POWER * (n / count) ** _MASK_POWER
        share *= (max(k, _FEW) / _FEW) ** _SHARE_GROWTH
        if share >= 1.0:
            return 0, 0, scored
        return max(1, round(share * buckets / tables)), max(1, round(_CROWD * share * n / tables)), scored


def _fit_frame(vectors: Float32, metric: Metric) -> tuple[Float64, Float64, Float64]:
    """The frame of `vectors` [n, d], and for each what it is multiplied by and its element more under dot, both [n]."""
    n, d = vectors.shape
    norms = row_norms(vectors)
    frame = np.zeros(d + 3)
    usual = np.quantile(norms, _USUAL) if metric is Metric.DOT and n else norms.max(initial=0.0)
    frame[-1] = 1.0 / (usual or 1.0)
    factors = np.full(n, frame[-1])
    if metric is not Metric.EUCLIDEAN:
        with np.errstate(divide="ignore"):
            factors = 1.0 / norms if metric is Metric.COSINE else np.minimum(factors, 1.0 / norms)
    extras = np.zeros(n)
    if metric is Metric.DOT:
        extras = np.sqrt(np.maximum(0.0, 1.0 - (norms * factors) ** 2))
    step = max(1, _BLOCK_SIZE // d)
    blocks = [slice(start, start + step) for start in range(0, n, step)]
    for block in blocks:
        frame[:d] += (vectors[block] * factors[block, None]).sum(axis=0) / n
    frame[d] = extras.mean() if n else 0.0
    lengths = (extras - frame[d]) ** 2
    for block in blocks:
        lengths[block] += ((vectors[block] * factors[block, None] - frame[:d]) ** 2).sum(axis=1)
    if n:
        low, middle = np.quantile(np.sqrt(lengths), [0.1, 0.5])
        frame[d + 1] = middle - low
    return frame, factors, extras


def table_keys(signatures: Words, table: int, bits: int) -> NDArray[np.uint16]:
    """The bits of `signatures` [n, 8] that `table` takes."""
    word, offset = divmod(table * bits, 64)
    keys = signatures[:, word] >> np.uint64(offset)
    if offset + bits > 64:
        keys |= signatures[:, word + 1] << np.uint64(64 - offset)
    return (keys & np.uint64((1 << bits) - 1)).astype(np.uint16)


def _pack(allowed: Mask) -> Words:
    """`allowed` [n] as words: row i is bit i % 64 of word i // 64."""
    packed = np.zeros(-(-len(allowed) // 64) * 8, np.uint8)
    packed[: -(-len(allowed) // 8)] = np.packbits(allowed, bitorder="little")
    return packed.view(np.uint64)
