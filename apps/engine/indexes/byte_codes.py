"""An 8-bit copy of the rows, scanned with a proven bound on what it loses; docs/indexes.md derives the bound.

Under cosine a row x stands for x / |x|. With a vector m near the mean of the rows, a row is coded as
    x = m + y,   y = s * c + e,   c whole numbers from -119 to 119,   s = max|y_i| / 119 in float32
where e is what is lost; r >= |e| is kept per row. The codes are two planes of 4-bit numbers: c + 120 = 16 * high + low.
The high ones alone, the *coarse* plane, give 16 * (high - 7) in place of c, with an e and r of their own. Both together
are the *fine* codes. A row too small for s to be a normal float32 is coded as zero, and r is its length.

Takes 1 byte per element, rounded up to 128 dimensions, and 16 per row.
"""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from apps.engine import kernels
from apps.engine.array_files import map_array, save_array
from apps.engine.metrics import Metric, unit_rows
from apps.engine.vectors import Float32, Float64, Int64, Mask

Bytes = NDArray[np.uint8]

# The number of candidates held at once, 20 bytes each.
_CANDIDATES = 1 << 21
_BLOCK_ROWS = 1024
_SAMPLE_ROWS = 4096
_NO_ROWS, _ALL = np.empty(0, np.int64), np.empty(0, np.bool_)


