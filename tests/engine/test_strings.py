"""Strings are ranked as Python sorts them, and found as by its bisection."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from apps.engine.strings import Strings, rank
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
@given(strings, strings, st.integers(0, 20), st.integers(0, 20), st.sampled_from([np.uint32, np.uint64]))
def test_each_string_is_found_where_it_is(
    held: list[bytes], others: list[bytes], first: int, count: int, kind: type[np.unsignedinteger]
) -> None:
    ordered = sorted(set(held))
    found = Strings.of(ordered)
    found = Strings(found.text, found.starts.astype(kind))
    first = min(first, len(ordered))
    last = min(first + count, len(ordered))
    wanted = [*ordered, *others, *ordered[:2]]
    expected = [ordered.index(one) for one in wanted if one in ordered[first:last]]
    assert found.find_each(wanted, first, last) == expected
    with numpy_only():
        assert found.find_each(wanted, first, last) == expected
