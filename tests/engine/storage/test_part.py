"""Live rows of several parts as one."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from apps.engine.array_files import SCRATCH_BYTES, scratch_array
from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric
from apps.engine.storage.part import live_rows, vectors_at
from apps.engine.storage.segment import Segment
from tests.engine.data import sealed_rows_of


def test_many_vectors_are_copied_to_a_file_that_has_no_name(tmp_path: Path) -> None:
    dimension, rows = 1024, 5000
    vectors = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
    assert vectors.nbytes > SCRATCH_BYTES
    order = np.random.default_rng(1).permutation(rows)
    parts = []
    for half in np.sort(order[: rows // 2]), np.sort(order[rows // 2 :]):
        matrix = Matrix(vectors[half], Metric.DOT)
        parts.append(Segment.build(keys=half, matrix=matrix, row_data=sealed_rows_of(half)))
    keys, places = live_rows(parts)
    tracemalloc.start()
    copied = vectors_at(parts, places, tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 << 20
    assert (copied == vectors[keys]).all()
    assert list(tmp_path.iterdir()) == []


def test_where_files_cannot_be_allocated_an_array_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr(os, "posix_fallocate")
    array = scratch_array(tmp_path, (2, SCRATCH_BYTES), np.uint8)
    array[1] = 7
    assert (array[1] == 7).all()
