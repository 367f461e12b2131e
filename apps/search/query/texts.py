"""Conditions on the texts of chunks: texts are read from the database, in the request's snapshot, where the rest of a
filter does not decide. A request pays for each text, and for its length."""

from collections.abc import Iterator

import numpy as np

from apps.engine.metadata.filters import Filter, HasKey
from apps.engine.metadata.texts import bounds, replace_text_conditions, text_conditions, text_test
from apps.engine.storage.view import View
from apps.engine.vectors import Int64
from apps.search.query.budget import PER_1000_CHARACTERS_AND_CONDITION, PER_READ_TEXT, RequestBudget
from apps.search.snapshots import Snapshot

_ROWS_PER_READ = 100, 2000
# Fewer rows are read at once where their texts are longer together.
_CHARACTERS_PER_READ = 1 << 20
# What a test of an empty text costs, in characters.
_CHARACTERS_PER_TEST = 100


def decide_texts(
    view: View, filter: Filter, snapshot: Snapshot, budget: RequestBudget, among: Int64 | None = None
) -> Filter:
    """A filter that matches what `filter` does, in `view`, of the chunks `among` (None: all), and that has no condition
    on texts. Raises Invalid or TooSlow past the budget."""
    tests = [(condition, text_test(condition)) for condition in text_conditions(filter)]
    if not tests:
        return filter
    at_least, at_most = bounds(filter)
    decided = view.matching(at_least)
    keys = view.keys([mask & ~other for mask, other in zip(view.matching(at_most), decided, strict=True)])
    if among is not None:
        keys = np.intersect1d(keys, among)
    budget.spend(PER_READ_TEXT * len(keys))
    matching: dict[object, list[int]] = {condition: [] for condition, _ in tests}
    for texts in _read_texts(snapshot, keys):
        characters = sum(len(text) + _CHARACTERS_PER_TEST for _, text in texts)
        budget.spend(PER_1000_CHARACTERS_AND_CONDITION * characters * len(tests) // 1000)
        budget.check_time()
        for condition, test in tests:
            matching[condition] += [key for key, text in texts if test(text)]
    return replace_text_conditions(filter, lambda condition: HasKey(np.array(matching[condition], np.int64)))


def _read_texts(snapshot: Snapshot, keys: Int64) -> Iterator[list[tuple[int, str]]]:
    """The keys and texts of the chunks `keys`, some at a time."""
    start, (size, largest) = 0, _ROWS_PER_READ
    while start < len(keys):
        some = keys[start : start + size].tolist()
        marks = ", ".join(["%s"] * len(some))
        texts = snapshot.rows(f"SELECT id, text FROM vectordb_chunk WHERE id IN ({marks})", some)
        yield texts
        start += size
        is_short = sum(len(text) for _, text in texts) < _CHARACTERS_PER_READ
        size = min(4 * size, largest) if is_short else _ROWS_PER_READ[0]
