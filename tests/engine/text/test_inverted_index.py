"""A built, a merged and a loaded index return the same; files that do not fit each other are refused."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.text.analyzer import TextQuery
from apps.engine.text.inverted_index import InvertedIndex
from tests.engine.data import bounded
from tests.engine.text.plain_bm25 import Row, divided, pairs, part, plain, queries, row_lists, search


@bounded(150)
@given(rows=row_lists(), cuts=st.lists(st.integers(0, 30), max_size=3), query=queries(), data=st.data())
def test_merged_and_saved_parts_answer_as_one_that_was_built(
    rows: list[Row], cuts: list[int], query: TextQuery, data: st.DataObject
) -> None:
    parts = [InvertedIndex.build([row.text for row in piece]) for piece in divided(rows, cuts)]
    shuffled = data.draw(st.permutations(range(len(rows))))
    order = shuffled[: data.draw(st.integers(0, len(rows)))]
    kept = [rows[i] for i in order]
    merged = InvertedIndex.merge(parts, np.array(order, np.int64))
    built = InvertedIndex.build([row.text for row in kept])
    assert len(merged) == len(kept)
    assert merged.nbytes == built.nbytes, "words of rows that were left out are gone"
    with tempfile.TemporaryDirectory() as name:
        merged.save(Path(name))
        loaded = InvertedIndex.load(Path(name))
        expected = plain(kept, query, 40)
        for index in (merged, built, loaded):
            hits = search([part(kept, index)], query, 40)
            assert (pairs(hits), hits.matched) == expected
        again = InvertedIndex.merge([loaded], np.arange(len(kept)))
        assert pairs(search([part(kept, again)], query, 40)) == expected[0]


def _saved(folder: Path) -> dict[str, np.ndarray]:
    InvertedIndex.build(["a b a", "", "c"]).save(folder)
    return {path.stem: np.load(path) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["words", "ends", "rows", "frequencies", "tokens", "lengths"])
def test_files_that_do_not_fit_are_refused(name: str, tmp_path: Path) -> None:
    array = _saved(tmp_path)[name]
    path = tmp_path / f"{name}.npy"
    whole = path.read_bytes()
    for wrong in (array[..., :-1], array.astype(np.float32), array[None], np.append(array, array)):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=r"\.npy"):
            InvertedIndex.load(tmp_path)
    for damaged in (b"", whole[:-1], b"x" * 200):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            InvertedIndex.load(tmp_path)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        InvertedIndex.load(tmp_path)
    path.write_bytes(whole)
    assert len(InvertedIndex.load(tmp_path)) == 3


def test_an_index_says_what_it_holds(tmp_path: Path) -> None:
    index = InvertedIndex.build(["a b a", "c", ""])
    index.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    loaded = InvertedIndex.load(tmp_path)
    assert (len(loaded), loaded.tokens, loaded.lengths.tolist()) == (3, 4, [3, 1, 0])
    assert loaded.nbytes == index.nbytes == 3 + 2 * 4 * 8 + 3 * 4 + 3 + 4 * 4 + 3 * 4
    assert loaded.locate([b"a", b"b", b"c", b"d", b""]) == [0, 1, 2, -1, -1]
