"""Sealed rows: their keys, their matrix, the index that answers, columns and words, with a mask of dead rows.

What always holds: keys ascend; nothing but the mask ever changes, and a changed mask makes another Segment. A segment
that was saved is named by its folder:

keys.npy      int64 [n], ascending
vectors.npy   float32 [n, dimension]
exact/        norms and codes of its matrix, which answers exact queries
index/        the files of its index, unless that is `brute_force`
content/      the files of its columns and words

Loading maps the files, so that all processes of a host share one copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from apps.engine.array_files import map_array, save_array
from apps.engine.errors import Damaged, is_exhaustion
from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Params, VectorIndex, no_checkpoint
from apps.engine.indexes.matrix import Matrix, Neighbors
from apps.engine.indexes.registry import AUTO, BRUTE_FORCE, chosen_kind, index_type
from apps.engine.metrics import Metric
from apps.engine.storage.row_data import Content, StoredContent
from apps.engine.vectors import Float32, Int64, Mask

_KEYS, _VECTORS, _EXACT, _INDEX, _CONTENT = "keys.npy", "vectors.npy", "exact", "index", "content"


@dataclass(frozen=True)
class Segment:
    """`name` is that of its folder, empty while it is in memory only."""

    name: str
    keys: Int64
    matrix: Matrix
    index: VectorIndex
    params: Params
    content: Content
    alive: Mask | None = None

    @classmethod
    def build(
        cls,
        *,
        name: str = "",
        keys: Int64,
        matrix: Matrix,
        content: Content,
        kind: str = BRUTE_FORCE,
        params: Params = NO_PARAMS,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> Self:
        """A segment of the rows of `matrix` with `content`, named by `keys` [n], which must ascend; keeps all three.
        What `checkpoint` raises ends the build, as `VectorIndex.build` says."""
        return cls(name, keys, matrix, index_type(kind).build(matrix, params, checkpoint), params, content)

    def save(self, folder: Path) -> None:
        """Write the files of the segment, whose content must be stored content, into `folder`, which must not exist."""
        assert isinstance(self.content, StoredContent)
        (folder / _EXACT).mkdir(parents=True)
        save_array(folder / _KEYS, self.keys)
        save_array(folder / _VECTORS, self.matrix.vectors)
        self.matrix.save(folder / _EXACT)
        if self.index.kind != BRUTE_FORCE:
            (folder / _INDEX).mkdir()
            self.index.save(folder / _INDEX)
        (folder / _CONTENT).mkdir()
        self.content.save(folder / _CONTENT)

    @classmethod
    def load(cls, folder: Path, *, dimension: int, metric: Metric, kind: str, params: Params) -> Self:
        """The segment in `folder`, without dead rows; raises Damaged for files that make none, and OSError where
        there are no means to read any."""
        try:
            keys, vectors = map_array(folder / _KEYS), map_array(folder / _VECTORS)
            matrix = Matrix.load(folder / _EXACT, vectors, metric)
            index = index_type(kind).load(folder / _INDEX, matrix)
            content = StoredContent.load(folder / _CONTENT)
        except (OSError, EOFError, ValueError, RuntimeError) as error:
            if is_exhaustion(error):
                raise
            raise Damaged(f"{folder.name} cannot be loaded: {error}") from error
        if keys.dtype != np.int64 or vectors.dtype != np.float32 or vectors.shape != (len(keys), dimension):
            raise Damaged(f"{folder.name} holds arrays of another type or shape")
        if len(content) != len(keys):
            raise Damaged(f"{folder.name} holds content of another number of rows")
        return cls(folder.name, keys, matrix, index, params, content)

    def is_as_wished(self, name: str, params: Params) -> bool:
        """Whether a library wishes the segment so whose index type is `name`, which may be `auto`, with `params`."""
        rows, dimension = self.matrix.vectors.shape
        return self.index.kind == chosen_kind(name, rows, dimension) and (name == AUTO or params == self.params)

    @property
    def dead(self) -> int:
        """The number of dead rows."""
        return 0 if self.alive is None else len(self.keys) - int(np.count_nonzero(self.alive))

    @property
    def live(self) -> int:
        """The number of live rows."""
        return len(self.keys) - self.dead

    @property
    def nbytes(self) -> int:
        """Memory or mapped files."""
        return self.keys.nbytes + self.matrix.nbytes + self.index.nbytes + self.content.nbytes

    def search(
        self, queries: Float32, k: int, *, exact: bool, params: Params, allowed: Mask | None = None
    ) -> Neighbors:
        """The k nearest to each of `queries` [m, dimension] of the rows that `allowed` names, all of which live; None
        names all live rows. Of `params`, the index gets those that it takes."""
        allowed = self.alive if allowed is None else allowed
        if exact:
            return self.matrix.search(queries, k, allowed)
        if params:
            known = {parameter.name for parameter in self.index.search_parameters}
            params = {name: value for name, value in params.items() if name in known}
        return self.index.search(queries, k, allowed, params)

    def locate(self, keys: Int64) -> tuple[Int64, Mask]:
        """Positions of the live rows of `keys` and a mask over `keys` of those that have one."""
        places = np.searchsorted(self.keys, keys)
        inside = np.minimum(places, len(self.keys) - 1)
        found = self.keys[inside] == keys
        if self.alive is not None:
            found &= self.alive[inside]
        return inside[found], found

    def without(self, keys: Int64) -> "Segment":
        """This segment, the rows of `keys` dead."""
        positions, _ = self.locate(keys)
        if not len(positions):
            return self
        alive = np.ones(len(self.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[positions] = False
        return replace(self, alive=alive)

    def live_keys(self) -> Int64:
        """The keys of the live rows."""
        return self.keys if self.alive is None else self.keys[self.alive]

    def part(self) -> "Part":
        """The rows."""
        return Part(self.keys, self.matrix, self.content, self.alive, is_sorted=True)


class Part(NamedTuple):
    """Rows; `alive` says which of them count, None that all do. Keys of a part that `is_sorted` ascend."""

    keys: Int64
    matrix: Matrix
    content: Content
    alive: Mask | None
    is_sorted: bool = False


@dataclass(frozen=True)
class Merged:
    """Live rows of several parts in ascending order of their `keys`; `places` says where they are in the parts, counted
    through, dead rows included. Where one sorted part has all rows, these are its keys and its matrix, and what it
    holds besides is `known`, if that is stored content."""

    keys: Int64
    matrix: Matrix
    places: Int64
    known: Content | None = None

    def content(self, parts: Sequence[Part]) -> StoredContent:
        """What the rows hold besides."""
        if isinstance(self.known, StoredContent):
            return self.known
        return StoredContent.merged([(part.content, len(part.keys)) for part in parts], self.places)


def merged_rows(parts: Sequence[Part], dimension: int, metric: Metric) -> Merged:
    """The live rows of several parts that have no live key in common; not to be written to."""
    living = [i for i, part in enumerate(parts) if len(part.keys) and (part.alive is None or part.alive.any())]
    if len(living) == 1 and (sole := parts[living[0]]).is_sorted and (sole.alive is None or sole.alive.all()):
        first = sum(len(part.keys) for part in parts[: living[0]])
        return Merged(sole.keys, sole.matrix, np.arange(first, first + len(sole.keys)), sole.content)
    keys, places = live_rows(parts)
    return Merged(keys, Matrix.build(vectors_at(parts, places, dimension), metric), places)


def live_rows(parts: Sequence[Part]) -> tuple[Int64, Int64]:
    """The keys of the live rows of several parts that have no live key in common, ascending, and where these rows are
    in the parts, counted through, dead rows included."""
    keys, places, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for part in parts:
        live = np.arange(len(part.keys)) if part.alive is None else np.flatnonzero(part.alive)
        keys.append(part.keys[live])
        places.append(start + live)
        start += len(part.keys)
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    return all_keys[order], np.concatenate(places)[order]


def vectors_at(parts: Sequence[Part], places: Int64, dimension: int) -> Float32:
    """A copy of the vectors at `places`, as `live_rows` counts them: [n, dimension]."""
    vectors = np.empty((len(places), dimension), np.float32)
    start = 0
    # Part by part: all vectors are held twice at no time.
    for part in parts:
        here = np.flatnonzero((places >= start) & (places < start + len(part.keys)))
        vectors[here] = part.matrix.vectors[places[here] - start]
        start += len(part.keys)
    return vectors
