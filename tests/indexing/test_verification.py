"""What `verify_index` finds, and what it costs."""

import io
import threading
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections

from apps.engine.indexes import registry
from apps.engine.indexes.base import NO_PARAMS, Params
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.matrix import Neighbors
from apps.engine.metadata import Attributes
from apps.engine.metrics import Metric
from apps.engine.storage.row_data import Row
from apps.engine.storage.view import View
from apps.engine.vectors import DTYPE, Float32, Mask
from apps.indexing.indexer import Indexer
from apps.indexing.verification import Report, Rows, count_differing, verify_library
from apps.libraries.errors import NotFound
from apps.libraries.inputs import ChunksWrite, LibraryCreate
from apps.libraries.models import Change, Chunk, Embedding, Library
from apps.libraries.services.chunks import delete_chunks, upsert_chunks
from apps.libraries.services.libraries import create_library
from apps.search.loading import DEFAULT_POLICY, LoadingPolicy
from tests.search.chunks import noise, upsert
from tests.search.database import execute

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


@pytest.fixture(autouse=True)
def index_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "INDEX_DIR", tmp_path / "index")


def make(rows: int, dimension: int = 3) -> None:
    create = LibraryCreate(id="a", name="A", dimension=dimension, metric="euclidean", index_type="brute_force")
    create_library(create=create)
    vectors = np.random.default_rng(1).standard_normal((rows, dimension))
    for first in range(0, rows, 1000):
        upsert({f"c{first + i}": vector for i, vector in enumerate(vectors[first : first + 1000])})
    assert Indexer().run_until_done("a") is None


def verify(sample: int = 10, policy: LoadingPolicy = DEFAULT_POLICY) -> Report:
    """Compare library a, some rows at a time."""
    return verify_library(library_id="a", sample=sample, k=3, policy=policy, rows_at_once=7)


def without_the_log_of(sql: str, *params: object) -> None:
    """Change rows so that nobody learns of it."""
    last = Change.objects.latest("seq").seq
    execute(sql, *params)
    execute("DELETE FROM vectordb_change WHERE seq > %s", last)


def test_rows_that_are_missing_too_many_or_of_another_vector_are_counted() -> None:
    make(50)
    keys = list(Chunk.objects.order_by("pk").values_list("pk", flat=True))
    assert verify().faults == 0
    other = np.zeros(3, DTYPE).tobytes()
    without_the_log_of("UPDATE vectordb_embedding SET vector = %s WHERE chunk_id IN (%s, %s)", other, keys[0], keys[49])
    assert verify().faults == 2
    without_the_log_of("DELETE FROM vectordb_embedding WHERE chunk_id = %s", keys[20])
    report = verify()
    assert (report.rows, report.faults, report.searched) == (50, 3, "brute_force")
    last = Change.objects.latest("seq").seq
    Embedding.objects.create(chunk_id=keys[20], generation=1, vector=other)
    chunk = Chunk.objects.create(library=Library.objects.get(), public_id="new")
    Embedding.objects.create(chunk=chunk, generation=1, vector=other)
    execute("DELETE FROM vectordb_change WHERE seq > %s", last)
    report = verify()
    assert (report.rows, report.faults) == (51, 4)


@pytest.mark.parametrize(
    ("sql", "unequal"),
    [
        ("UPDATE vectordb_chunk SET text = 'of others' WHERE public_id = 'c7'", ("words",)),
        ("UPDATE vectordb_chunk SET text = 'Same, words' WHERE public_id = 'c7'", ()),
        ("""UPDATE vectordb_chunk SET metadata = '{"n": 1}' WHERE public_id = 'c7'""", ("metadata",)),
        ("""UPDATE vectordb_chunk SET metadata = '{"tags": [1.0, 2], "n": 7.0}' WHERE public_id = 'c7'""", ()),
        ("UPDATE vectordb_chunk SET public_id = 'd7' WHERE public_id = 'c7'", ("metadata",)),
        ("UPDATE vectordb_chunk SET created_at = updated_at WHERE public_id = 'c7'", ("metadata",)),
        ("""UPDATE vectordb_chunk SET metadata = '{}', text = '' WHERE public_id = 'c7'""", ("metadata", "words")),
    ],
)
def test_metadata_and_words_that_differ_are_reported(sql: str, unequal: tuple[str, ...]) -> None:
    make(20)
    metadata = {"n": 7, "tags": [1, 2]}
    chunks = [{"id": f"c{i}", "embedding": [i, 1, 1], "text": "same words", "metadata": metadata} for i in range(5, 25)]
    upsert_chunks(library_id="a", write=ChunksWrite.model_validate({"chunks": chunks}))
    execute("UPDATE vectordb_chunk SET updated_at = %s WHERE public_id = 'c7'", datetime(2030, 1, 1, tzinfo=UTC))
    delete_chunks(library_id="a", ids=["c6"])
    assert Indexer().run_until_done("a") is None
    upsert(noise(["c1", "c24"], seed=3))
    assert verify(5).unequal == ()
    without_the_log_of(sql)
    report = verify(5)
    assert (report.rows, report.faults, report.unequal) == (24, 0, unequal)


