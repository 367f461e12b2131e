"""Reads the columns of a Parquet file some rows at a time; a program of its own, whose memory the system bounds.

Arrow takes as much memory as the pages of a file say: for a page that is unpacked, for numbers that are counted instead
of repeated, for the lengths of texts. So a file of some hundred bytes can have it take all there is, and the file's own
figures need not be true. This process may take so much and no more, and whoever started it lives on.

The file is the standard input, the rows go to the standard output as a stream of Arrow's, and what is wrong with the
file to the standard error. It imports nothing of the server's.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# What a value takes in memory, by the type that it is stored as; of texts, beside the text.
_WIDTHS: Final = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
_WIDTH: Final = 8
_LEAST_WIDTH: Final = 4


def main() -> int:
    """Read as the argument says, an object of JSON with the fields of `Parts`, the row to `start` at, and the bytes of
    `memory`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = json.loads(sys.argv[1])
    memory, start = options.pop("memory"), options.pop("start")
    # Each thread would unpack a page, and Arrow's own allocator keeps what is free: together 60 MB. Rows are written no
    # quicker for it.
    pa.set_cpu_count(1)
    pa.set_memory_pool(pa.system_memory_pool())
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    try:
        parts = Parts(sys.stdin.buffer, open_file(sys.stdin.buffer), **options)
        stream = None
        for part in parts.read(start):
            stream = stream or pa.ipc.new_stream(sys.stdout.buffer, part.schema)
            stream.write_batch(part)
    except BrokenPipeError:
        # Nobody reads on.
        return 1
    except MemoryError:
        sys.stderr.write(f"The file needs more than {memory >> 20} MB of memory. Write it in smaller pages and rows")
        return 1
    except (pa.ArrowException, OSError, ValueError) as error:
        # In one line: the last one is what is said.
        sys.stderr.write(f"The file is damaged: {' '.join(str(error).split())}")
        return 1
    return 0


def open_file(file: BinaryIO, **options: Any) -> Any:
    """Open a file. Raises what pyarrow raises."""
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 17, page_checksum_verification=True, **options)


@dataclass(frozen=True)
class Parts:
    """The columns `names` of a file in parts of at most `rows` rows, and of some `size` bytes. A row that takes more
    than `largest` is refused.

    A value that comes again is stored once, in a dictionary, and numbers that come again are counted: so some bytes of
    a file may stand for any number of large rows.
    """

    file: BinaryIO
    parquet: Any
    names: list[str]
    rows: int
    size: int
    largest: int

    def read(self, start: int) -> Iterator[Any]:
        """The rows from the row `start` on. Raises ValueError for a row that is too large, and what pyarrow raises."""
        at = 0
        for group in range(self.parquet.num_row_groups):
            rows = self.parquet.metadata.row_group(group).num_rows
            if at + rows > start:
                yield from self._read_group(group, max(0, start - at))
            at += rows

    def _read_group(self, group: int, skip: int) -> Iterator[Any]:
        """The rows of a group behind the first `skip`."""
        count = max(1, min(self.rows, self.size // max(1, self._row_bytes(group))))
        parts: list[Any] = []
        for part in self.parquet.iter_batches(count, row_groups=[group], columns=self.names):
            part, skip = part.slice(skip), max(0, skip - len(part))
            for piece in self._pieces(part):
                parts.append(piece)
                # Where one large row has all parts of its group be small, the others are put together again.
                is_full = sum(map(len, parts)) + count > self.rows
                if is_full or sum(map(_memory, parts)) >= self.size:
                    yield _concat(parts)
                    parts = []
        if parts:
            yield _concat(parts)

    def _pieces(self, part: Any) -> Iterator[Any]:
        """A part, in halves as long as it is larger than it was thought to be."""
        if len(part) > 1 and _memory(part) > self.size:
            half = len(part) // 2
            yield from self._pieces(part.slice(0, half))
            yield from self._pieces(part.slice(half))
        elif len(part):
            if len(part) == 1 and _memory(part) > self.largest:
                raise ValueError(f"a row takes {_memory(part) >> 20} MB of memory, and may take {self.largest >> 20}")
            yield part

    def _row_bytes(self, group: int) -> int:
        """What a row of a group may take in memory, at most, were all its lists of the same length, and if the file
        says the truth of itself."""
        found = self.parquet.metadata.row_group(group)
        columns = [found.column(i) for i in range(found.num_columns)]
        in_dictionaries = [one.path_in_schema for one in columns if one.has_dictionary_page and _is_text(one)]
        texts = open_file(self.file, read_dictionary=in_dictionaries)
        # With each come the dictionaries of all.
        leaves = [leaf for row in islice(texts.iter_batches(1, row_groups=[group]), 1) for leaf in _leaves(row)]
        total = 0
        for i, (column, leaf) in enumerate(zip_longest(columns, leaves[: len(columns)])):
            if not _is_text(column):
                fixed = self.parquet.schema.column(i).length or _WIDTHS.get(column.physical_type, _WIDTH)
                total += max(column.total_uncompressed_size, column.num_values * fixed)
                continue
            total += column.total_uncompressed_size + column.num_values * _WIDTH
            if column.has_dictionary_page:
                # A list that is empty brings no dictionary: then it may be one text.
                longest = _longest(leaf) or column.total_uncompressed_size
                total += column.num_values * longest
        return int(total // max(1, found.num_rows))


def _concat(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else pa.concat_batches(parts)


def _memory(part: Any) -> int:
    """What a part takes in memory where it is read, at least: there nulls and truth values have bytes, too."""
    return sum(max(leaf.nbytes, _LEAST_WIDTH * len(leaf)) for leaf in _leaves(part))


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY")


def _leaves(array: Any) -> Iterator[Any]:
    """The arrays of values that an array is made of, in the order of a file's columns."""
    if isinstance(array, pa.RecordBatch):
        children = array.columns
    elif isinstance(array, pa.ExtensionArray):
        children = [array.storage]
    elif isinstance(array, pa.MapArray):
        first, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        children = [some.slice(first, end - first) for some in (array.keys, array.items)]
    elif isinstance(array, pa.StructArray):
        children = array.flatten()
    elif hasattr(array, "values") and not isinstance(array, pa.DictionaryArray):
        children = [array.flatten()]
    else:
        yield array
        return
    for child in children:
        yield from _leaves(child)


def _longest(array: Any) -> int:
    """Bytes of the longest text in an array's dictionary; 0 where it has none."""
    if not isinstance(array, pa.DictionaryArray):
        return 0
    return pc.max(pc.binary_length(array.dictionary)).as_py() or 0


if __name__ == "__main__":
    sys.exit(main())
