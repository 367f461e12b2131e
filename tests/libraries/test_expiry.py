"""Maintenance deletes what has expired, in steps of a bounded size, and nothing else."""

from datetime import UTC, datetime
from typing import Any

import pytest

from apps.indexing.indexer import Indexer
from apps.indexing.policy import IndexingPolicy
from apps.indexing.stats import library_stats
from apps.indexing.upkeep import delete_expired_rows, run_upkeep
from apps.libraries.inputs import ChunksWrite, DocumentInput, LibraryCreate
from apps.libraries.models import Chunk, Document, Embedding
from apps.libraries.services.chunks import upsert_chunks
from apps.libraries.services.documents import create_document
from apps.libraries.services.libraries import create_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)


def chunks(prefix: str, count: int, expires_at: datetime | None = None) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{i}", "embedding": [1.0, 0.0], "expires_at": expires_at} for i in range(count)]


@pytest.fixture(autouse=True)
def library() -> None:
    """A library in which 14 chunks and 2 documents have expired."""
    for library_id in ("a", "b"):
        create_library(create=LibraryCreate(id=library_id, name="A", dimension=2))
    some = [*chunks("gone", 5, PAST), *chunks("later", 2, FUTURE), *chunks("ever", 2)]
    upsert_chunks(library_id="a", write=ChunksWrite.model_validate({"chunks": some}))
    upsert_chunks(library_id="b", write=ChunksWrite.model_validate({"chunks": chunks("gone", 3, PAST)}))
    for document_id, expires_at in (("dead", PAST), ("empty", PAST), ("living", None), ("later", FUTURE)):
        document = {"id": document_id, "expires_at": expires_at, "chunks": chunks(f"in-{document_id}", 3)}
        create_document(library_id="a", document=DocumentInput.model_validate(document))


def test_what_has_expired_is_deleted_in_steps() -> None:
    Chunk.objects.filter(document__public_id="empty").delete()
    rows = Chunk.objects.count() + Document.objects.count()
    policy = IndexingPolicy(expired_batch=4, expired_batches=1)
    for left in (9, 5, 1, 0):
        assert delete_expired_rows(policy) == (left == 0)
        assert Chunk.objects.count() + Document.objects.count() == rows - 13 + left
    assert sorted(Document.objects.values_list("public_id", flat=True)) == ["later", "living"]
    assert Chunk.objects.filter(public_id__contains="later").count() == 5
    assert Embedding.objects.count() == Chunk.objects.count() == 10
    assert delete_expired_rows()
    assert Chunk.objects.count() == 10


def test_upkeep_deletes_it_without_a_sweep() -> None:
    assert run_upkeep(Indexer(), is_sweep_due=False)
    assert Chunk.objects.filter(expires_at=PAST).count() == Document.objects.filter(expires_at=PAST).count() == 0
    assert Chunk.objects.count() == 10


def test_counts_are_the_same_before_and_after() -> None:
    before = library_stats(library_id="a")
    assert delete_expired_rows()
    after = library_stats(library_id="a")
    assert (before["documents"], before["chunks"]) == (after["documents"], after["chunks"]) == (2, 10)
    assert after["revision"] > before["revision"]
