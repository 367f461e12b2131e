"""Files of every format: what comes back of them, and what is said of those that are none."""

import contextlib
import io
import json
import os
import sqlite3
import stat
import struct
import subprocess
import sys
import zipfile
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import connections

from apps.libraries.errors import Invalid
from apps.libraries.models import Chunk, Library
from apps.search.snapshots import open_snapshot
from apps.transfer import rows
from apps.transfer.exporting import export_library
from apps.transfer.formats import EXPORT_FORMATS, format_of, parquet
from apps.transfer.formats.lines import LONGEST_LINE
from apps.transfer.importing import Report, import_source, open_library
from apps.transfer.stored import StoredLibrary
from tests.server import ROOT
from tests.transfer.files import load, opened, read_all
from tests.transfer.libraries import content, make_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def export(format: str) -> bytes:
    return b"".join(export_library(library_id="a", format=format_of(format)))


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
    report, places = Report(), [None]
    with opened(data) as file:
        source = format_of(format).read(file)
        open_library("b", source.library, create=True)
        for after, batch in import_source(library_id="b", source=source):
            report = after
            places.append(batch.next)
            # As a new process does, with what the last batch has left.
            again = read_all(format, data, batch.next)
            assert not again or not again[0].chunks.keys() & batch.chunks.keys()
    assert len(places) > 5
    assert (report.created, report.updated, report.refused) == (35, 0, 0)
    at = places[len(places) // 2]
    ids = {row["id"] for batch in read_all(format, data, at) for row in batch.chunks.values()}
    before = {row["id"] for batch in read_all(format, data) for row in batch.chunks.values()}
    assert 0 < len(ids) < len(before) == 35


def test_a_zip_breaks_off_at_a_vector_that_is_none_of_the_library() -> None:
    """No service writes one."""
    make_library()
    Library.objects.update(dimension=4)
    with pytest.raises(Invalid, match="another length than its dimension"):
        export("zip")
    assert export("jsonl").count(b'"embedding":null}') == 10


@pytest.mark.sqlite
def test_rows_that_are_too_large_to_be_read_together_are_read_in_smaller_pages() -> None:
    make_library(rows=30)
    Chunk.objects.update(text="x" * 10_000)
    with open_snapshot() as snapshot:
        connection = connections["snapshot"].connection
        before = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000)
        try:
            lines = b"".join(format_of("jsonl").write(StoredLibrary.open(snapshot, "a"))).splitlines()
        finally:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)
    assert lines == export("jsonl").splitlines()


