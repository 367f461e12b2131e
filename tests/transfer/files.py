"""Files to import, and what reads them."""

import io
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apps.transfer.formats import format_of
from apps.transfer.importing import Report, import_source, open_library
from apps.transfer.rows import Batch


def file_without_ids(format: str, rows: int) -> bytes:
    """A file of chunks with the texts 0, 1, ... and vectors of two numbers. What is stored twice is there twice."""
    out = io.BytesIO()
    if format == "jsonl":
        return b"".join(b'{"text": "%d", "embedding": [1, 1]}\n' % i for i in range(rows))
    vectors = np.ones((rows, 2), np.float32)
    if format == "parquet":
        pq.write_table(pa.table({"text": [str(i) for i in range(rows)], "embedding": list(vectors)}), out)
    else:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("library.json", b'{"library": {"name": "N", "dimension": 2}, "format": 1}')
            archive.writestr("documents.jsonl", b"")
            archive.writestr("chunks.jsonl", b"".join(b'{"text": "%d"}\n' % i for i in range(rows)))
            with archive.open("vectors.npz", "w") as file:
                np.savez(file, vectors=vectors)
    return out.getvalue()


@contextmanager
def opened(data: bytes) -> Iterator[BinaryIO]:
    """A file that has this."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def load(format: str, data: bytes, into: str = "b") -> Report:
    with opened(data) as file:
        source = format_of(format).read(file)
        open_library(into, source.library, create=True)
        *_, (report, _) = import_source(library_id=into, source=source)
    return report


def read_all(format: str, data: bytes, start: Any = None) -> list[Batch]:
    with opened(data) as file:
        return list(format_of(format).read(file, start).batches)
