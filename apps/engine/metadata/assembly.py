"""The arrays of a block, assembled from values and from the pairs of rows and values, or from those of other blocks.

Values are ranked by column and key, and the rows are grouped by rank. Costs time and memory by values, whatever the
number of columns.
"""

from collections.abc import Sequence

import numpy as np

from apps.engine.expiry import NEVER, compact
from apps.engine.metadata.layout import Layout, row_type
from apps.engine.strings import PackedStrings, Starts, Strings, lengths_of, ranges, rank, starts_of
from apps.engine.vectors import Int64


def merge_layouts(parts: Sequence[Layout], order: Int64) -> Layout:
    """The arrays of the rows `order`, distinct positions into the concatenation of `parts`."""
    moved = np.full(sum(len(part.created_at) for part in parts), -1, np.int64)
    moved[order] = np.arange(len(order))
    columns, moved_pairs = [np.empty(0, np.int64)], [np.empty((2, 0), np.int64)]
    first_row = first_name = first_value = 0
    for part in parts:
        here = moved[first_row : first_row + len(part.created_at)]
        moved_pairs.append(_move_pairs(part, here, first_value))
        columns.append(np.repeat(np.arange(first_name, first_name + len(part.names)), lengths_of(part.first_value)))
        first_row, first_name = first_row + len(here), first_name + len(part.names)
        first_value += len(part.values)
    values = Strings.concatenate([part.values.unpack(0, len(part.values)) for part in parts])
    rows, numbers = np.concatenate(moved_pairs, axis=1)
    is_used = np.zeros(len(values), np.bool_)
    is_used[numbers] = True
    used = np.flatnonzero(is_used)
    return make_layout(
        Strings.concatenate([part.names for part in parts]),
        values.take(used),
        np.concatenate(columns)[used],
        (rows, (np.cumsum(is_used) - 1)[numbers]),
        np.concatenate([np.empty(0, np.int64), *(part.created_at for part in parts)])[order],
        _merge_expiry(parts, order),
    )


def _merge_expiry(parts: Sequence[Layout], order: Int64) -> Int64:
    if not any(len(part.expires_at) for part in parts):
        return np.empty(0, np.int64)
    times = [part.expires_at if len(part.expires_at) else np.full(len(part.created_at), NEVER) for part in parts]
    return compact(np.concatenate(times)[order])


def _move_pairs(part: Layout, moved: Int64, first: int) -> Int64:
    """(row, value) pairs [2, n] of a block, the rows renumbered by `moved`, where those mapped to -1 are dropped, and
    the values numbered from `first` on."""
    values = np.repeat(np.arange(first, first + len(part.values)), part.row_counts())
    pairs = np.array([moved[part.rows], values])
    return pairs[:, pairs[0] >= 0]


def make_layout(
    names: Strings,
    values: Strings,
    columns: Int64,
    pairs: tuple[Int64, Int64],
    created_at: Int64,
    expires_at: Int64,
) -> Layout:
    """The arrays of `values`, the keys of columns whose `names` are numbered by `columns`; names, and values of a
    column, may be there twice. `pairs` are rows and the numbers of values that they have. Names without values are left
    out."""
    name_ranks, name_places = rank(names)
    value_columns = name_ranks[columns]
    ranks, places = rank(values, value_columns)
    counts = np.bincount(value_columns[places], minlength=len(name_places))
    first_value = starts_of(counts[counts > 0])
    value_starts, rows = _group_rows(ranks, len(places), *pairs)
    first_row = value_starts[first_value]
    first_start, starts = _keep_starts(value_starts, first_value.astype(np.int64))
    return Layout(
        names=names.take(name_places[counts > 0]),
        first_value=first_value,
        values=PackedStrings.pack(values.take(places)),
        first_row=first_row,
        rows=rows.astype(row_type(len(created_at))),
        first_start=first_start,
        starts=starts,
        created_at=created_at,
        expires_at=expires_at,
    )


def _group_rows(ranks: Int64, count: int, rows: Int64, numbers: Int64) -> tuple[Starts, Int64]:
    """Where the rows of each of `count` ranks start, and the rows: ascending, each once."""
    # One number for a pair sorts several times as fast as two keys do.
    pairs = (ranks[numbers] << 32) | rows
    pairs.sort()
    if len(pairs):
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
    return starts_of(np.bincount(pairs >> 32, minlength=count)), pairs & 0xFFFFFFFF


def _keep_starts(value_starts: Starts, first_value: Int64) -> tuple[Starts, Starts]:
    """`first_start` and `starts` of a layout, of the columns whose values begin at `first_value`; the rows of value i
    begin at `value_starts[i]`."""
    first_row, values = value_starts[first_value], np.diff(first_value)
    sizes = np.where(lengths_of(first_row) == values, 0, values + 1)
    return starts_of(sizes), value_starts[ranges(first_value[:-1], sizes)] - np.repeat(first_row[:-1], sizes)
