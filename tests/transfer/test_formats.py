"""Files of every format: what comes back of them, and what is said of those that are none."""

import io
import stat
import struct
import zipfile
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.libraries.errors import Invalid
from apps.libraries.models import Chunk
from apps.transfer import rows
from apps.transfer.exporting import export_library
from apps.transfer.formats import EXPORT_FORMATS, format_of, parquet
from apps.transfer.importing import Report, import_source, open_library
from tests.transfer.libraries import content, make_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def export(format: str) -> bytes:
    return b"".join(export_library(library_id="a", format=format_of(format)))


def load(format: str, data: bytes, into: str = "b") -> Report:
    source = format_of(format).read(io.BytesIO(data))
    open_library(into, source.library, create=True)
    *_, (report, _) = import_source(library_id=into, source=source)
    return report


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_comes_back_is_what_was_there(format: str) -> None:
    make_library()
    data = export(format)
    report = load(format, data)
    assert (report.created, report.documents, report.refused) == (10, 2, 0)
    assert content("b") == content("a")
    # Again into what is there: nothing comes twice.
    assert load(format, data).updated == 10
    assert content("b") == content("a")


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_file_is_read_on_from_any_batch(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_library(rows=30)
    data = export(format)
    for module in (rows, parquet):
        monkeypatch.setattr(module, "ROWS_PER_BATCH", 7)
    found = format_of(format)
    source = found.read(io.BytesIO(data))
    open_library("b", source.library, create=True)
    report, places = Report(), [None]
    for after, batch in import_source(library_id="b", source=source):
        report = after
        places.append(batch.next)
        # As a new process does, with what the last batch has left.
        source = found.read(io.BytesIO(data), batch.next)
        again = next(source.batches, None)
        assert again is None or not again.chunks.keys() & batch.chunks.keys()
    assert len(places) > 5
    assert (report.created, report.updated, report.refused) == (35, 0, 0)
    at = places[len(places) // 2]
    ids = {row["id"] for batch in found.read(io.BytesIO(data), at).batches for row in batch.chunks.values()}
    before = {row["id"] for batch in found.read(io.BytesIO(data)).batches for row in batch.chunks.values()}
    assert 0 < len(ids) < len(before) == 35


def archive(**entries: bytes) -> bytes:
    """A zip of entries; two underscores in a name are a dot."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in entries.items():
            file.writestr(name.replace("__", "."), content)
    return out.getvalue()


def npz(array: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, vectors=array)
    return out.getvalue()


HEAD = b'{"library": {"name": "N", "dimension": 3}, "format": 1}\n'
TWO = b'{"id": "x"}\n{"id": "y"}\n'
BROKEN = b"\x93NUMPY\x01\x00\x07\x00{'a': (\n"
VECTORS = npz(np.ones((2, 3), np.float32))


def link() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        info = zipfile.ZipInfo("library.json")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
        file.writestr("chunks.jsonl", TWO)
    return out.getvalue()


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("library.json", HEAD)
        file.writestr("chunks.jsonl", bytes(20 << 20))
    return out.getvalue()


def liar() -> bytes:
    """An entry that unpacks to more than it says."""
    data = archive(library__json=HEAD, chunks__jsonl=TWO * 100, vectors__npz=npz(np.ones((200, 3), np.float32)))
    size = struct.pack("<I", len(TWO * 100))
    return data.replace(size, struct.pack("<I", len(TWO)))


# What is wrong with a file, and what is said of it.
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "no zip": ("zip", b"nothing", "no zip, or is cut off"),
    "cut": ("zip", archive(library__json=HEAD, chunks__jsonl=TWO)[:-30], "no zip, or is cut off"),
    "another zip": ("zip", archive(**{"word/document__xml": b"<xml>"}), "'word/document.xml', which no export has"),
    "a path outside": ("zip", archive(library__json=HEAD, **{"../chunks__jsonl": TWO}), r"'\.\./chunks\.jsonl'"),
    "a link": ("zip", link(), "is a link"),
    "a bomb": ("zip", bomb(), "claims to unpack to 20971520 bytes"),
    "a liar": ("zip", liar(), "damaged|cut off"),
    "objects": ("zip", archive(library__json=HEAD, chunks__jsonl=TWO, vectors__npz=npz(np.array([[{}]]))), "of floats"),
    "a wrong shape": (
        "zip",
        archive(library__json=HEAD, chunks__jsonl=TWO, vectors__npz=npz(np.ones(6, np.float32))),
        r"\[rows, dimension\]",
    ),
    "a broken head": (
        "zip",
        archive(library__json=HEAD, chunks__jsonl=TWO, vectors__npz=archive(vectors__npy=BROKEN)),
        "vectors.npz cannot be read",
    ),
    "too few vectors": (
        "zip",
        archive(library__json=HEAD, chunks__jsonl=TWO + TWO, vectors__npz=VECTORS),
        "more chunks",
    ),
    "too many vectors": (
        "zip",
        archive(library__json=HEAD, chunks__jsonl=b'{"id": "x"}\n', vectors__npz=VECTORS),
        "only 1 chunks",
    ),
    "a newer version": ("jsonl", HEAD.replace(b"1}", b"2}"), "format 2; this server reads format 1"),
    "lines without an end": ("jsonl", HEAD + b'{"id": "x", "embedding": [1, 2, 3]}\n', "cut off"),
    "no Parquet": ("parquet", b"PAR1 nothing PAR1", "no Parquet, or is cut off"),
    "a table without names": ("csv", b"\n1,2\n", "must name the columns"),
    "no text": ("csv", b"\xff\xfe\x00", "no text in UTF-8"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_none_is_refused_in_a_sentence(case: str) -> None:
    format, data, sentence = HOSTILE[case]
    with pytest.raises(Invalid, match=sentence):
        load(format, data)


def test_an_export_that_is_damaged_is_not_taken_for_whole() -> None:
    make_library()
    for format in ("zip", "parquet"):
        data = bytearray(export(format))
        place = data.index(b"text of c3")
        data[place : place + 4] = b"TEXT"
        if format == "zip":
            with pytest.raises(Invalid, match="damaged"):
                load(format, bytes(data))
        with pytest.raises(Invalid, match="cut off"):
            load(format, bytes(data[: len(data) // 2]))


def test_tables_of_others_are_read_by_their_columns() -> None:
    table = (
        "\ufeffkey;body;vector;topic;score;zip;metadata\r\n"
        '1;"two\nlines; one cell";[1, 2, 3];a;1.5;01234;{"topic": "own"}\r\n'
        "2;short;AACAPwAAAEAAAEBA;;true;5;\r\n"
        "3;no vector;x;;;;\r\n"
        "4;too few\r\n"
    )
    source = format_of("csv").read(io.BytesIO(table.encode()), columns={"id": "key", "text": "body"})
    open_library("b", {"name": "B", "dimension": 3}, create=True)
    *_, (report, _) = import_source(library_id="b", source=source)
    assert (report.created, report.refused) == (2, 2)
    assert [one["at"] for one in report.refusals] == ["line 6", "line 5"]
    one, two = Chunk.objects.filter(library__public_id="b")
    assert (one.public_id, one.text) == ("1", "two\nlines; one cell")
    assert one.metadata == {"topic": "own", "score": 1.5, "zip": "01234"}
    assert two.metadata == {"score": True, "zip": 5}
    assert bytes(one.embeddings.get().vector) == bytes(two.embeddings.get().vector)
    with pytest.raises(Invalid, match="no column 'absent'"):
        format_of("csv").read(io.BytesIO(table.encode()), columns={"text": "absent"})

    out = io.BytesIO()
    others = {
        "id": [1, 2],
        "emb": [[1.0, 2.0, 3.0], None],
        "text": ["a", "b"],
        "at": [datetime.fromisoformat("2020-01-01"), None],
        "price": [Decimal("1.50"), None],
        "digest": [b"\x00\x01", None],
        "metadata": [None, [1]],
    }
    pq.write_table(pa.table(others), out)
    source = format_of("parquet").read(out, columns={"vector": "emb"})
    *_, (report, _) = import_source(library_id="b", source=source)
    assert (report.updated, report.refused) == (1, 1)
    assert Chunk.objects.get(public_id="1").metadata == {"at": "2020-01-01T00:00:00", "price": 1.5, "digest": "AAE="}
