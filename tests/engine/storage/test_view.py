"""A view equals a dictionary of its rows after every step, and stays as it was however many steps follow."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apps.engine.metadata import Attributes
from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import And, parse_filter
from apps.engine.metadata.paths import CREATED_AT
from apps.engine.metadata.values import key_of
from apps.engine.metrics import Metric
from apps.engine.storage.row_data import Row
from apps.engine.storage.view import View
from apps.engine.text.analyzer import parse_query
from apps.engine.vectors import Float32, Int64
from tests.engine.data import bounded, expiry_of, ranking, rows_of, seeds, without_zeros

DIMENSION = 3
NO_KEYS = np.empty(0, np.int64)
# By key; None for a row without a vector.
Rows = dict[int, Float32 | None]


def keys_of(keys: Iterable[int]) -> Int64:
    return np.array(sorted(keys), np.int64)


def matrix(rows: Iterable[Float32]) -> Float32:
    return np.array(list(rows), np.float32).reshape(-1, DIMENSION)


def arrays(rows: Mapping[int, Float32 | None]) -> dict[str, Any]:
    """The rows as a view takes them, in the order of the dictionary."""
    embedded = {key: row for key, row in rows.items() if row is not None}
    keys, vectors = np.array(list(embedded), np.int64), matrix(embedded.values())
    vectors.flags.writeable = False
    bare_keys = np.array([key for key, row in rows.items() if row is None], np.int64)
    return {
        "keys": keys,
        "vectors": vectors,
        "rows": rows_of(keys),
        "bare_keys": bare_keys,
        "bare_rows": rows_of(bare_keys),
    }


def build(rows: Mapping[int, Float32 | None], metric: Metric = Metric.EUCLIDEAN) -> View:
    return View.build(dimension=DIMENSION, metric=metric, **arrays(dict(sorted(rows.items()))))


def advance(view: View, rows: Mapping[int, Float32 | None], gone: Iterable[int] = ()) -> View:
    # A view need not get its changes sorted.
    return view.apply(**arrays(rows), gone=np.array(list(gone), np.int64))


class Expected:
    """The answers that a view of `rows` must give, for as long as it lives."""

    def __init__(self, metric: Metric, queries: Float32, rows: Mapping[int, Float32 | None]) -> None:
        embedded = {key: row for key, row in sorted(rows.items()) if row is not None}
        keys, vectors = keys_of(embedded), matrix(embedded.values())
        self._queries = queries
        self._rankings = [keys[ranking(metric, vectors, query)].tolist() for query in queries]
        self._all = sorted(rows)
        self._above = [key for key in self._all if key >= 1000]
        self._some = np.random.default_rng(len(keys)).permutation(keys_of(rows))[:25]

    def assert_of(self, view: View) -> None:
        count = len(self._rankings[0])
        assert (len(view), view.bare) == (len(self._all), len(self._all) - count)
        for k in (1, 7, count + 5):
            for hits, expected in zip(view.search(self._queries, k), self._rankings, strict=True):
                assert hits.keys.tolist() == expected[:k]
                assert hits.exact
                assert hits.compared == count
        at_least = parse_filter({"key": {"$gte": 1000}})
        some = view.matching(at_least)
        assert view.keys(some).tolist() == self._above
        assert view.lookup(self._some).matches(at_least).tolist() == (self._some >= 1000).tolist()
        assert view.lookup(self._some).numbers("key").tolist() == self._some.tolist()
        assert view.lookup(self._some).times(CREATED_AT).tolist() == (self._some / 1e6).tolist()
        for hits, expected in zip(view.search(self._queries, 7, allowed=some), self._rankings, strict=True):
            assert hits.keys.tolist() == [key for key in expected if key >= 1000][:7]
        embedded = view.keys(view.with_vectors(some)).tolist()
        assert embedded == sorted(key for key in self._rankings[0] if key >= 1000)
        assert sorted(view.search_text(parse_query("row"), len(view) + 1).keys.tolist()) == self._all
        assert [value for value, _ in view.facets("key", view.matching(And(())), ValuePage(len(view)))[0]] == self._all


class ViewMachine(RuleBasedStateMachine):
    """Steps of a library: any rows written, deleted and written again, few or many at a time."""

    @initialize(metric=st.sampled_from(Metric), rows=st.sampled_from([0, 1, 30, 2500]), seed=seeds)
    def load(self, metric: Metric, rows: int, seed: int) -> None:
        self.metric, self.rng = metric, np.random.default_rng(seed)
        self.queries = self.rng.standard_normal((2, DIMENSION)).astype(np.float32)
        self.rows: Rows = dict(zip(range(1, 2 * rows, 2), self.some_rows(rows), strict=True))
        self.unused = 2 * rows
        self.old: list[tuple[View, Expected]] = []
        self.view = build(self.rows, metric)
        self.expected = Expected(metric, self.queries, self.rows)

    def vectors(self, count: int) -> Float32:
        """New vectors; many are equal, so that there are ties between segments and tail."""
        some = self.rng.integers(-1, 2, (count, DIMENSION)).astype(np.float32)
        some[self.rng.random(count) < 0.5] *= np.float32(1.1)
        return without_zeros(some)

    def some_rows(self, count: int) -> list[Float32 | None]:
        """New vectors, and none for some rows."""
        return [None if self.rng.random() < 0.2 else vector for vector in self.vectors(count)]

    def some_keys(self, count: int) -> list[int]:
        """Keys of live rows."""
        return self.rng.choice(keys_of(self.rows), min(count, len(self.rows)), replace=False).tolist()

    def new_keys(self, count: int) -> list[int]:
        self.unused += count
        return list(range(self.unused - count, self.unused))

    def step(self, rows: Mapping[int, Float32 | None], gone: Iterable[int] = ()) -> None:
        gone = list(gone)
        self.old.append((self.view, self.expected))
        self.view = advance(self.view, rows, gone)
        for key in gone:
            self.rows.pop(key, None)
        self.rows |= rows
        self.expected = Expected(self.metric, self.queries, self.rows)

    @rule(
        new=st.sampled_from([0, 1, 3, 70, 1500]), replaced=st.sampled_from([0, 1, 5, 1100]), deleted=st.integers(0, 5)
    )
    def write(self, new: int, replaced: int, deleted: int) -> None:
        keys = self.some_keys(replaced + deleted)
        changed = [*keys[deleted:], *self.new_keys(new)]
        self.rng.shuffle(changed)
        self.step(dict(zip(changed, self.some_rows(len(changed)), strict=True)), gone=keys[:deleted])

    @rule(count=st.sampled_from([1, 10, 1100]))
    def delete(self, count: int) -> None:
        self.deleted = self.some_keys(count)
        # A key that has no row is no mistake: its chunk came and went between two queries.
        self.step({}, gone=[*self.deleted, *self.new_keys(1)])

    @precondition(lambda self: hasattr(self, "deleted"))
    @rule()
    def put_back(self) -> None:
        keys = [key for key in self.deleted if key not in self.rows]
        self.step(dict(zip(keys, self.some_rows(len(keys)), strict=True)))

    @rule(count=st.sampled_from([1, 20, 1100]))
    def take_vectors_away(self, count: int) -> None:
        self.step(dict.fromkeys(self.some_keys(count)))

    @rule()
    def write_unchanged(self) -> None:
        self.step({key: self.rows[key] for key in self.some_keys(20)})

    @precondition(lambda self: self.rows)
    @rule()
    def swap_two(self) -> None:
        keys = self.some_keys(2)
        self.step({key: self.rows[other] for key, other in zip(keys, reversed(keys), strict=True)})

    @rule()
    def delete_all(self) -> None:
        self.deleted = list(self.rows)
        self.step({}, gone=self.deleted)

    @invariant()
    def the_view_equals_its_rows(self) -> None:
        self.expected.assert_of(self.view)

    @rule(times=st.lists(st.integers(-1, 400), min_size=1, max_size=6))
    def let_time_pass_and_step_back(self, times: list[int]) -> None:
        for now in [*times, times[0]]:
            left = {key: row for key, row in self.rows.items() if expiry_of(key) > now}
            Expected(self.metric, self.queries, left).assert_of(self.view.at(now))

    @invariant()
    def dead_rows_are_few(self) -> None:
        parts = len(self.view.segments) + 2
        assert self.view.dead < 1024 * parts + (len(self.view) + self.view.dead) / 4

    @invariant()
    def old_views_answer_as_before(self) -> None:
        del self.old[:-6]
        for view, expected in self.old[::5]:
            expected.assert_of(view)


TestViewMachine = ViewMachine.TestCase
TestViewMachine.settings = settings(bounded(50), stateful_step_count=20)


def numbered(keys: Iterable[int]) -> dict[int, Float32]:
    """Rows that lie on a line, each at its key."""
    return {key: np.array([key, 0, 0], np.float32) for key in keys}


def bare(keys: Iterable[int]) -> dict[int, None]:
    """Rows without vectors."""
    return dict.fromkeys(keys)


def nearest(view: View, at: float, k: int = 1) -> list[int]:
    return view.search(np.array([[at, 0, 0]], np.float32), k)[0].keys.tolist()


def test_an_empty_view_has_no_answers_and_may_grow() -> None:
    empty = build({})
    assert (len(empty), nearest(empty, 0)) == (0, [])
    assert nearest(advance(empty, numbered([5, 3])), 4, k=9) == [3, 5]


def test_a_small_change_shares_what_did_not_change() -> None:
    view = build(numbered(range(2000)))
    for key in range(0, 500, 5):
        after = advance(view, numbered([key + 10_000]), gone=[key])
        assert after.segments[0].index is view.segments[0].index
        assert after.segments[0].matrix is view.segments[0].matrix
        assert after.built_at == view.built_at
        view = after
    assert (len(view), view.dead) == (2000, 100)
    assert view.nbytes >= 2000 * (DIMENSION * 4 + 4 + 8)


def test_dead_rows_give_their_memory_back() -> None:
    view = build(numbered(range(5000)))
    held = view.nbytes
    view = advance(view, {}, gone=range(1, 4000))
    assert (len(view), view.dead) == (1001, 0)
    assert view.nbytes < held / 2
    for _ in range(10):
        view = advance(view, {key: row + np.float32(0.25) for key, row in numbered(range(9000, 9800)).items()})
        view = advance(view, numbered(range(9000, 9800)))
    assert (len(view), nearest(view, 9000.1), nearest(view, 0)) == (1801, [9000], [0])
    assert view.dead < 2 * 1024


def test_rows_that_are_one_segment_already_are_taken_as_they_are() -> None:
    view = build(numbered(range(100)))
    [segment] = view.flush()
    assert segment.matrix is view.segments[0].matrix
    for steps, keys in (
        ([([], [3])], [*range(3), *range(4, 100)]),
        ([([200], [])], [*range(100), 200]),
        ([([200], range(100))], [200]),
        ([([200], []), ([], [200])], [*range(100)]),
    ):
        other = build(numbered(range(100)))
        for new, gone in steps:
            other = advance(other, numbered(new), gone=gone)
        [segment] = other.flush()
        assert segment.keys.tolist() == keys
        assert segment.matrix.vectors[:, 0].tolist() == keys
        assert len(segment.matrix) == len(segment.row_data) == len(keys)


def test_equal_vectors_tie_by_key_between_segment_and_tail() -> None:
    row = np.array([0.3, 0.7, -0.1], np.float32)
    view = advance(build({2: row, 4: row, 6: row}), {5: row, 3: row, 1: row})
    [hits] = view.search(row[None], 6)
    assert hits.keys.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(set(hits.scores.tolist())) == 1
    assert view.search(row[None], 2)[0].keys.tolist() == [1, 2]


def test_values_are_counted_over_segment_and_tail() -> None:
    view = advance(build(numbered(range(10))), numbered([3, 12, 11]), gone=[0])
    some = view.matching(parse_filter({"key": {"$lt": 12}}))
    assert view.facets("key", some, ValuePage(3)) == ([(1, 1), (2, 1), (3, 1)], 10)
    assert view.facets("key", some, ValuePage(100))[0][-1] == (11, 1)
    assert view.facets("none", some, ValuePage(3)) == ([], 0)


def test_a_view_of_a_time_is_kept_until_the_next_row_expires() -> None:
    view = build(numbered(range(100)))
    assert view.at(-1) is view
    # The rows of 1, 4 and 7 expire at 0, those of 10 to 19 at 1.
    first = view.at(0)
    assert (len(first), first.dead) == (97, 3)
    assert view.at(1) is view.at(1) is not first
    assert (len(view.at(1)), len(view.at(9)), len(view)) == (93, 67, 100)
    assert view.at(10**9) is view.at(9)
    assert (len(view.at(0)), view.at(-1)) == (97, view)


def test_parts_without_rows_that_expire_are_shared() -> None:
    view = advance(build(numbered(range(0, 90, 3))), numbered([100, 101]))
    assert view.at(9) is view
    after = view.at(10)
    assert after.segments == view.segments
    assert (len(after), nearest(after, 100)) == (len(view) - 1, [101])
    assert build(numbered(range(0, 90, 3))).at(10**15).dead == 0


def test_rows_without_vectors_are_found_by_all_but_vectors() -> None:
    view = advance(build(numbered([1, 2]) | bare([3, 4])), bare([1, 5]) | numbered([3]), gone=[4])
    assert (len(view), view.bare) == (4, 2)
    assert nearest(view, 0, k=9) == [2, 3]
    assert view.search(np.zeros((1, 3), np.float32), 9)[0].compared == 2
    every = view.matching(parse_filter({}))
    assert view.keys(every).tolist() == [1, 2, 3, 5]
    assert view.search_text(parse_query("row"), 9).keys.tolist() == [1, 2, 3, 5]
    assert view.facets("key", every, ValuePage(9)) == ([(1, 1), (2, 1), (3, 1), (5, 1)], 4)
    embedded, others = view.flush()
    assert (embedded.keys.tolist(), others.keys.tolist()) == ([2, 3], [1, 5])
    assert (embedded.kind, others.kind) == ("brute_force", "none")


def test_a_library_without_vectors_has_a_view() -> None:
    rows = arrays(bare(range(3))) | {"vectors": np.empty((0, 0), np.float32)}
    view = View.build(dimension=0, metric=Metric.COSINE, **rows)
    assert (len(view), view.bare) == (3, 3)
    assert view.search_text(parse_query("row"), 9).keys.tolist() == [0, 1, 2]
    assert [segment.kind for segment in view.flush()] == ["none"]


def test_keys_are_of_64_bits() -> None:
    row, largest = np.ones(DIMENSION, np.float32), 2**63 - 1
    view = advance(build({1: row, largest - 1: row}), {largest: row})
    assert nearest(view, 0, k=9) == [1, largest - 1, largest]
    assert nearest(advance(view, {}, gone=[largest - 1]), 0, k=9) == [1, largest]


def test_a_view_takes_arrays_that_cannot_be_written_to() -> None:
    keys, vectors = np.arange(5), np.ones((5, DIMENSION), np.float32)
    for array in (keys, vectors):
        array.flags.writeable = False
    view = View.build(dimension=DIMENSION, metric=Metric.DOT, keys=keys, vectors=vectors, rows=rows_of(keys))
    assert nearest(advance(view, {}, gone=[0]), 1) == [1]


def test_no_reader_can_write_to_the_rows_that_views_share() -> None:
    view = advance(build({}), numbered([1, 2]))
    for array in (view.tail.keys, view.tail.matrix.vectors, view.tail.matrix.norms):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_threads_search_old_views_while_new_ones_are_made() -> None:
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((3, DIMENSION)).astype(np.float32)
    rows = dict(zip(range(1500), rng.standard_normal((1500, DIMENSION)).astype(np.float32), strict=True))
    view = build(rows)
    published = [(view, Expected(Metric.EUCLIDEAN, queries, dict(rows)))]
    done = threading.Event()
    failures: list[BaseException] = []

    def read(seed: int) -> None:
        chosen = np.random.default_rng(seed)
        try:
            while not done.is_set():
                old, expected = published[int(chosen.integers(max(0, len(published) - 40), len(published)))]
                expected.assert_of(old)
        except BaseException as failure:
            failures.append(failure)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    try:
        for step in range(100):
            # As many rows as make the shared tail outgrow its buffer now and then, and be copied for its dead rows.
            keys = rng.choice(3000, 40, replace=False).tolist()
            written = dict(zip(keys[:30], rng.standard_normal((30, DIMENSION)).astype(np.float32), strict=True))
            view = advance(view, written, gone=keys[30:])
            rows = {key: row for key, row in rows.items() if key not in keys[30:]} | written
            published.append((view, Expected(Metric.EUCLIDEAN, queries, rows)))
            if step % 50 == 49:
                published[-1][1].assert_of(view)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not failures, failures[0]
    for old, expected in published[::10]:
        expected.assert_of(old)


def test_a_value_is_that_of_the_row_as_the_view_knows_it() -> None:
    """In a segment, in the tail, and where a later view has replaced or deleted the row."""
    vector = np.ones((1, DIMENSION), np.float32)

    def write(view: View, key: int, metadata: str) -> View:
        row = Row(Attributes(str(key), None, 0, metadata), "")
        return view.apply(keys=np.array([key]), vectors=vector, rows=[row], gone=NO_KEYS)

    [segment] = write(write(build({}), 1, '{"n": 1}'), 2, "{}").flush()
    first = View.of(dimension=DIMENSION, metric=Metric.EUCLIDEAN, segments=(segment,), built_at=0.0)
    second = write(write(first, 3, '{"n": 3.5}'), 1, '{"n": [1]}')
    third = write(second, 3, '{"n": "3"}').apply(keys=NO_KEYS, vectors=vector[:0], rows=[], gone=np.array([1]))
    one, two, three = (
        view.lookup(np.array(keys)) for view, keys in ((first, [1, 2]), (second, [3, 2, 1]), (third, [3, 2]))
    )
    assert one.keys_of_values("n") == [key_of(1), None]
    assert two.keys_of_values("n") == [key_of(3.5), None, key_of([1])]
    assert three.keys_of_values("n") == [key_of("3"), None]
    assert two.numbers("n").tolist() == [3.5, np.inf, np.inf]
    assert two.matches(parse_filter({"n": 1})).tolist() == [False, False, True]


@pytest.mark.parametrize("keys", [[5, 6, 7, 8], [2, 5, 8, 40]])
def test_rows_are_looked_up_in_one_segment_whether_keys_have_gaps_or_not(keys: list[int]) -> None:
    rows = [Row(Attributes(str(key), None, 0, f'{{"n": {key}}}'), "") for key in keys]
    vectors = np.ones((len(keys), DIMENSION), np.float32)
    view = View.build(dimension=DIMENSION, metric=Metric.DOT, keys=np.array(keys), vectors=vectors, rows=rows)
    some = [keys[3], keys[0], keys[2]]
    assert view.lookup(np.array(some)).numbers("n").tolist() == some
