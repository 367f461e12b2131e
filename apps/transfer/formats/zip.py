"""A zip of four files:

    library.json     {"library": {"name": "Animals", ...}, "format": 1}
    documents.jsonl  a document a line
    chunks.jsonl     a chunk a line, without its vector; `"embedding": null` where it has none
    vectors.npz      `vectors`, float32 [n, dimension]: those of the other chunks, in their order

It is written from the first byte to the last, and nothing in it is compressed: vectors do not shrink, and texts are the
smaller part. Compressed ones are read, too. Nothing is ever unpacked to a path.
"""

import io
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from tokenize import TokenError
from typing import IO, Any, BinaryIO, Final, cast

import numpy as np
from django.conf import settings
from numpy.lib import format as npy

from apps.engine.vectors import DTYPE, Float32, to_float32
from apps.libraries.errors import Invalid
from apps.transfer.formats.base import LARGEST_HEAD, Format
from apps.transfer.formats.jsonl import VERSION, read_head
from apps.transfer.formats.lines import dump_lines, parse_object, read_lines
from apps.transfer.formats.sections import Outflow, Section
from apps.transfer.rows import Batch, ChunkData, DocumentData, Gathering, Source
from apps.transfer.stored import StoredLibrary, chunks_data, document_data

_LIBRARY, _DOCUMENTS, _CHUNKS, _VECTORS = "library.json", "documents.jsonl", "chunks.jsonl", "vectors.npz"
_ENTRIES: Final = (_LIBRARY, _DOCUMENTS, _CHUNKS, _VECTORS)
_MATRIX = "vectors.npy"
# No rows become this much smaller, but what is to fill a disk or memory does.
_MOST_TIMES: Final = 200
_SMALL: Final = 16 << 20
_BYTES_PER_READ: Final = 1 << 20
_OTHERWISE = "Nothing of it was imported."
_LEFT_OUT = (
    "A vector of the library has another length than its dimension, which no service writes. A zip cannot be without "
    "it, as its lines said before that it is there; jsonl and parquet can."
)


class Zip(Format):
    """A zip of lines of JSON and an array."""

    media_type = "application/zip"

    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        out = Outflow()
        with zipfile.ZipFile(out, "w") as archive:
            with archive.open(_entry(_LIBRARY), "w") as file:
                file.write(dump_lines(iter([{"library": stored.library, "format": VERSION}])))
            with archive.open(_entry(_DOCUMENTS), "w", force_zip64=True) as file:
                for page in stored.documents():
                    file.write(dump_lines(document_data(row) for row in page))
                    yield from out.take()
            count, bare = 0, {"embedding": None}
            with archive.open(_entry(_CHUNKS), "w", force_zip64=True) as file:
                for chunks in stored.chunks(with_vectors=False):
                    count += len(chunks.vector_of) - chunks.vector_of.count(None)
                    rows = zip(chunks_data(chunks), chunks.vector_of, strict=True)
                    file.write(dump_lines(row if key is not None else row | bare for row, key in rows))
                    yield from out.take()
            with (
                archive.open(_entry(_VECTORS), "w", force_zip64=True) as outer,
                zipfile.ZipFile(outer, "w") as npz,
                npz.open(_entry(_MATRIX), "w", force_zip64=True) as file,
            ):
                head = {"descr": DTYPE.str, "fortran_order": False, "shape": (count, stored.dimension)}
                npy.write_array_header_1_0(file, head)
                left = count * stored.dimension * DTYPE.itemsize
                for vectors in stored.vectors():
                    file.write(vectors)
                    left -= len(vectors)
                    yield from out.take()
                if left:
                    raise Invalid(_LEFT_OUT)
        yield from out.take()

    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        archive = _Archive(file)
        with archive.open(_LIBRARY) as head:
            library = read_head(head.read(LARGEST_HEAD))
        if library is None:
            raise Invalid(f"{_LIBRARY} does not have the fields of a library. {_OTHERWISE}")
        total = archive.size(_DOCUMENTS) + archive.size(_CHUNKS)
        place = {"documents": 0, "chunks": 0, "vectors": 0} if start is None else start
        return Source(library, _batches(archive, **place), total, "B", runs_in_threads=True)