def test_rows_that_are_in_no_file_yet_and_those_that_were_deleted_are_compared_too() -> None:
    make(30)
    upsert(noise([f"c{i}" for i in range(20, 40)], seed=5))
    delete_chunks(library_id="a", ids=["c1", "c2", "c39"])
    report = verify_library(library_id="a", sample=40, k=40)
    assert (report.rows, report.faults, report.recall) == (37, 0, 1.0)


class Nearest(BruteForce):
    """A type whose index finds the nearest row only: of a stored vector, the row itself."""

    kind = "nearest"

    def search(
        self,
        queries: Float32,
        k: int,
        allowed: Mask | None = None,
        params: Params = NO_PARAMS,
        sure: int | None = None,
    ) -> Neighbors:
        return super().search(queries, 1, allowed)


def test_a_row_is_no_neighbour_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.INDEX_TYPES, "nearest", f"{__name__}:Nearest")
    make(50)
    execute("UPDATE vectordb_library SET index_type = 'nearest'")
    assert Indexer().run_until_done("a") is None
    report = verify_library(library_id="a", sample=20, k=1)
    assert (report.faults, report.searched, report.recall) == (0, "nearest", 0.0)


@pytest.mark.parametrize(("rows", "recall"), [(1, None), (2, 1.0), (5, 1.0)])
def test_recall_is_of_the_other_rows_that_there_are(rows: int, recall: float | None) -> None:
    make(rows)
    assert verify_library(library_id="a", sample=10, k=10).recall == recall


def test_a_library_that_is_written_to_meanwhile_is_compared_in_one_state() -> None:
    make(100)
    done, failures = threading.Event(), []

    def write() -> None:
        try:
            step = 0
            while not done.is_set():
                step += 1
                upsert(noise([f"c{(step * 37 + i) % 150}" for i in range(10)], seed=step))
                delete_chunks(library_id="a", ids=[f"c{(step * 53 + i) % 150}" for i in range(5)])
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        revisions = set()
        for _ in range(20):
            report = verify(5, LoadingPolicy(page_rows=20))
            assert (report.faults, report.recall) == (0, 1.0)
            revisions.add(report.rows)
        assert len(revisions) > 1
    finally:
        done.set()
        writer.join()
    assert not failures, failures[0]


def test_a_library_that_is_not_there_is_reported() -> None:
    with pytest.raises(NotFound):
        verify_library(library_id="a", sample=5, k=3)


class _Deleting(io.StringIO):
    """Deletes library b when something is written."""

    def write(self, text: str) -> int:
        Library.objects.filter(public_id="b").delete()
        return super().write(text)


@pytest.mark.parametrize("command", ["verify_index", "rebuild_index"])
def test_a_library_that_is_deleted_meanwhile_stops_no_command(command: str) -> None:
    for name in "abc":
        create_library(create=LibraryCreate(id=name, name=name, dimension=3))
        upsert(noise(["x", "y"]), name)
    call_command(command, stdout=(written := _Deleting()))
    assert [line.split(":")[0] for line in written.getvalue().splitlines()] == ["a", "c"]
    with pytest.raises(CommandError, match="There is no library 'b'"):
        call_command(command, "b")


def test_comparing_needs_little_memory() -> None:
    vectors = np.random.default_rng(0).standard_normal((20_000, 128)).astype(np.float32)
    rows = [Row(Attributes("c", None, 0, b"{}"), "")] * len(vectors)
    keys = np.arange(len(vectors))
    one, other = (
        View.build(dimension=128, metric=Metric.EUCLIDEAN, keys=keys, vectors=vectors, rows=rows) for _ in range(2)
    )
    tracemalloc.start()
    try:
        assert count_differing(Rows(one), keys, Rows(other), keys, 512) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < vectors.nbytes / 3
