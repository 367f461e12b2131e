"""What an engine is here: `build` from all rows, `query` for the ten nearest under a filter.

An engine is given the fields topic and pos and whole vectors, and makes indexes on these fields where it has such.
Parameters are its defaults unless `about` says otherwise; it takes as many threads as it likes unless `about` says so.
Modules are imported where they are used, since no environment has them all.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.dataset import Dataset, Float32

FIELDS = ("topic", "pos")
_ROWS_PER_WRITE = 1000

# The value that a field must have; empty for all rows.
Equal = Mapping[str, str]


class NotInstalled(Exception):
    """What an engine needs is missing; the message names it."""


class Engine:
    """An engine in `folder`, which exists. `way` says how it is reached; `variants` are measured one by one. What was
    started ends with `closing`."""

    name: str
    way = "in process"
    about = ""
    variants: tuple[str, ...] = ("",)
    # Of `build`: spent on making sure that it is finished.
    waited_s = 0.0

    def __init__(self, folder: Path, chroma_python: str) -> None:
        self.folder = folder
        self.chroma_python = chroma_python
        self.closing = ExitStack()

    def build(self, data: Dataset) -> None:
        """Take all rows and make the index; raises NotInstalled or ImportError."""
        raise NotImplementedError

    def choose(self, variant: str) -> None:
        """Answer as this one of `variants` says from now on."""

    def query(self, vector: Float32, equal: Equal) -> list[int]:
        """Positions of the rows that are found, at most K."""
        raise NotImplementedError


def fields_of(data: Dataset) -> list[dict[str, str]]:
    return [{field: row["metadata"][field] for field in FIELDS} for row in data.rows]


def portions(data: Dataset) -> Iterator[range]:
    for start in range(0, len(data), _ROWS_PER_WRITE):
        yield range(start, min(start + _ROWS_PER_WRITE, len(data)))