def _entry(name: str) -> zipfile.ZipInfo:
    # The time of every entry: two exports of one state are the same, byte by byte.
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


class _Archive:
    """An export's entries. Raises Invalid for an archive that is none, or is made to do harm."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        size = file.seek(0, io.SEEK_END)
        try:
            self._zip = zipfile.ZipFile(Section(file, 0, size))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise Invalid(f"The file is no zip, or is cut off: {error}. {_OTHERWISE}") from None
        names = [info.filename for info in self._zip.infolist()]
        for info in self._zip.infolist():
            self._check(info)
        if len(set(names)) < len(names):
            raise Invalid(f"An entry comes twice in the archive. {_OTHERWISE}")
        for name in _ENTRIES:
            if name not in names:
                raise Invalid(f"The archive has no {name}, so it is no whole export. {_OTHERWISE}")

    @staticmethod
    def _check(info: zipfile.ZipInfo) -> None:
        if info.filename not in _ENTRIES:
            raise Invalid(f"The archive has an entry {info.filename[:200]!r}, which no export has. {_OTHERWISE}")
        if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
            raise Invalid(f"The entry {info.filename} is a link, or encrypted. {_OTHERWISE}")
        _Archive.check_size(info)

    @staticmethod
    def check_size(info: zipfile.ZipInfo) -> None:
        """Raise Invalid for an entry that claims to be very much larger than what is packed. A reader of it gets no
        more than it claims: of the ways to pack, these two are unpacked bit by bit."""
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Invalid(f"The entry {info.filename} must be stored or deflated. {_OTHERWISE}")
        if info.file_size > max(_SMALL, _MOST_TIMES * info.compress_size):
            raise Invalid(f"The entry {info.filename} claims to unpack to {info.file_size} bytes. {_OTHERWISE}")

    def size(self, name: str) -> int:
        """The bytes of an entry."""
        return self._zip.getinfo(name).file_size

    def open(self, name: str) -> IO[bytes]:
        """The bytes of an entry, at most as many as it declares."""
        return self._zip.open(name)

    def seekable(self, name: str) -> BinaryIO:
        """The bytes of an entry, in which can be sought. A compressed one is unpacked to a file that has no name."""
        info = self._zip.getinfo(name)
        if info.compress_type == zipfile.ZIP_STORED:
            self._file.seek(info.header_offset + 26)
            name_size, extra_size = (int.from_bytes(self._file.read(2), "little") for _ in range(2))
            start = info.header_offset + 30 + name_size + extra_size
            return cast(BinaryIO, io.BufferedReader(Section(self._file, start, info.file_size)))
        if info.file_size > shutil.disk_usage(settings.DATA_DIR).free:
            raise Invalid(f"The disk has no room for the {info.file_size} bytes of {name}. {_OTHERWISE}")
        unpacked = tempfile.TemporaryFile(dir=settings.DATA_DIR)  # noqa: SIM115
        with self._zip.open(name) as packed:
            shutil.copyfileobj(packed, unpacked, _BYTES_PER_READ)
        return cast(BinaryIO, unpacked)


class _Matrix:
    """The array of vectors, read in order from row `at` on."""

    def __init__(self, archive: _Archive, at: int) -> None:
        try:
            inner = zipfile.ZipFile(archive.seekable(_VECTORS))
            if inner.namelist() != [_MATRIX]:
                raise ValueError(f"it must have one array, vectors, and has {', '.join(inner.namelist())[:200]}")
            archive.check_size(inner.getinfo(_MATRIX))
            self._file = inner.open(_MATRIX)
            version = npy.read_magic(self._file)
            read_head = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, is_fortran, self._dtype = read_head(self._file)
            if len(shape) != 2 or is_fortran or self._dtype.kind != "f":
                raise ValueError(f"the array must be of floats [rows, dimension] in C order, not {self._dtype} {shape}")
            self._rows, self._dimension = shape
            if self._dimension > (limit := settings.LIMITS.dimension):
                rule = f"and may have {limit} (limit VECTORDB_MAX_DIMENSION)"
                raise ValueError(f"its vectors have {self._dimension} components, {rule}")
            self._file.seek(at * self._row_bytes, io.SEEK_CUR)
        # numpy lets a head pass as a TokenError that is no Python.
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, TokenError) as error:
            raise Invalid(f"{_VECTORS} cannot be read: {error}. {_OTHERWISE}") from None
        self.at = at

    @property
    def _row_bytes(self) -> int:
        return int(self._dimension * self._dtype.itemsize)

    @property
    def stored_row_bytes(self) -> int:
        """What a row takes as it is stored."""
        return int(self._dimension * DTYPE.itemsize)

    def take(self, count: int) -> Float32:
        """The next rows as float32 [count, dimension]. Raises Invalid where there are fewer."""
        if self.at + count > self._rows:
            raise Invalid(f"{_VECTORS} has {self._rows} vectors, and {_CHUNKS} more chunks that have one.")
        found = bytearray()
        while left := count * self._row_bytes - len(found):
            part = self._file.read(min(left, _BYTES_PER_READ))
            if not part:
                raise Invalid(f"{_VECTORS} is cut off: it has less than the {self._rows} vectors that it says.")
            found += part
        self.at += count
        return to_float32(np.frombuffer(found, self._dtype).reshape(count, self._dimension))

    def check_end(self) -> None:
        """Raise Invalid where rows are left."""
        if self.at < self._rows:
            raise Invalid(f"{_VECTORS} has {self._rows} vectors, and {_CHUNKS} only {self.at} chunks that have one.")


def _batches(archive: _Archive, documents: int, chunks: int, vectors: int) -> Iterator[Batch]:
    """The rows that follow the first `documents`, `chunks` and `vectors` of the archive."""
    matrix = _Matrix(archive, vectors)
    rows, done = Gathering(), 0
    try:
        for number, line in _lines(archive, _DOCUMENTS):
            done += len(line or b"")
            if number <= documents:
                continue
            documents = number
            if (row := _parse(rows, f"{_DOCUMENTS} line {number}", line)) is not None:
                rows.documents[f"{_DOCUMENTS} line {number}"] = cast(DocumentData, row)
            if rows.is_full:
                yield rows.take({"documents": documents, "chunks": 0, "vectors": 0}, done)
        for number, line in _lines(archive, _CHUNKS):
            done += len(line or b"")
            if number <= chunks:
                continue
            chunks = number
            at = f"{_CHUNKS} line {number}"
            if (row := _parse(rows, at, line)) is not None:
                rows.chunks[at] = cast(ChunkData, row)
                rows.bytes += 0 if "embedding" in row else matrix.stored_row_bytes
            else:
                raise Invalid(f"{at} {rows.refused[at]}, so nobody knows whose the vectors behind it are.")
            if rows.is_full:
                _add_vectors(rows, matrix)
                yield rows.take({"documents": documents, "chunks": chunks, "vectors": matrix.at}, done)
        _add_vectors(rows, matrix)
        matrix.check_end()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Invalid(f"The archive is damaged: {error}.") from None
    yield rows.take({"documents": documents, "chunks": chunks, "vectors": matrix.at}, done)


def _lines(archive: _Archive, name: str) -> Iterator[tuple[int, bytes | None]]:
    with archive.open(name) as entry:
        yield from enumerate(read_lines(io.BufferedReader(entry, _BYTES_PER_READ)), 1)  # type: ignore[type-var]


def _parse(rows: Gathering, at: str, line: bytes | None) -> dict[str, Any] | None:
    """The object of a line; None for one that is refused."""
    try:
        row = parse_object(line)
    except ValueError as error:
        rows.refused[at] = str(error)
        return None
    rows.bytes += len(line or b"")
    return row


def _add_vectors(rows: Gathering, matrix: _Matrix) -> None:
    """Give the chunks that have a vector theirs."""
    bare = [row for row in rows.chunks.values() if "embedding" not in row]
    for row, vector in zip(bare, matrix.take(len(bare)), strict=True):
        row["embedding"] = vector
