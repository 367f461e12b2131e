"""A manifest: which segments are the library, as of one entry of its change log.

As bytes it is two lines of JSON: the second is the manifest itself, and the first has its format, the format of the
words in text indexes, and a checksum of the second.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

import orjson
import xxhash

from apps.engine.errors import Damaged, Superseded
from apps.engine.indexes.base import Params
from apps.engine.storage.checked_files import FileRecord, raise_damaged
from apps.engine.text import analyzer

FORMAT = 7


@dataclass(frozen=True)
class Identity:
    """Whose files these are: a library's random uid, what its vectors are, and which metadata is left out; `dimension`
    is 0 where it has no vectors."""

    library: str
    dimension: int
    metric: str
    generation: int
    unindexed: tuple[str, ...] = ()


@dataclass(frozen=True)
class SegmentRecord:
    """A segment as a manifest names it. `files` are relative to its folder; `alive` is None where no row is dead."""

    name: str
    kind: str
    params: Params
    rows: int
    files: Mapping[str, FileRecord]
    alive: FileRecord | None = None


@dataclass(frozen=True)
class Manifest:
    """All rows as of the log's entry (`seq`, `token`), minus some that were changed up to the entry (`usable_seq`,
    `usable_token`). Readers at or past that one replay the changes since `seq`.

    `rebuild` is the number of the last request to rebuild everything that it satisfies; `created_at` is in seconds
    since the epoch.
    """

    number: int
    identity: Identity
    seq: int
    token: int
    usable_seq: int
    usable_token: int
    rebuild: int
    created_at: float
    segments: tuple[SegmentRecord, ...]

    def encode(self) -> bytes:
        """The bytes of its file."""
        body = orjson.dumps(asdict(self))
        head = {"format": FORMAT, "words": analyzer.VERSION, "xxh3": xxhash.xxh3_64_hexdigest(body)}
        return orjson.dumps(head) + b"\n" + body

    @classmethod
    def decode(cls, content: bytes, number: int) -> Self:
        """The manifest whose file holds `content`. Raises Damaged, which calls it manifest `number`."""
        with raise_damaged(f"manifest {number}"):
            head, _, body = content.partition(b"\n")
            says = orjson.loads(head)
            if says.get("format") != FORMAT:
                raise Damaged(f"manifest {number} is of format {says.get('format')!r}, not {FORMAT}")
            if says.get("words") != analyzer.VERSION:
                words = f"{says.get('words')!r}, not {analyzer.VERSION}"
                raise Damaged(f"manifest {number} has words of format {words}")
            if says.get("xxh3") != xxhash.xxh3_64_hexdigest(body):
                raise Damaged(f"manifest {number} does not have its checksum")
            fields = orjson.loads(body)
            for record in fields["segments"]:
                record["files"] = {name: FileRecord(**file) for name, file in record["files"].items()}
                record["alive"] = record["alive"] and FileRecord(**record["alive"])
            segments = tuple(SegmentRecord(**record) for record in fields.pop("segments"))
            identity = fields.pop("identity")
            identity["unindexed"] = tuple(identity["unindexed"])
            return cls(identity=Identity(**identity), segments=segments, **fields)

    def check(self, number: int, identity: Identity) -> None:
        """Raise Damaged unless this is manifest `number` of the library that `identity` describes; Superseded where it
        shows the vectors that the library had before a change of its embedding model, or has after it; and so for
        the first vector, and for the metadata that is left out."""
        if self.identity.library == identity.library:
            if self.identity.generation != identity.generation:
                raise Superseded(f"manifest {number} is of generation {self.identity.generation} of the vectors")
            if bool(self.identity.dimension) != bool(identity.dimension):
                when = "after" if self.identity.dimension else "before"
                raise Superseded(f"manifest {number} is of the time {when} the first vector")
            if self.identity.unindexed != identity.unindexed:
                raise Superseded(f"manifest {number} leaves out other metadata")
        if self.number != number or self.identity != identity:
            raise Damaged(f"manifest {number} is of another library, or of other vectors")
