"""The index files of one library: segments, and manifests that say which segments are the library.

<folder>/segments/<name>/        one segment (`segment.py`), written once, named at random
<folder>/damage.txt              what somebody found wrong with the files, until they are looked at
<folder>/failure.json            why the last attempt to build an index failed, until one succeeds
<folder>/manifests/<number>/     manifest.json, and <name>.npy, the rows that still live, for segments with dead ones

A manifest is the library as of one entry of its change log (`Manifest`). It names each file with its size and its xxh3
checksum, and ends with a checksum of itself; a folder of manifests is written beside and renamed, so that it is there
whole or not at all. What is damaged, of another format, or of another library raises Damaged: these files are derived,
and whoever reads them can do without. Where the process has no file descriptors or memory left, nothing is known of the
files, and that error goes through as it is.

Files are synced to the disk before a manifest names them; not for safety, which the checksums give, but so that a full
disk is noticed.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash

from apps.engine.array_files import map_array, save_array
from apps.engine.errors import Damaged, Superseded, is_exhaustion
from apps.engine.indexes.base import Params
from apps.engine.metrics import Metric
from apps.engine.storage.segment import Segment

FORMAT = 3
_MANIFEST = "manifest.json"
_READ_BYTES = 1 << 22
# Another process may be about to open what nothing refers to any more.
_SECONDS_KEPT = 600


@dataclass(frozen=True)
class Identity:
    """Whose files these are: a library's random uid, and what its vectors are."""

    library: str
    dimension: int
    metric: str
    generation: int


