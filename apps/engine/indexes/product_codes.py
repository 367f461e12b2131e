"""Rows as 4-bit product codes in inverted lists, scanned by faiss (Jegou, Douze, Schmid, Product quantization for
nearest neighbor search, 2011; the scan is faiss's fast-scan, after Andre, Kermarrec, Le Scouarnec, Cache locality is
not enough, 2015).

Each piece of a row is replaced by the number of the nearest of 16 centroids that k-means found for its place. The code
is that of the row itself, not of what lies between the row and the centre of its list: so one table of a query serves
all lists. (RaBitQ codes, which are relative to the centre, need a table for each list; at the same recall they take two
to three times as long.)

Files, which all processes map:

centres.npy   float32 [lists, width], the centre of each list
pieces.npy    float32 [width / piece, 16, piece], the centroids of each piece
lists.npy     int64 [lists], the number of rows in each list
codes.bin     list by list, each from a multiple of 64 bytes on: its codes as faiss packs 32 rows, then int64 positions
copies.npy    the duplicates (`duplicates`)

Costs 1/8 to 1/2 byte per dimension and 8 bytes per row.
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from apps.engine.array_files import map_array, save_array
from apps.engine.indexes.base import Checkpoint, Parameter, Params
from apps.engine.indexes.duplicates import Duplicates
from apps.engine.indexes.faiss_library import library, metric_number, round_up
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.normalize import Normalizer
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32, Int64, Mask

PIECE = Parameter(
    "piece",
    1,
    8,
    "the largest of 4, 2 and 1 that a trial on the rows finds good enough",
    "how many dimensions share one 4-bit code: fewer are more exact, and cost more memory and time",
)
_TRAINING_ROWS = 4096
_ITERATIONS = 10
_SEED = 1234
_CENTROIDS = 16
_PACKED_ROWS, _ALIGNMENT = 32, 64


def pieces_to_try(params: Params) -> tuple[int, ...]:
    """The piece that the parameters of a build name, or else those that a trial tries, the smallest codes first."""
    return (params[PIECE.name],) if PIECE.name in params else (4, 2, 1)


class ProductCodes:
    """The codes of all rows that are no duplicates, in lists. faiss's scan takes a mask only where there are lists;
    rows that are scanned whole are one list."""

    def __init__(self, index: Any, duplicates: Duplicates, normalizer: Normalizer, piece: int) -> None:
        self._index = index
        self.duplicates = duplicates
        self.normalizer = normalizer
        self.piece = piece
        lists = index.invlists
        self.list_sizes = np.array([lists.list_size(number) for number in range(index.nlist)], np.int64)
        # faiss keeps a pointer to it only.
        self._centres = index.quantizer

    @classmethod
    def train(
        cls,
        matrix: Matrix,
        duplicates: Duplicates,
        piece: int,
        *,
        centres: Float32 | None = None,
        list_numbers: Int64 | None = None,
        checkpoint: Checkpoint,
    ) -> Self:
        """Codes in pieces of `piece` dimensions. `list_numbers` has the list of each representative, whose centre is in
        `centres` [lists, dimension]; without them there is one list."""
        faiss = library()
        normalizer = Normalizer.fit(matrix, round_up(matrix.dimension, piece))
        number, width = metric_number(matrix.metric), normalizer.width
        rows = duplicates.representatives()
        if list_numbers is None:
            list_numbers = np.zeros(len(rows), np.int64)
        wide = np.zeros((1 if centres is None else len(centres), width), np.float32)
        if centres is not None:
            wide[:, : centres.shape[1]] = centres
        quantizer = faiss.IndexFlat(width, number)
        quantizer.add(wide)
        # The plain index takes the lists of rows as they are given; it becomes the packed one.
        plain = faiss.IndexIVFPQ(quantizer, width, len(wide), width // piece, 4, number)
        plain.by_residual = False
        plain.pq.cp.niter = _ITERATIONS
        sample = np.sort(np.random.default_rng(_SEED).permutation(rows)[:_TRAINING_ROWS])
        plain.train(np.concatenate(list(normalizer.row_blocks(matrix.vectors, sample))))
        start = 0
        for block in normalizer.row_blocks(matrix.vectors, rows):
            checkpoint()
            places = np.ascontiguousarray(rows[start : start + len(block)])
            given = block, places, np.ascontiguousarray(list_numbers[start : start + len(block)])
            plain.add_core(len(block), *(faiss.swig_ptr(array) for array in given))
            start += len(block)
        packed = faiss.IndexIVFPQFastScan(plain)
        # It would keep the plain lists as well.
        packed.orig_invlists = None
        return cls(packed, duplicates, normalizer, piece)

    @classmethod
    def load(cls, folder: Path, matrix: Matrix, piece: int, scale: float) -> Self:
        """The codes that were saved in `folder`; raises ValueError or OSError for files that are none of `matrix`."""
        faiss = library()
        duplicates = Duplicates.load(folder, len(matrix))
        normalizer = Normalizer(matrix.metric, round_up(matrix.dimension, piece), scale)
        width = normalizer.width
        centres, pieces = map_array(folder / "centres.npy"), map_array(folder / "pieces.npy")
        sizes = map_array(folder / "lists.npy")
        shapes = centres.shape, pieces.shape, sizes.shape
        if shapes != ((len(sizes), width), (width // piece, _CENTROIDS, piece), (len(centres),)):
            raise ValueError(f"{folder} holds codes of other rows")
        types = [array.dtype.name for array in (centres, pieces, sizes)]
        if types != ["float32", "float32", "int64"] or sizes.min(initial=0) < 0:
            raise ValueError(f"{folder} holds codes of other types")
        layout, total = _layout(sizes, width // piece)
        path = folder / "codes.bin"
        if sizes.sum() != duplicates.count or path.stat().st_size != total:
            raise ValueError(f"{path} holds codes of another number of rows")
        number = metric_number(matrix.metric)
        quantizer = faiss.IndexFlat(width, number)
        quantizer.add(np.ascontiguousarray(centres))
        index = faiss.IndexIVFPQFastScan(quantizer, width, len(sizes), width // piece, 4, number)
        index.by_residual = False
        faiss.copy_array_to_vector(np.ascontiguousarray(pieces).ravel(), index.pq.centroids)
        index.is_trained = True
        index.ntotal = duplicates.count
        index.replace_invlists(_map_lists(path, layout, total, int(index.code_size)), True)
        return cls(index, duplicates, normalizer, piece)

    def save(self, folder: Path) -> None:
        faiss = library()
        index, sizes = self._index, self.list_sizes
        width, lists = self.normalizer.width, len(sizes)
        centres = faiss.vector_to_array(faiss.downcast_index(self._centres).codes).view(np.float32)
        pieces = faiss.vector_to_array(index.pq.centroids)
        save_array(folder / "centres.npy", centres.reshape(lists, width))
        save_array(folder / "pieces.npy", pieces.reshape(width // self.piece, _CENTROIDS, self.piece))
        save_array(folder / "lists.npy", sizes)
        self.duplicates.save(folder)
        with open(folder / "codes.bin", "wb") as file:
            for number, size in enumerate(sizes.tolist()):
                if size:
                    codes = round_up(size, _PACKED_ROWS) * int(index.code_size)
                    file.write(_memory(index.invlists.get_codes(number), codes))
                    file.write(_memory(index.invlists.get_ids(number), 8 * size))
                    file.write(b"\0" * (-8 * size % _ALIGNMENT))

    def search(
        self, queries: Float32, length: int, probes: int = 1, allowed: Mask | None = None
    ) -> tuple[Int64, Float32, Int64]:
        """The `length` best representatives [m, length] in the `probes` lists whose centres are nearest to each of
        `queries`, by their codes; -1 where fewer are allowed or have an allowed duplicate. And their scores by their
        codes, in the unit of `Normalizer.factors`, and the number of rows in these lists [m]."""
        faiss, index = library(), self._index
        probes = min(probes, len(self.list_sizes))
        if allowed is None:
            params = _search_parameters(probes)
        else:
            bits = np.packbits(self.duplicates.representatives_of(allowed), bitorder="little")
            params = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(bits), nprobe=probes)
        normalized = self.normalizer.queries(queries)
        if len(self.list_sizes) == 1:
            scores, rows = index.search(normalized, length, params=params)
            compared = np.full(len(queries), self.list_sizes[0])
        else:
            m = len(queries)
            scores, rows = np.empty((m, length), np.float32), np.empty((m, length), np.int64)
            compared = np.empty(m, np.int64)
            # One by one: products with the centres differ in their last bit with the number of queries.
            for i in range(m):
                one = slice(i, i + 1)
                nearness, numbers = self._centres.search(normalized[one], probes)
                given = numbers, nearness, scores[one], rows[one]
                pointers = [faiss.swig_ptr(array) for array in given]
                index.search_preassigned_c(1, faiss.swig_ptr(normalized[one]), length, *pointers, False, params)
                compared[i] = self.list_sizes[numbers[0]].sum()
        return rows, -scores if self.normalizer.metric is Metric.EUCLIDEAN else scores, compared

    @property
    def nbytes(self) -> int:
        _, codes = _layout(self.list_sizes, self.normalizer.width // self.piece)
        centres = 4 * self.normalizer.width * (len(self.list_sizes) + _CENTROIDS)
        return codes + centres + self.list_sizes.nbytes + self.duplicates.pairs.nbytes


def _layout(sizes: Int64, pieces: int) -> tuple[Int64, int]:
    """Where lists of `sizes` rows, each row of `pieces` 4-bit numbers, lie in a file as faiss keeps them: the size, the
    room and the offset of each [lists, 3], and the length of the file in bytes."""
    room = (sizes + _PACKED_ROWS - 1) // _PACKED_ROWS * _PACKED_ROWS
    positions = (8 * sizes + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    ends = np.cumsum(room * (round_up(pieces, 2) // 2) + positions)
    offsets = np.concatenate([[0], ends[:-1]])
    return np.stack([sizes, room, offsets], axis=1), int(ends[-1])


def _map_lists(path: Path, layout: Int64, total: int, code_size: int) -> Any:
    """Lists of faiss in the mapped file `path`, which holds `total` bytes in this `layout`."""
    faiss = library()
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size = len(layout), code_size
    lists.filename, lists.totsize, lists.read_only = str(path), total, True
    # It would start threads that read ahead.
    lists.prefetch_nthread = 0
    lists.lists.resize(len(layout))
    plain = np.ascontiguousarray(layout).view(np.uint8)
    faiss.memcpy(lists.lists.data(), faiss.swig_ptr(plain), plain.nbytes)
    if total:
        lists.do_mmap()
    lists.this.disown()
    return lists


def _memory(pointer: Any, size: int) -> memoryview:
    """`size` bytes at a pointer of faiss's."""
    return memoryview((ctypes.c_char * size).from_address(int(pointer)))


@lru_cache(maxsize=64)
def _search_parameters(probes: int) -> Any:
    """faiss's parameters for a search in `probes` lists; threads share them, and faiss only reads them."""
    return library().SearchParametersIVF(nprobe=probes)
