"""What a view takes up, by what it is for, and whether that is in mapped files or in memory of the process."""

from collections import defaultdict
from typing import NamedTuple

from apps.engine.storage.row_data import SealedRows
from apps.engine.storage.view import View

COMPONENTS = ("vectors", "codes", "index", "columns", "words", "keys", "tail")


class Bytes(NamedTuple):
    """Bytes in files that all processes of a host share, and in memory of this process alone."""

    mapped: int = 0
    private: int = 0


def memory(view: View) -> dict[str, Bytes]:
    """The bytes of each of COMPONENTS. `codes` are the 8-bit copies, `index` what indexes hold besides. All that is in
    no file is the `tail`, but the masks of dead rows, which are with the keys. Small files are read, and
    count as mapped."""
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for segment in view.segments:
        if not segment.name:
            found["tail"][1] += segment.nbytes
            continue
        codes, rows = segment.matrix.codes, segment.row_data
        assert isinstance(rows, SealedRows)
        found["vectors"][0] += segment.matrix.vectors.nbytes + segment.matrix.norms.nbytes
        found["codes"][0] += 0 if codes is None else codes.nbytes
        found["index"][0] += segment.index.nbytes
        found["columns"][0] += rows.columns.nbytes
        found["words"][0] += rows.text.nbytes
        found["keys"][0] += segment.keys.nbytes
        found["keys"][1] += 0 if segment.alive is None else segment.alive.nbytes
    found["tail"][1] += view.tail.nbytes + view.bare_tail.nbytes
    return {name: Bytes(*found[name]) for name in COMPONENTS}
