"""Parquet files whose few bytes stand for very much, and the process that reads them."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps.libraries.errors import Invalid
from apps.transfer.formats import format_of
from apps.transfer.formats.parquet import Parquet
from tests.transfer.files import opened, read_all

pytestmark = pytest.mark.any_database


def test_texts_that_come_again_and_again_are_read_in_small_parts() -> None:
    """Some thousand bytes that stand for 600 MB."""
    rows, text = 200, "x" * (1 << 20)
    lists, objects = [[], *[[text]] * (rows - 1)], [{"a": text}] * rows
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [text] * rows, "lists": lists, "objects": objects}), out, compression="zstd")
    assert len(out.getvalue()) < 10_000
    before, most, read = pa.total_allocated_bytes(), 0, 0
    with opened(out.getvalue()) as file:
        for batch in format_of("parquet").read(file).batches:
            most = max(most, pa.total_allocated_bytes() - before)
            read += len(batch.chunks)
    assert read == rows
    assert most < 64 << 20


def zeros() -> bytes:
    """A row of half a gigabyte of zeros, of which the file says that they are some bytes."""
    out = io.BytesIO()
    table = pa.table({"id": ["x"], "number": pa.array([np.zeros(64 << 20)])})
    pq.write_table(table, out, compression="zstd", use_dictionary=False, data_page_size=1 << 30, write_statistics=False)
    column = pq.ParquetFile(out).metadata.row_group(0).column(1)
    return with_figure(out.getvalue(), column.total_uncompressed_size, 100)


def nulls() -> bytes:
    """A row of nulls, which are counted, of which the file says that they are ten."""
    count, out = 64 << 20, io.BytesIO()
    values = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.int32()))
    table = pa.table({"id": ["x"], "number": values})
    pq.write_table(table, out, data_page_size=1 << 30, write_statistics=False)
    return with_figure(out.getvalue(), count, 10)


def lengths() -> bytes:
    """A thousand texts, of which the page says that they are a thousand million."""
    out = io.BytesIO()
    encoding: Any = {"text": "DELTA_LENGTH_BYTE_ARRAY"}
    table = pa.table({"text": ["xx"] * 1000})
    pq.write_table(table, out, compression="NONE", use_dictionary=False, column_encoding=encoding)
    # Blocks of 128 lengths in 4 parts, 1000 lengths in all.
    head = varint(128) + b"\x04" + varint(1000)
    other = varint(1 << 30) + b"\x04" + varint(1 << 30) + bytes(6)
    data = out.getvalue()
    place = data.index(head)
    return data[:place] + other + data[place + len(other) :]


def dimensions() -> bytes:
    """A list that is null, of a type whose lists have a thousand million numbers."""
    small, large, out = 12345, 1 << 30, io.BytesIO()
    table = pa.table({"number": pa.array([None], pa.list_(pa.int8(), small))})
    pq.write_table(table, out)
    was = pq.ParquetFile(out).metadata.metadata[b"ARROW:schema"]
    becomes = base64.b64decode(was).replace(small.to_bytes(4, "little"), large.to_bytes(4, "little"))
    return out.getvalue().replace(was, base64.b64encode(becomes))


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def with_figure(data: bytes, old: int, new: int) -> bytes:
    """A file whose footer has a number in place of another one, as long as that."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    was, becomes = varint(2 * old), bytearray(varint(2 * new))
    becomes[-1] |= 128
    becomes += bytes([128] * (len(was) - len(becomes) - 1) + [0])
    assert was in data[start:]
    return data[:start] + data[start:].replace(was, bytes(becomes))


def test_a_file_with_a_wrong_byte_is_said_to_be_damaged() -> None:
    """Arrow's reason has several lines."""
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 100]}), out, compression="NONE", use_dictionary=False)
    data = bytearray(out.getvalue())
    # The header of the first page.
    data[4] ^= 255
    with pytest.raises(Invalid, match=r"^The file is damaged: Couldn't deserialize thrift: .*page header failed\.$"):
        read_all("parquet", bytes(data))


