"""The index files of one library: segments, and manifests that say which segments are the library.

<folder>/segments/<name>/        one segment (`segment.py`), written once, named at random
<folder>/manifests/<number>/     manifest.json, and <name>.npy, the rows that still live, for segments with dead ones
<folder>/failure.json            why the last attempt to build an index failed, until one succeeds
<folder>/../damage/<library>     what a process found wrong with the files, until maintenance has looked at them

A manifest names each file with its size and checksum, and its folder is written beside and renamed, so it is there
whole or not at all. What is damaged, of another format, or of another library raises Damaged: these files are derived,
and readers can do without. Where the process has no file descriptors or memory left, that error passes through.

Files are synced to the disk before a manifest names them. The checksums give safety; this reports a full disk.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from apps.engine.array_files import map_array, save_array
from apps.engine.errors import Damaged, is_exhaustion
from apps.engine.metrics import Metric
from apps.engine.storage.checked_files import check_file, raise_damaged, sync_file
from apps.engine.storage.manifest import Identity, Manifest, SegmentRecord
from apps.engine.storage.segment import Segment
from apps.engine.vectors import Mask

_MANIFEST = "manifest.json"
# Beside the folders of libraries, so that one look tells whether any library is damaged.
_DAMAGE = "damage"
# A segment that is being written, or a folder that was just moved here: nothing refers to them yet.
SECONDS_KEPT = 600
# Another process may be about to open what was replaced by a newer manifest. If it takes longer, it opens that one.
SECONDS_SUPERSEDED = 1


class IndexFolder:
    """The index files of one library. Making one costs next to nothing: who looks at thousands asks little of each."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def _damage(self) -> Path:
        return self._path.parent / _DAMAGE / self._path.name

    @property
    def _failure(self) -> Path:
        return self._path / "failure.json"

    @property
    def _segments(self) -> Path:
        return self._path / "segments"

    @property
    def _manifests(self) -> Path:
        return self._path / "manifests"

    def _make(self, folder: Path) -> None:
        """Make a folder for index files. Raises OSError, also where what all libraries' folders lie in is gone: it may
        have been moved."""
        self._path.parent.mkdir(exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, segment: Segment) -> tuple[Segment, SegmentRecord]:
        """Write a segment that is in memory only; return it under the name of its folder, and its record.

        Raises OSError; then nothing is left of it.
        """
        name = secrets.token_hex(8)
        folder = self._segments / name
        with _remove_on_error(folder):
            self._make(self._segments)
            segment.save(folder)
            paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            files = {str(path.relative_to(folder)): sync_file(path) for path in paths}
        record = SegmentRecord(name, segment.index.kind, segment.params, len(segment.keys), files)
        return replace(segment, name=name), record

    def discard(self, name: str) -> None:
        """Delete a segment that was saved, and that no manifest names."""
        shutil.rmtree(self._segments / name, ignore_errors=True)

    def publish(self, manifest: Manifest, alive: Mapping[str, Segment]) -> Manifest:
        """Write a manifest, with the masks of `alive`, the segments by name; return it with their records.

        Raises OSError; then no manifest is there.
        """
        beside = self._manifests / f".{manifest.number}-{secrets.token_hex(4)}"
        self._make(self._manifests)
        beside.mkdir()
        with _remove_on_error(beside):
            records = []
            for record in manifest.segments:
                mask = alive[record.name].alive
                if mask is not None:
                    path = beside / f"{record.name}.npy"
                    save_array(path, np.packbits(mask))
                    record = replace(record, alive=sync_file(path))
                records.append(record)
            manifest = replace(manifest, segments=tuple(records))
            (beside / _MANIFEST).write_bytes(manifest.encode())
            sync_file(beside / _MANIFEST)
            # It is from now on that it replaces the one before, however long the disk took.
            os.utime(beside)
            os.rename(beside, self._manifests / str(manifest.number))
        return manifest

    def numbers(self) -> list[int]:
        """The numbers of the manifests that are there, newest first."""
        try:
            names = os.listdir(self._manifests)
        except OSError as error:
            if is_exhaustion(error):
                raise
            return []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def read(self, number: int, identity: Identity) -> Manifest:
        """A manifest of the library that `identity` describes. Raises as `Manifest.check` and `decode`."""
        with raise_damaged(f"manifest {number}"):
            content = (self._manifests / str(number) / _MANIFEST).read_bytes()
        manifest = Manifest.decode(content, number)
        manifest.check(number, identity)
        return manifest

    def newest(self, identity: Identity) -> Manifest | None:
        """The newest manifest that can be read; its segments are not looked at."""
        for number in self.numbers():
            with contextlib.suppress(Damaged):
                return self.read(number, identity)
        return None

    def stamps(self, manifest: Manifest) -> tuple[tuple[int, ...], ...] | None:
        """What changes when somebody replaces a file of a manifest or writes into it; None where one is not there."""
        # Texts and no Path for each file: a sweep asks this of every library.
        folder, segments = self._manifests / str(manifest.number), self._segments
        paths = [f"{folder}/{_MANIFEST}"]
        paths += [f"{segments}/{record.name}/{name}" for record in manifest.segments for name in record.files]
        paths += [f"{folder}/{record.name}.npy" for record in manifest.segments if record.alive]
        try:
            found = [os.stat(path) for path in paths]
        except OSError:
            return None
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)

    def open(self, manifest: Manifest, known: Mapping[str, Segment]) -> tuple[Segment, ...]:
        """The segments of a manifest, mapped and checked; those in `known` are taken from there. Raises Damaged."""
        opened: dict[str, Segment] = {}
        # Before all else, as the next manifest replaces them, and to check a large segment takes longer than that.
        masks = {record.name: self._read_mask(manifest.number, record) for record in manifest.segments}
        # Small ones first: merging replaces them soonest, and checking a large one takes a while.
        for record in sorted(manifest.segments, key=lambda record: record.rows):
            segment = known.get(record.name) or self._load_segment(manifest.identity, record)
            if len(segment.keys) != record.rows:
                raise Damaged(f"{record.name} does not have {record.rows} rows")
            opened[record.name] = replace(segment, alive=masks[record.name])
        return tuple(opened[record.name] for record in manifest.segments)

    def _load_segment(self, identity: Identity, record: SegmentRecord) -> Segment:
        folder = self._segments / record.name
        for name, expected in record.files.items():
            check_file(folder / name, expected)
        return Segment.load(
            folder,
            dimension=identity.dimension,
            metric=Metric(identity.metric),
            kind=record.kind,
            params=record.params,
        )

    def _read_mask(self, number: int, record: SegmentRecord) -> Mask | None:
        """The rows of a segment that live by a manifest; None where all do."""
        if record.alive is None:
            return None
        path = self._manifests / str(number) / f"{record.name}.npy"
        check_file(path, record.alive)
        with raise_damaged(path.name):
            bits = map_array(path)
        if bits.dtype != np.uint8 or len(bits) != (record.rows + 7) // 8:
            raise Damaged(f"{path.name} is no mask of {record.rows} rows")
        return np.unpackbits(bits, count=record.rows).astype(np.bool_)

    def note_damage(self, reason: str) -> bool:
        """Record damage for maintenance; return True unless the same is recorded already. Where no file can be written,
        that is never so."""
        try:
            self._make(self._damage.parent)
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
        """Delete the record of damage: the files have been looked at."""
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
        """Record why a build failed, or delete the record; a disk that takes no file keeps none."""
        with contextlib.suppress(OSError):
            if reason is None:
                self._failure.unlink(missing_ok=True)
            else:
                self._make(self._path)
                # On a full disk there is room for an empty file at least.
                self._failure.touch()
                self._failure.write_bytes(orjson.dumps({"reason": reason}))

    def sweep(self, identity: Identity) -> int:
        """Delete manifests that a newer one replaced a second ago, and their segments unless a manifest that is
        kept has them too; and what nothing has referred to for ten minutes. Return the number of folders."""
        kept: set[str] = set()
        used: set[str] = set()
        superseded: dict[Path, set[str]] = {}
        newer: Path | None = None
        for number in self.numbers():
            folder, names = self._manifests / str(number), set[str]()
            is_readable = False
            with contextlib.suppress(Damaged):
                names = {record.name for record in self.read(number, identity).segments}
                is_readable = True
            if newer is None or not _is_older(newer, SECONDS_SUPERSEDED):
                kept.add(folder.name)
                used |= names
            else:
                superseded[folder] = names
            newer = folder if is_readable else newer
        # Manifests before their segments, so that no reader finds one without them.
        unused = {self._segments / name for names in superseded.values() for name in names - used}
        removed = sum(map(_remove, [*superseded, *unused]))
        return removed + _remove_old(self._segments, used) + _remove_old(self._manifests, kept)