class ByteCodes(NamedTuple):
    """The 8-bit copy of a matrix [n, d], searched by compiled code.

    planes   uint8 [2, n, w], the coarse plane and the fine one. Of the 128 numbers in each 64 bytes, the first 64 are
             the low halves of the bytes and the last 64 the high halves. w is `_width(d)`.
    numbers  float32 [n, 4], per row s, w, r of the coarse codes and r of the fine ones; w = -|y|^2 / 2 under
             euclidean, otherwise y.m / |m|
    mean     float64 [d], m
    longest  float64 [1], the greatest |c|
    """

    planes: Bytes
    numbers: Float32
    mean: Float64
    longest: Float64

    @classmethod
    def build(cls, vectors: Float32, metric: Metric) -> Self:
        """Code `vectors` [n, d]; takes some 10 ns per element."""
        rows, dimension = vectors.shape
        width = _width(dimension)
        planes = _allocate_aligned((2, rows, width))
        numbers = np.empty((rows, 4), np.float32)
        mean = _centre(vectors, metric)
        longest = 0.0
        for start in range(0, rows, _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            codes, numbers[part], length = _encode(vectors[part], metric, mean)
            longest = max(longest, length)
            for plane, halves in zip(planes, np.divmod(codes, np.uint8(16)), strict=True):
                plane[part] = _pack(halves, width)
        return cls(planes, numbers, mean, np.array([longest]))

    def search(
        self,
        vectors: Float32,
        metric: Metric,
        queries: Float32,
        k: int,
        rows: Int64 = _NO_ROWS,
        allowed: Mask = _ALL,
    ) -> tuple[Int64, Float32]:
        """Positions and exact scores [m, k] of the k best rows for `queries` [m, d], ties by position.

        `vectors` [n, d] is what the copy was built from, C-contiguous. `rows`, ascending, limits the search to these
        rows, and `allowed` [n] to those that are true, unless they are empty. Needs the kernels, and k rows to choose
        from.
        """
        kernel = kernels.get("byte_scan")
        positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        step = 4 if len(queries) <= 4 else max(4, _CANDIDATES // kernel.capacity(k, len(vectors)))
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            found = positions[block], scores[block]
            kernel.search(metric.number, *self, vectors, queries[block], rows, allowed, *found)
        return positions, scores

    def save(self, folder: Path) -> None:
        for name, array in self._asdict().items():
            save_array(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, rows: int, dimension: int) -> Self:
        """The copy that was saved in `folder`; raises ValueError for one of another shape, which would be read beyond
        its end."""
        arrays = [map_array(folder / f"{name}.npy") for name in cls._fields]
        shapes = [(2, rows, _width(dimension)), (rows, 4), (dimension,), (1,)]
        types = ["uint8", "float32", "float64", "float64"]
        if [array.shape for array in arrays] != shapes or [array.dtype.name for array in arrays] != types:
            raise ValueError(f"{folder.name} holds a copy of other rows")
        return cls(*arrays)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self)


def _width(dimension: int) -> int:
    """Bytes per row of a plane."""
    return -(-dimension // 128) * 64


def _centre(vectors: Float32, metric: Metric) -> Float64:
    """The mean [d] of a sample of the rows as they are coded, or zero where the rows are not nearer to their mean."""
    sample = _unit_if_cosine(vectors[:: max(1, len(vectors) // _SAMPLE_ROWS)], metric)
    if not len(sample):
        return np.zeros(vectors.shape[1])
    mean: Float64 = sample.mean(axis=0)
    nearer = np.median(np.linalg.norm(sample - mean, axis=1)) < np.median(np.linalg.norm(sample, axis=1))
    return mean if nearer else np.zeros_like(mean)


def _unit_if_cosine(vectors: Float32, metric: Metric) -> Float64:
    """What `vectors` [n, d] stand for, in float64: under cosine, of length one."""
    wide = vectors.astype(np.float64)
    return unit_rows(wide) if metric is Metric.COSINE else wide


def _encode(vectors: Float32, metric: Metric, mean: Float64) -> tuple[Bytes, Float32, float]:
    """Codes c + 120 [n, d] of `vectors` [n, d], their `numbers` [n, 4], and the greatest |c|."""
    rows = _unit_if_cosine(vectors, metric) - mean
    lengths = _lengths(rows)
    scales = (np.abs(rows).max(axis=1) / 119).astype(np.float32)
    scales[scales < 2.0**-126] = 0
    wide = scales.astype(np.float64)[:, None]
    codes = np.rint(np.divide(rows, wide, out=np.zeros_like(rows), where=wide > 0))
    whole = (codes + 120).astype(np.uint8)
    coarse = 16.0 * (whole >> 4) - 112
    numbers = np.empty((len(rows), 4), np.float32)
    numbers[:, 0] = scales
    if metric is Metric.EUCLIDEAN:
        numbers[:, 1] = _round_up(-0.5 * (1 - 2.0**-22) * lengths * lengths)
    else:
        centre = np.linalg.norm(mean)
        numbers[:, 1] = rows @ (mean / centre) if centre > 0 else 0
    for field, approximation in ((2, coarse), (3, codes)):
        lost = _lengths(rows - wide * approximation) * (1 + 2.0**-20)
        unit_error = (vectors.shape[1] + 16) * 2.0**-40 if metric is Metric.COSINE else 0.0
        numbers[:, field] = _round_up(np.maximum(lost, lengths * 2.0**-11) + unit_error + 2.0**-126)
    return whole, numbers, float(max(_lengths(coarse).max(), _lengths(codes).max()))


def _lengths(rows: Float64) -> Float64:
    lengths: Float64 = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths


def _round_up(values: Float64) -> Float32:
    """Float32 above `values`."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def _pack(numbers: Bytes, width: int) -> Bytes:
    """4-bit `numbers` [n, d], two to a byte [n, width], zeros behind them."""
    padded = np.zeros((len(numbers), 2 * width), np.uint8)
    padded[:, : numbers.shape[1]] = numbers
    halves = padded.reshape(len(numbers), -1, 2, 64)
    packed: Bytes = halves[:, :, 0] | halves[:, :, 1] << np.uint8(4)
    return packed.reshape(len(numbers), width)


def _allocate_aligned(shape: tuple[int, ...]) -> Bytes:
    """Memory that begins at a line of the cache, as a mapped file does: a load across two takes twice as long."""
    size = int(np.prod(shape))
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].reshape(shape)