@pytest.mark.parametrize("make", [zeros, nulls, lengths, dimensions])
def test_a_file_that_takes_more_memory_than_it_may_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    assert len(data) < 100_000
    with opened(data) as file, pytest.raises(Invalid, match="needs more than 384 MB of memory"):
        list(Parquet(memory=384 << 20).read(file).batches)


def test_a_row_that_is_larger_than_any_may_be_is_refused() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ["x"], "number": pa.array([np.zeros(10 << 20)])}), out, compression="zstd")
    with pytest.raises(Invalid, match="a row takes 81 MB of memory, and may take 64"):
        read_all("parquet", out.getvalue())


def test_the_texts_of_a_page_may_be_longer_than_the_page() -> None:
    """Each has what it shares with the one before it."""
    rows, encoding, out = 100, {"text": "DELTA_BYTE_ARRAY"}, io.BytesIO()
    table = pa.table({"text": ["x" * (1 << 20)] * rows})
    pq.write_table(table, out, compression="zstd", use_dictionary=False, column_encoding=encoding)
    assert len(out.getvalue()) < 10_000
    with opened(out.getvalue()) as file:
        sizes = [len(batch.chunks) for batch in format_of("parquet").read(file).batches]
    assert sum(sizes) == rows
    assert max(sizes) <= 16


def test_the_process_that_reads_a_file_ends_with_the_reading_which_does_not_end_well_without_it() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [f"{i}" * 100 for i in range(20_000)]}), out)

    def reader() -> list[psutil.Process]:
        children = psutil.Process().children()
        return [one for one in children if any("parquet_reader.py" in part for part in one.cmdline())]

    with opened(out.getvalue()) as file:
        batches: Any = format_of("parquet").read(file).batches
        next(batches)
        assert len(reader()) == 1
        batches.close()
        assert reader() == []
    with opened(out.getvalue()) as file:
        batches = format_of("parquet").read(file).batches
        next(batches)
        reader()[0].kill()
        with pytest.raises(Invalid, match="was ended by the signal 9"):
            list(batches)


@pytest.mark.parametrize("in_dictionaries", [True, False])
def test_rows_that_are_equal_are_no_bomb(in_dictionaries: bool) -> None:
    rows = 10_000
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * 384, np.float32)), 384)
    nothing = pa.nulls(rows, pa.string())
    out = io.BytesIO()
    table = pa.table({"text": ["x" * 1000] * rows, "embedding": vectors, "source": nothing})
    pq.write_table(table, out, compression="zstd", use_dictionary=in_dictionaries)
    assert len(out.getvalue()) < 100_000
    assert sum(len(batch.chunks) for batch in read_all("parquet", out.getvalue())) == rows


CELLS = {
    "apostrophes": ("id,text,n\n1,'tis the season,x\n2,don't,x\n3,'three',x", ["'tis the season", "don't", "'three'"]),
    "quotes": ('id,text\n1,"say ""no"""\n2,"a, b\nc"\n', ['say "no"', "a, b\nc"]),
    "other marks in the cells": ("id;text\n1;a,b,c\n2;d,e|f\n", ["a,b,c", "d,e|f"]),
    "tabs": ("id\ttext\n1\ta, b\n2\tc; d\n", ["a, b", "c; d"]),
    "spaces behind commas": ("id, text\n1, a\n2,  b\n", ["a", "b"]),
    "spaces of a text": ("id,text\n1, a\n2,b\n", [" a", "b"]),
    "one column": ("text\n a; b\nc|d\n", [" a; b", "c|d"]),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_of_a_table_are_as_they_stand(case: str) -> None:
    table, texts = CELLS[case]
    [batch] = format_of("csv").read(io.BytesIO(table.encode())).batches
    assert [row["text"] for row in batch.chunks.values()] == texts
