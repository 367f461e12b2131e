"""What HTTP does not show of the services: whom they tell, and when; what they store; how many statements they take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.libraries import selectors
from apps.libraries.errors import Conflict, Invalid, NotFound
from apps.libraries.inputs import ChunksWrite, ChunkUpdate, DocumentInput, DocumentUpdate, LibraryCreate, LibraryUpdate
from apps.libraries.models import Change, Chunk, Document, Embedding, Library
from apps.libraries.services import chunks, documents, libraries
from apps.libraries.services.sql import lock_library
from apps.libraries.signals import library_changed, library_deleted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def library() -> Library:
    """An empty library of dimension 2."""
    return libraries.create_library(create=LibraryCreate(id="a", name="A", dimension=2))


def rows(*ids: str, **fields: Any) -> ChunksWrite:
    return ChunksWrite.model_validate({"chunks": [{"id": i, "embedding": [1, 2]} for i in ids]} | fields)


def document(*ids: str, text: str = "") -> DocumentInput:
    return DocumentInput.model_validate({"chunks": [{"id": i, "text": text, "embedding": [1, 2]} for i in ids]})


@contextmanager
def told() -> Iterator[list[tuple[str, int]]]:
    """What the caches of this process are told meanwhile, with the key of the library."""
    heard: list[tuple[str, int]] = []

    def changed(library_key: int, **kwargs: Any) -> None:
        heard.append(("changed", library_key))

    def deleted(library_key: int, **kwargs: Any) -> None:
        heard.append(("deleted", library_key))

    library_changed.connect(changed)
    library_deleted.connect(deleted)
    try:
        yield heard
    finally:
        library_changed.disconnect(changed)
        library_deleted.disconnect(deleted)


WRITES: dict[str, Callable[[], object]] = {
    "upsert": lambda: chunks.upsert_chunks(library_id="a", write=rows("x", "y", "new")),
    "update": lambda: chunks.update_chunk(library_id="a", chunk_id="x", update=ChunkUpdate(metadata={"n": 1})),
    "delete one": lambda: chunks.delete_chunk(library_id="a", chunk_id="x"),
    "delete": lambda: chunks.delete_chunks(library_id="a", ids=["x", "y"]),
    "replace": lambda: documents.replace_document(library_id="a", document_id="d", document=document("in-d", "more")),
    "rename": lambda: documents.update_document(library_id="a", document_id="d", update=DocumentUpdate(title="D")),
    "delete document": lambda: documents.delete_document(library_id="a", document_id="d"),
}


@pytest.fixture
def filled(library: Library) -> Library:
    """A library with two chunks that stand alone, and one in a document."""
    chunks.upsert_chunks(library_id="a", write=rows("x", "y"))
    documents.replace_document(library_id="a", document_id="d", document=document("in-d"))
    return library


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_caches_are_told_once_and_after_the_commit(filled: Library, write: Callable[[], object]) -> None:
    with told() as heard:
        with transaction.atomic():
            write()
            assert heard == []
        assert heard == [("changed", filled.pk)]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nobody_is_told_of_what_was_rolled_back(filled: Library, write: Callable[[], object]) -> None:
    before = Change.objects.count()
    with told() as heard, transaction.atomic():
        write()
        transaction.set_rollback(True)
    assert heard == []
    assert Change.objects.count() == before
    assert set(Chunk.objects.values_list("public_id", flat=True)) == {"x", "y", "in-d"}


def test_the_caches_are_told_of_a_deleted_library(filled: Library) -> None:
    key = filled.pk
    with told() as heard:
        libraries.delete_library(library_id="a")
    assert heard[-1] == ("deleted", key)


def test_the_caches_are_told_of_what_the_admin_saves(filled: Library) -> None:
    with told() as heard:
        Chunk.objects.get(public_id="x").save()
        filled.save()
    assert heard == [("changed", filled.pk)] * 2


def test_a_receiver_that_fails_fails_no_write(library: Library) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a cache is broken")

    library_changed.connect(fail)
    try:
        chunks.upsert_chunks(library_id="a", write=rows("x"))
    finally:
        library_changed.disconnect(fail)
    assert Chunk.objects.count() == 1


def test_a_library_is_locked_in_a_transaction_only(library: Library) -> None:
    with pytest.raises(transaction.TransactionManagementError, match="needs a transaction"):
        lock_library("a")
    with transaction.atomic():
        assert lock_library("a") == library
        with pytest.raises(NotFound, match="There is no library 'b'"):
            lock_library("b")


def test_vectors_are_stored_as_little_endian_float32(library: Library) -> None:
    write = {"chunks": [{"id": "x", "embedding": [0.1, -2]}]}
    chunks.upsert_chunks(library_id="a", write=ChunksWrite.model_validate(write))
    blob = bytes(Embedding.objects.get().vector)
    assert blob == bytes.fromhex("cdcccc3d000000c0")
    assert Embedding.objects.get().generation == library.generation == 1


def test_keys_ascend_in_the_order_of_the_request(library: Library) -> None:
    names = [str(i) for i in np.random.default_rng(0).permutation(1500)]
    chunks.upsert_chunks(library_id="a", write=rows(*names))
    assert list(Chunk.objects.order_by("pk").values_list("public_id", flat=True)) == names
    documents.create_document(library_id="a", document=document("z", "b", "y"))
    assert list(Chunk.objects.order_by("pk").values_list("public_id", flat=True)) == [*names, "z", "b", "y"]


def test_each_written_chunk_is_logged_and_no_other(filled: Library) -> None:
    newest = Change.objects.latest("seq").seq
    chunks.upsert_chunks(library_id="a", write=rows("y", "new"))
    written = set(Chunk.objects.filter(public_id__in=["y", "new"]).values_list("pk", flat=True))
    assert set(Change.objects.filter(seq__gt=newest).values_list("chunk_key", flat=True)) == written


def test_a_document_put_again_unchanged_writes_no_chunk(filled: Library) -> None:
    newest = Change.objects.latest("seq").seq
    replaced, _ = documents.replace_document(library_id="a", document_id="d", document=document("in-d"))
    assert [replaced[name] for name in ("unchanged", "updated", "created", "deleted")] == [1, 0, 0, 0]
    assert Change.objects.latest("seq").seq == newest


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda: chunks.upsert_chunks(library_id="a", write=rows("new", "x", mode="insert")), Conflict),
        (lambda: chunks.update_chunks(library_id="a", write=rows("x", "new", mode="update")), NotFound),
        (lambda: chunks.upsert_chunks(library_id="a", write=rows("new", "new")), Invalid),
        (lambda: documents.create_document(library_id="a", document=document("new", "x")), Conflict),
        (lambda: documents.replace_document(library_id="a", document_id="d", document=document("new", "x")), Conflict),
        (lambda: libraries.update_library(library_id="a", update=LibraryUpdate(index_params={"m": 1})), Invalid),
    ],
)
def test_what_is_refused_is_not_written_in_part(
    filled: Library, write: Callable[[], object], error: type[Exception]
) -> None:
    def state() -> list[Any]:
        models = (Library, Document, Chunk, Embedding, Change)
        return [list(model.objects.order_by("pk").values_list()) for model in models]

    before = state()
    with told() as heard, pytest.raises(error):
        write()
    assert heard == []
    assert state() == before


def statements(write: Callable[[], object]) -> int:
    """How many statements a write takes; many rows in one `executemany` are one."""
    with CaptureQueriesContext(connection) as queries:
        write()
    return len(queries)


def test_a_write_of_many_chunks_takes_few_statements(library: Library) -> None:
    few, many = [f"few-{i}" for i in range(2)], [f"many-{i}" for i in range(2000)]
    for _ in ("insert", "replace"):
        cost = statements(lambda: chunks.upsert_chunks(library_id="a", write=rows(*few)))
        # An INSERT or UPDATE writes at least 250 rows, chunks and embeddings each.
        assert (
            statements(lambda: chunks.upsert_chunks(library_id="a", write=rows(*many))) <= cost + 2 * len(many) // 250
        )
    assert statements(lambda: chunks.delete_chunks(library_id="a", ids=many)) < 12
    assert Chunk.objects.count() == 2


def test_many_chunks_are_replaced_each_by_its_own(library: Library) -> None:
    numbers = range(600)
    for turn in ("first", "second"):
        many = [{"id": str(n), "text": f"{turn} {n}", "metadata": {"n": n}, "embedding": [n, 1]} for n in numbers]
        chunks.upsert_chunks(library_id="a", write=ChunksWrite.model_validate({"chunks": many}))
    stored = Chunk.objects.order_by("pk").values_list("public_id", "text", "metadata", "position", "expires_at")
    assert list(stored) == [(str(n), f"second {n}", {"n": n}, None, None) for n in numbers]


def test_deleting_a_library_loads_none_of_its_rows(library: Library) -> None:
    chunks.upsert_chunks(library_id="a", write=rows(*[f"c{i}" for i in range(300)]))
    documents.create_document(library_id="a", document=document(*[f"d{i}" for i in range(300)]))
    with CaptureQueriesContext(connection) as queries:
        libraries.delete_library(library_id="a")
    tables = ("chunk", "document", "embedding")
    assert not [query for query in queries if any(f'"{table}"' in query["sql"] for table in tables)]
    assert len(queries) < 10
    assert Chunk.objects.count() == Embedding.objects.count() == Document.objects.count() == 0


CLOCKS = {"stands still": timedelta(0), "is set back": timedelta(seconds=-2)}
EDITS: dict[str, tuple[list[str], Callable[[], object]]] = {
    "a chunk's text": (
        ["chunk", "document"],
        lambda: chunks.update_chunk(
            library_id="a", chunk_id="in-d", update=ChunkUpdate(text="other", embedding=[1, 2])
        ),
    ),
    "a chunk's vector": (
        ["chunk", "document"],
        lambda: chunks.update_chunk(library_id="a", chunk_id="in-d", update=ChunkUpdate(embedding=[2, 1])),
    ),
    "the order of chunks": (
        ["document"],
        lambda: documents.replace_document(library_id="a", document_id="d", document=document("last", "in-d")),
    ),
    "a document": (
        ["document"],
        lambda: documents.update_document(library_id="a", document_id="d", update=DocumentUpdate(title="D")),
    ),
    "a library": (
        ["library"],
        lambda: libraries.update_library(library_id="a", update=LibraryUpdate(description="D")),
    ),
}


@pytest.mark.parametrize("step", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize(("tagged", "edit"), EDITS.values(), ids=EDITS)
def test_an_edit_changes_the_tag_whatever_the_clock_says(
    library: Library, monkeypatch: pytest.MonkeyPatch, step: timedelta, tagged: list[str], edit: Callable[[], object]
) -> None:
    def tags() -> dict[str, str]:
        row = selectors.document_row(library_id="a", document_id="d")
        return {
            "library": selectors.etag(selectors.library_data(selectors.library_row("a"))),
            "document": selectors.document_etag(row),
            "chunk": selectors.etag(selectors.chunk(library_id="a", chunk_id="in-d")),
        }

    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    documents.replace_document(library_id="a", document_id="d", document=document("in-d", "last"))
    before = tags()
    assert tags() == before
    monkeypatch.setattr(timezone, "now", lambda: now + step)
    edit()
    after = tags()
    assert [name for name in tagged if after[name] == before[name]] == []


def test_chunks_change_later_each_time(filled: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    seen = []
    for seconds in (0.5, 0, 0, -7200, 3):
        monkeypatch.setattr(timezone, "now", lambda seconds=seconds: now + timedelta(seconds=seconds))
        chunks.update_chunk(library_id="a", chunk_id="x", update=ChunkUpdate(metadata={"s": seconds}))
        seen.append(Chunk.objects.get(public_id="x").updated_at)
    assert sorted(set(seen)) == seen
    assert seen[0] == now + timedelta(seconds=0.5)
    assert seen[3] - seen[0] < timedelta(seconds=0.1)
    assert seen[4] == now + timedelta(seconds=3)