def archive(packing: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """A zip of entries; two underscores in a name are a dot."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as file:
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


def wide() -> bytes:
    """The head of an array of one vector of four gigabytes."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 30)})
    return head.getvalue()


def liar() -> bytes:
    """An entry that unpacks to more than it says."""
    data = archive(
        library__json=HEAD,
        documents__jsonl=b"",
        chunks__jsonl=TWO * 100,
        vectors__npz=npz(np.ones((200, 3), np.float32)),
    )
    size = struct.pack("<I", len(TWO * 100))
    return data.replace(size, struct.pack("<I", len(TWO)))


# What is wrong with a file, and what is said of it.
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "no zip": ("zip", b"nothing", "no zip, or is cut off"),
    "cut": ("zip", archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO)[:-30], "no zip, or is cut off"),
    "another zip": ("zip", archive(**{"word/document__xml": b"<xml>"}), "'word/document.xml', which no export has"),
    "a path outside": ("zip", archive(library__json=HEAD, **{"../chunks__jsonl": TWO}), r"'\.\./chunks\.jsonl'"),
    "a link": ("zip", link(), "is a link"),
    "a bomb": (
        "zip",
        archive(zipfile.ZIP_DEFLATED, library__json=HEAD, documents__jsonl=b"", chunks__jsonl=bytes(20 << 20)),
        "claims to unpack to 20971520 bytes",
    ),
    # Of these, Python unpacks a megabyte of the file at once, to gigabytes.
    "packed otherwise": (
        "zip",
        archive(zipfile.ZIP_BZIP2, library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO),
        "stored or deflated",
    ),
    "an array that is packed otherwise": (
        "zip",
        archive(
            library__json=HEAD,
            documents__jsonl=b"",
            chunks__jsonl=TWO,
            vectors__npz=archive(zipfile.ZIP_LZMA, vectors__npy=BROKEN),
        ),
        "vectors.npy must be stored or deflated",
    ),
    "endless vectors": (
        "zip",
        archive(
            library__json=HEAD,
            documents__jsonl=b"",
            chunks__jsonl=b'{"id": "x"}\n',
            vectors__npz=archive(vectors__npy=wide()),
        ),
        "1073741824 components, and may have",
    ),
    "a liar": ("zip", liar(), "damaged|cut off"),
    "objects": (
        "zip",
        archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO, vectors__npz=npz(np.array([[{}]]))),
        "of floats",
    ),
    "a wrong shape": (
        "zip",
        archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO, vectors__npz=npz(np.ones(6, np.float32))),
        r"\[rows, dimension\]",
    ),
    "a broken head": (
        "zip",
        archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO, vectors__npz=archive(vectors__npy=BROKEN)),
        "vectors.npz cannot be read",
    ),
    "no vectors": (
        "zip",
        archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO),
        "has no vectors.npz, so it is no whole export",
    ),
    "no documents": (
        "zip",
        archive(library__json=HEAD, chunks__jsonl=TWO, vectors__npz=VECTORS),
        "has no documents.jsonl, so it is no whole export",
    ),
    "too few vectors": (
        "zip",
        archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=TWO + TWO, vectors__npz=VECTORS),
        "more chunks",
    ),
    "too many vectors": (
        "zip",
        archive(library__json=HEAD, documents__jsonl=b"", chunks__jsonl=b'{"id": "x"}\n', vectors__npz=VECTORS),
        "only 1 chunks",
    ),
    "a newer version": ("jsonl", HEAD.replace(b"1}", b"2}"), "format 2; this server reads format 1"),
    "lines without an end": ("jsonl", HEAD + b'{"id": "x", "embedding": [1, 2, 3]}\n', "cut off"),
    "no Parquet": ("parquet", b"PAR1 nothing PAR1", "no Parquet, or is cut off"),
    "binary lines": ("jsonl", b"PK\x03\x04" + TWO, r"must be a JSON object, and begins with b'PK"),
    "an array": ("jsonl", b'[{"id": "x"}]', "must be a JSON object"),
    "a binary table": ("csv", b"a,b\n\x00,1\n", "no text"),
    "a table without names": ("csv", b"\n1,2\n", "must name the columns"),
    "no text": ("csv", b"\xff\xfe\x00", "no text in UTF-8"),
    "names of another encoding": ("csv", "id,größe\n1,2\n".encode("latin-1"), "of names, is no text in UTF-8: .* 0xf6"),
    "names without an end": ("csv", b'id,"text\n1,a\n', "of names, has a quote that is never closed"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_none_is_refused_in_a_sentence(case: str) -> None:
    format, data, sentence = HOSTILE[case]
    with pytest.raises(Invalid, match=sentence):
        load(format, data)


class Counting(io.BytesIO):
    """A file that counts how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.taken += len(found)
        return found

    read1 = read


@pytest.mark.any_database
@pytest.mark.parametrize("part", [b"x", b'"' + b"x" * 100 + b'\n",'], ids=["a line", "many lines"])
def test_a_row_of_a_table_that_does_not_end_is_not_read_to_its_end(part: bytes) -> None:
    """Of one line, or of many with their ends in quotes."""
    file = Counting(b"id,text\n1,a\n2," + part * (2 * LONGEST_LINE // len(part)))
    source = format_of("csv").read(file)
    with pytest.raises(Invalid, match=f"a row is longer than {LONGEST_LINE} characters"):
        assert [list(batch.chunks) for batch in source.batches] == [["line 2"]]
    assert file.taken < LONGEST_LINE * 1.1
    assert not file.closed


@pytest.mark.any_database
def test_a_table_with_a_quote_that_is_never_closed_is_not_taken_for_whole() -> None:
    rows = b"".join(b"%d,row %d\n" % (number, number) for number in range(2500))
    source = format_of("csv").read(io.BytesIO(b"id,text\n" + rows + b'x,"open\n' + rows))
    found: list[str] = []
    with pytest.raises(Invalid, match="begins at line 2502 has a quote that is never closed"):
        found.extend(at for batch in source.batches for at in batch.chunks)
    assert found == [f"line {number}" for number in range(2, 2502)]
    whole = format_of("csv").read(io.BytesIO(b'id,text\n1,"a\nb"\n2,"c"'))
    assert [row["text"] for batch in whole.batches for row in batch.chunks.values()] == ["a\nb", "c"]


@pytest.mark.any_database
def test_bytes_that_are_no_text_refuse_their_row_of_a_table() -> None:
    source = format_of("csv").read(io.BytesIO(b'id,text\n1,a\n2,caf\xe9\n3,"caf\xc3\xa9"\n'))
    [batch] = source.batches
    assert [row["text"] for row in batch.chunks.values()] == ["a", "café"]
    assert batch.refused == {"line 3": "is no text in UTF-8: it has the byte 0xe9; save the file as UTF-8"}


def test_other_programs_read_an_export_in_parquet() -> None:
    make_library()
    file = io.BytesIO(export("parquet"))
    times = ["expires_at", "created_at", "updated_at"]
    names = ["id", "document_id", "position", "text", "embed_text", "metadata", *times]
    of_document = ["title", "source", "metadata", *times]
    schema = pq.read_schema(file)
    assert schema.names == [*names, "vector", *(f"document_{name}" for name in of_document)]
    assert str(schema.field("vector").type) == "fixed_size_list<element: float not null>[3]"
    table = pandas.read_parquet(file).set_index("id")
    row = table.loc["d/1"]
    assert (row["document_id"], row["document_title"], row["text"]) == ("d", "T", "text of d/1\nand \u2028 \U0001f600")
    assert json.loads(row["document_metadata"]) == {"x": [1, 1.0, True, 1e300]}
    assert table["position"].loc[["d/2", "d/0", "d/1"]].tolist() == [0, 1, 2]
    assert table["vector"].loc["c3"].tolist() == np.array([3, 0.1, -3e8], np.float32).tolist()
    assert table["vector"].loc["bare"] is None
    assert table["expires_at"].loc["late"] == pandas.Timestamp("2999-01-01T00:00:00.5Z")
    assert table[table.index.isna()]["document_id"].tolist() == ["empty"]


def test_reading_an_export_in_parquet_loads_no_pandas(tmp_path: Path) -> None:
    """It takes as long as to import some thousand rows."""
    make_library()
    file = tmp_path / "a.parquet"
    file.write_bytes(export("parquet"))
    read = (
        "import sys, django; django.setup(); from apps.transfer.formats import format_of\n"
        "batches = list(format_of('parquet').read(open(sys.argv[1], 'rb')).batches)\n"
        "print(sum(len(batch.chunks) for batch in batches), 'pandas' in sys.modules)"
    )
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": "vectordb.settings", "VECTORDB_DATA_DIR": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", read, str(file)], env=environ, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["10", "False"]


def test_an_export_that_is_damaged_is_not_taken_for_whole() -> None:
    make_library()
    for format in ("zip", "parquet"):
        data = bytearray(export(format))
        place = data.index(b"text of c3")
        data[place : place + 4] = b"TEXT"
        with pytest.raises(Invalid, match="damaged"):
            load(format, bytes(data))
        with pytest.raises(Invalid, match="cut off"):
            load(format, bytes(data[: len(data) // 2]))


def rows_of(first: int, last: int) -> bytes:
    return b"".join(b'{"id": "%d", "embedding": [1, 2, 3]}\n' % i for i in range(first, last + 1))


DOCUMENT = b'{"document": {"id": "d"}}\n'
END = b'{"end": {"documents": 1, "chunks": 4}}\n'
WHOLE = HEAD + DOCUMENT + rows_of(1, 4) + END
MISSING = {
    "a chunk": (HEAD + DOCUMENT + rows_of(1, 1) + rows_of(3, 4) + END, "^1 rows are missing: .* 5, and there are 4"),
    "the document": (HEAD + rows_of(1, 4) + END, "^1 rows are missing"),
    "all": (HEAD + END, "^5 rows are missing: the last line counts 5, and there are 0"),
    "all of a cut one behind a whole one": (WHOLE + HEAD, "^Line 8 comes behind the last line of .* line 7"),
    "the end of a cut one before a whole one": (HEAD + rows_of(5, 6) + WHOLE, "^At line 4 begins another export"),
    "nothing": (HEAD + DOCUMENT + rows_of(1, 5) + END, "^There are 1 rows too many"),
    "nothing of two": (WHOLE + b"\n" + WHOLE, "^Line 9 comes behind the last line"),
    "the counts": (WHOLE.replace(END, b'{"end": {}}\n'), "^The file is cut off"),
}


@pytest.mark.parametrize("size", [2, 100])
@pytest.mark.parametrize("case", MISSING)
def test_lines_that_are_not_those_that_the_last_one_counts_are_not_taken_for_whole(
    case: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is in the library; a read from any batch on says the same."""
    monkeypatch.setattr(rows, "ROWS_PER_BATCH", size)
    data, sentence = MISSING[case]
    with pytest.raises(Invalid, match=f"{sentence}.* The rows that were read are in the library") as error:
        load("jsonl", data)
    kept = set(Chunk.objects.filter(library__public_id="b").values_list("public_id", flat=True))
    assert kept == {one for one in "123456" if f'"{one}"' in data.decode().split(HEAD.decode())[1]}
    places: list[Any] = [None]
    with opened(data) as file, contextlib.suppress(Invalid):
        for batch in format_of("jsonl").read(file).batches:
            places.append(batch.next)
    for place in places:
        with pytest.raises(Invalid) as again:
            read_all("jsonl", data, place)
        assert str(again.value) == str(error.value)


def test_all_rows_are_counted_and_nothing_else() -> None:
    spaced = b"\n" + WHOLE.replace(b"\n", b"\n \n\n").replace(DOCUMENT, DOCUMENT + b'{"format": 1}\n')
    assert load("jsonl", spaced).created == 4
    # One that cannot be read is there, and refused.
    report = load("jsonl", WHOLE.replace(b'"3", ', b'"3" '))
    assert (report.updated, report.refused) == (3, 1)
    # So is a first line that cannot be read, but it is no row.
    report = load("jsonl", WHOLE.replace(b"{", b"{{", 1))
    assert (report.updated, report.refused) == (4, 1)
    # Jobs of earlier versions go on without a count of what else was there.
    [batch] = read_all("jsonl", WHOLE, {"offset": len(HEAD), "line": 1, "has_ended": False})
    assert len(batch.chunks) == 4


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
    assert [one["at"] for one in report.refusals] == ["line 5", "line 6"]
    one, two = Chunk.objects.filter(library__public_id="b")
    assert (one.public_id, one.text) == ("1", "two\nlines; one cell")
    assert one.metadata == {"topic": "own", "score": 1.5, "zip": "01234"}
    assert two.metadata == {"score": True, "zip": 5}
    assert bytes(one.embeddings.get().vector) == bytes(two.embeddings.get().vector)
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
    for format, data in ("csv", table.encode()), ("parquet", out.getvalue()):
        with pytest.raises(Invalid, match="no column 'absent'"):
            format_of(format).read(io.BytesIO(data), columns={"text": "absent"})
    with opened(out.getvalue()) as file:
        source = format_of("parquet").read(file, columns={"vector": "emb"})
        *_, (report, _) = import_source(library_id="b", source=source)
    assert (report.updated, report.refused) == (1, 1)
    assert Chunk.objects.get(public_id="1").metadata == {"at": "2020-01-01T00:00:00", "price": 1.5, "digest": "AAE="}