def folder_names(root: Path) -> set[str]:
    """The names of what lies in a folder; none where it is not there. Costs one look, whatever their number."""
    try:
        return set(os.listdir(root))
    except OSError:
        return set()


def damaged_libraries(root: Path) -> set[str]:
    """The names of the folders in `root` whose files somebody has found damaged."""
    return folder_names(root / _DAMAGE)


def sweep_libraries(root: Path, uids: set[str]) -> int:
    """Delete the folders in `root` that have belonged to none of the libraries `uids` for ten minutes."""
    for uid in damaged_libraries(root) - uids:
        IndexFolder(root / uid).forget_damage()
    return _remove_old(root, uids | {_DAMAGE})


def _remove_old(folder: Path, kept: set[str]) -> int:
    """Delete the folders in `folder` that are old and not named in `kept`; return their number."""
    return sum(_remove(folder / name) for name in folder_names(folder) - kept if _is_older(folder / name, SECONDS_KEPT))


def _remove(folder: Path) -> bool:
    """Delete a folder; return whether it was there and is not any more."""
    try:
        shutil.rmtree(folder)
    except OSError:
        return False
    return True


def _is_older(path: Path, seconds: float) -> bool:
    """Whether nobody has written into a folder for `seconds`."""
    try:
        return time.time() - path.stat().st_mtime >= seconds
    except OSError:
        return False


@contextlib.contextmanager
def _remove_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
