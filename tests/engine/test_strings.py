"""Strings are ranked as Python sorts them, and found as by its bisection."""

from contextlib import nullcontext
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from apps.engine.strings import PackedStrings, Strings, rank
from tests.engine.data import bounded
from tests.engine.numpy_only import numpy_only

# Beginnings that are alike for several rounds, ends that padding could be taken for, and more strings than are few.
strings = st.lists(
    st.builds(bytes.__add__, st.sampled_from([b"", b"\0", b"same for long", b"\0" * 7]), st.binary(max_size=9)),
    max_size=40,
)


@bounded(100)
@example([b""], 1, 0)
@example([b"same for long a", b"same for long b", b"other for long c", b"other for long d"], 200, 0)
@given(strings, st.integers(1, 300), st.integers(0, 2))
def test_ranks_are_those_of_sorted_strings(some: list[bytes], times: int, groups: int) -> None:
    some = some * times
    given_groups = [i % (groups + 1) for i in range(len(some))]
    pairs = list(zip(given_groups, some, strict=True))
    distinct = sorted(set(pairs))
    ranks, equal = rank(Strings.of(some), np.array(given_groups, np.int64) if groups else None)
    assert [distinct[i] for i in ranks.tolist()] == pairs
    assert [pairs[i] for i in equal.tolist()] == distinct
    assert Strings.of(some).take(equal).some(0, len(equal)) == [string for _, string in distinct]


@bounded(100)
@example([b"same for long"] * 40, [0, 0, 39], np.uint32)
@example([b"x" * 300] * 20, [19], np.uint16)
@given(strings, st.lists(st.integers(0, 39)), st.sampled_from([np.uint16, np.uint32]))
def test_packed_strings_are_what_was_packed(
    some: list[bytes], places: list[int], kind: type[np.unsignedinteger[Any]]
) -> None:
    packed = pack(some, kind)
    packed.check()
    assert len(packed) == len(some)
    assert [packed[i] for i in range(len(some))] == some
    places = [place for place in places if place < len(some)]
    for start in range(0, len(some) + 1, 7):
        assert packed.some(start, len(some)) == some[start:]
    for context in (nullcontext(), numpy_only()):
        with context:
            assert packed.unpack(0, len(some)).some(0, len(some)) == some
            taken = packed.take(np.array(places, np.int64))
            assert taken.some(0, len(places)) == [some[place] for place in places]


def test_packed_strings_have_what_neighbours_share_once_and_long_ones_wide_places() -> None:
    ids = [b"report-2026-%06d" % i for i in range(1_600)]
    packed = PackedStrings.pack(Strings.of(ids))
    assert packed.ends.dtype == np.uint16
    assert sum(array.nbytes for array in (packed.text, packed.blocks, packed.prefixes, packed.ends)) < 7 * len(ids)
    assert packed.some(0, len(ids)) == ids
    long = [b"a" * 5_000 + b"%02d" % i for i in range(40)]
    packed = PackedStrings.pack(Strings.of(long))
    assert packed.ends.dtype == np.uint32
    assert packed.some(0, len(long)) == long


def pack(some: list[bytes], kind: type[np.unsignedinteger[Any]]) -> PackedStrings:
    """The strings, packed, their ends of one type."""
    found = PackedStrings.pack(Strings.of(some))
    return PackedStrings(found.text, found.blocks, found.prefixes, found.ends.astype(kind))


@bounded(100)
@given(strings, strings, st.integers(0, 20), st.integers(0, 20), st.sampled_from([np.uint16, np.uint32]))
def test_each_string_is_found_where_it_is(
    held: list[bytes], others: list[bytes], first: int, count: int, kind: type[np.unsignedinteger[Any]]
) -> None:
    ordered = sorted(set(held))
    found = pack(ordered, kind)
    first = min(first, len(ordered))
    last = min(first + count, len(ordered))
    wanted = [*ordered, *others, *ordered[:2]]
    expected = [ordered.index(one) for one in wanted if one in ordered[first:last]]
    assert found.find_each(wanted, first, last) == expected
    with numpy_only():
        assert found.find_each(wanted, first, last) == expected