@dataclass(frozen=True)
class FileRecord:
    """A file as it must be: its size and its xxh3_64 checksum in hexadecimal."""

    bytes: int
    xxh3: str


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
    """The whole library as of the entry (`seq`, `token`) of its change log, but for rows that were replaced or deleted
    up to the entry (`usable_seq`, `usable_token`), some of which are missing. So from there on it is of use: to those
    who apply the changes since `seq`.

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


class IndexFolder:
    """The index files of one library."""

    def __init__(self, path: Path) -> None:
        self._damage = path / "damage.txt"
        self._failure = path / "failure.json"
        self._segments = path / "segments"
        self._manifests = path / "manifests"

    def save(self, segment: Segment) -> tuple[Segment, SegmentRecord]:
        """Write a segment that is in memory only; answers it under the name of its folder, and its record.

        Raises OSError; then nothing is left of it.
        """
        name = secrets.token_hex(8)
        folder = self._segments / name
        try:
            segment.save(folder)
            files = {str(path.relative_to(folder)): _synced(path) for path in _files(folder)}
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        record = SegmentRecord(name, segment.index.kind, segment.params, len(segment.keys), files)
        return replace(segment, name=name), record

    def discard(self, name: str) -> None:
        """Delete a segment that was saved, and that no manifest names."""
        shutil.rmtree(self._segments / name, ignore_errors=True)

    def publish(self, manifest: Manifest, alive: Mapping[str, Segment]) -> Manifest:
        """Write a manifest, with the masks of `alive`, the segments by name; answers it with their records.

        Raises OSError; then no manifest is there.
        """
        beside = self._manifests / f".{manifest.number}-{secrets.token_hex(4)}"
        beside.mkdir(parents=True)
        try:
            records = []
            for record in manifest.segments:
                mask = alive[record.name].alive
                if mask is not None:
                    save_array(beside / f"{record.name}.npy", np.packbits(mask))
                    record = replace(record, alive=_synced(beside / f"{record.name}.npy"))
                records.append(record)
            written = replace(manifest, segments=tuple(records))
            body = orjson.dumps(asdict(written))
            (beside / _MANIFEST).write_bytes(orjson.dumps({"format": FORMAT, "xxh3": _hash(body)}) + b"\n" + body)
            _synced(beside / _MANIFEST)
            os.rename(beside, self._manifests / str(manifest.number))
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return written

    def numbers(self) -> list[int]:
        """The numbers of the manifests that are there, newest first."""
        try:
            names = [path.name for path in self._manifests.iterdir()]
        except OSError as error:
            if is_exhaustion(error):
                raise
            return []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def read(self, number: int, identity: Identity) -> Manifest:
        """A manifest of the library that `identity` describes; raises Damaged, and Superseded where it shows
        the vectors that the library had before a change of its embedding model, or has after it."""
        try:
            head, _, body = (self._manifests / str(number) / _MANIFEST).read_bytes().partition(b"\n")
            says = orjson.loads(head)
            if says.get("format") != FORMAT:
                raise Damaged(f"manifest {number} is of format {says.get('format')!r}, not {FORMAT}")
            if says.get("xxh3") != _hash(body):
                raise Damaged(f"manifest {number} does not have its checksum")
            manifest = _manifest(orjson.loads(body))
        except Damaged:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            if is_exhaustion(error):
                raise
            raise Damaged(f"manifest {number} cannot be read: {error}") from error
        theirs = manifest.identity
        if theirs.generation != identity.generation and theirs.library == identity.library:
            raise Superseded(f"manifest {number} is of generation {theirs.generation} of the vectors")
        if manifest.number != number or theirs != identity:
            raise Damaged(f"manifest {number} is of another library, or of other vectors")
        return manifest

    def stamps(self, manifest: Manifest) -> tuple[tuple[int, ...], ...] | None:
        """What changes when somebody replaces a file of a manifest or writes into it; None where one is not there."""
        folder = self._manifests / str(manifest.number)
        paths = [folder / _MANIFEST]
        paths += [self._segments / record.name / name for record in manifest.segments for name in record.files]
        paths += [folder / f"{record.name}.npy" for record in manifest.segments if record.alive]
        try:
            found = [path.stat() for path in paths]
        except OSError:
            return None
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)

    def open(self, manifest: Manifest, known: Mapping[str, Segment]) -> tuple[Segment, ...]:
        """The segments of a manifest, mapped and checked; those in `known` are taken from there. Raises Damaged."""
        return tuple(self._opened(manifest, record, known.get(record.name)) for record in manifest.segments)

    def _opened(self, manifest: Manifest, record: SegmentRecord, known: Segment | None) -> Segment:
        folder = self._segments / record.name
        if known is None:
            for name, expected in record.files.items():
                _check(folder / name, expected)
            known = Segment.load(
                folder,
                dimension=manifest.identity.dimension,
                metric=Metric(manifest.identity.metric),
                kind=record.kind,
                params=record.params,
            )
        if len(known.keys) != record.rows:
            raise Damaged(f"{record.name} does not have {record.rows} rows")
        if record.alive is None:
            return replace(known, alive=None)
        path = self._manifests / str(manifest.number) / f"{record.name}.npy"
        _check(path, record.alive)
        try:
            bits = map_array(path)
        except (OSError, ValueError, EOFError) as error:
            if is_exhaustion(error):
                raise
            raise Damaged(f"{path.name} cannot be read: {error}") from error
        if bits.dtype != np.uint8 or len(bits) != (record.rows + 7) // 8:
            raise Damaged(f"{path.name} is no mask of {record.rows} rows")
        return replace(known, alive=np.unpackbits(bits, count=record.rows).astype(np.bool_))

    def note_damage(self, reason: str) -> bool:
        """Leave a mark for who keeps the files in shape; answers whether it is news: nobody else has left the same.

        Where no file can be written, it always is.
        """
        try:
            with open(self._damage, "x", encoding="utf-8") as file:
                file.write(reason)
        except FileExistsError:
            return self.damage() != reason
        except OSError:
            pass
        return True

    def damage(self) -> str | None:
        """What was found wrong with the files; None if nothing was since they were looked at."""
        try:
            return self._damage.read_text("utf-8", "replace")
        except OSError:
            return None

    def forget_damage(self) -> None:
        """The files have been looked at."""
        with contextlib.suppress(OSError):
            self._damage.unlink(missing_ok=True)

    def failure(self) -> str | None:
        """Why the last attempt to build an index failed; None if it did not."""
        try:
            return str(orjson.loads(self._failure.read_bytes())["reason"])
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"index files cannot be read: {error.strerror or error}"
        except (ValueError, KeyError, TypeError):
            return "the reason could not be written, as on a full disk; the log has it"

    def note_failure(self, reason: str | None) -> None:
        """Keep a reason for `failure`, or forget it. A disk that takes no file keeps none."""
        with contextlib.suppress(OSError):
            if reason is None:
                self._failure.unlink(missing_ok=True)
            else:
                self._failure.parent.mkdir(parents=True, exist_ok=True)
                # On a full disk there is room for an empty file at least.
                self._failure.touch()
                self._failure.write_bytes(orjson.dumps({"reason": reason}))

    def sweep(self, identity: Identity) -> int:
        """Delete what nothing has referred to for ten minutes; answers how many folders.

        A manifest is referred to until a newer one is there. A segment that is being written is younger.
        """
        kept, names, newer = set(), set[str](), self._manifests
        for i, number in enumerate(self.numbers()):
            folder = self._manifests / str(number)
            if i == 0 or not _is_old(newer):
                kept.add(folder.name)
                try:
                    names |= {record.name for record in self.read(number, identity).segments}
                except Damaged:
                    continue
            newer = folder
        unused = [path for path in _entries(self._segments) if path.name not in names]
        unused += [path for path in _entries(self._manifests) if path.name not in kept]
        return sum(_removed_if_old(path) for path in unused)


def sweep_libraries(root: Path, uids: set[str]) -> int:
    """Delete the folders in `root` that belong to none of the libraries `uids`, likewise."""
    return sum(_removed_if_old(path) for path in _entries(root) if path.name not in uids)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_old(path: Path) -> bool:
    """Whether nobody has written into a folder for ten minutes."""
    try:
        return time.time() - path.stat().st_mtime >= _SECONDS_KEPT
    except OSError:
        return False


def _removed_if_old(path: Path) -> bool:
    if not _is_old(path):
        return False
    try:
        shutil.rmtree(path)
    except OSError:
        return False
    return True


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _synced(path: Path) -> FileRecord:
    """The record of a file, which is on the disk then."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return _record(path)


def _record(path: Path) -> FileRecord:
    digest, size = xxhash.xxh3_64(), 0
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return FileRecord(size, digest.hexdigest())


def _check(path: Path, expected: FileRecord) -> None:
    try:
        found = _record(path)
    except OSError as error:
        if is_exhaustion(error):
            raise
        raise Damaged(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}") from error
    if found != expected:
        raise Damaged(f"{path.parent.name}/{path.name} does not have its size or checksum")


def _hash(body: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(body)


def _manifest(fields: dict[str, Any]) -> Manifest:
    segments = [
        SegmentRecord(
            **{
                **record,
                "files": {name: FileRecord(**file) for name, file in record["files"].items()},
                "alive": None if record["alive"] is None else FileRecord(**record["alive"]),
            }
        )
        for record in fields["segments"]
    ]
    return Manifest(**{**fields, "identity": Identity(**fields["identity"]), "segments": tuple(segments)})
