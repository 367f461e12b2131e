"""What an import writes, refuses and reports, and what is left of one that was cut off."""

import json
import os
from collections.abc import Callable, Iterable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.access.keys import create_key, revoke_key
from apps.access.models import AuditEntry
from apps.access.requests import Principal, current_principal, current_request_id
from apps.libraries import selectors
from apps.libraries.errors import Invalid, ModelMismatch, NotFound
from apps.libraries.imported import Mode
from apps.libraries.inputs import LibraryCreate
from apps.libraries.models import Chunk, Document, Library
from apps.libraries.services.libraries import create_library, delete_library
from apps.transfer import rows
from apps.transfer.import_job import import_as, request_import
from apps.transfer.importing import Report, import_source, open_library
from apps.transfer.job_context import JobContext
from apps.transfer.job_runner import run_job
from apps.transfer.jobs import create_job, job_folder
from apps.transfer.models import Job
from apps.transfer.rows import Batch, ChunkData, Source

pytestmark = pytest.mark.django_db(transaction=True)

MADE = "2020-02-03T04:05:06.000007Z"


@pytest.fixture
def library() -> str:
    """An empty library of dimension 2."""
    return create_library(create=LibraryCreate(id="a", name="A", dimension=2)).public_id


def chunk(id: str, **fields: Any) -> ChunkData:
    return {"id": id, "embedding": np.array([1, 2], np.float32), **fields}  # type: ignore[typeddict-item]


def batch(*chunks: Any, documents: Any = (), **fields: Any) -> Batch:
    """A batch whose rows are at `d0`, `d1` and so on, and at `c0`, `c1`."""
    return Batch(
        {f"d{i}": one for i, one in enumerate(documents)}, {f"c{i}": one for i, one in enumerate(chunks)}, **fields
    )


def run(*batches: Batch, mode: Mode = "upsert", **options: Any) -> Report:
    *_, (report, _) = import_source(library_id="a", source=Source({}, iter(batches)), mode=mode, **options)
    return report


def refusals(report: Report) -> dict[str, list[str]]:
    """The pointer and reason of each fault, by place."""
    return {one["at"]: [f"{error['pointer']} {error['detail']}" for error in one["errors"]] for one in report.refusals}


def stored(id: str) -> dict[str, Any]:
    return selectors.chunk(library_id="a", chunk_id=id)


def test_rows_are_stored_with_their_places_and_times(library: str) -> None:
    report = run(
        batch(
            chunk("second", document_id="d", position=7, text="two", metadata={"n": [1, 1.0]}, created_at=MADE),
            chunk("first", document_id="d", position=3, embed_text="one", expires_at="2999-01-01T00:00:00Z"),
            {"id": "bare", "text": "words", "embedding": None},
            documents=[{"id": "d", "title": "T", "metadata": {"k": 1}, "created_at": MADE}],
        )
    )
    assert report == Report(created=3, documents=1)
    second, first = stored("second"), stored("first")
    assert (second["document_id"], second["position"], second["created_at"]) == ("d", 7, MADE)
    assert (second["text"], Chunk.objects.get(public_id="second").metadata) == ("two", {"n": [1, 1.0]})
    assert (first["position"], first["expires_at"]) == (3, "2999-01-01T00:00:00.000000Z")
    assert Chunk.objects.get(public_id="first").embed_text == "one"
    assert not Chunk.objects.get(public_id="bare").embeddings.exists()
    assert Document.objects.get(public_id="d").created_at.isoformat() == MADE.replace("Z", "+00:00")


def test_what_cannot_be_stored_is_reported_by_its_place_and_the_rest_goes_in(library: str) -> None:
    report = run(
        batch(
            chunk("fine"),
            chunk("long", embedding=np.ones(3, np.float32)),
            chunk("nan", embedding=np.array([1, np.nan], np.float32)),
            chunk("typed", text=5, unknown=1),
            {"id": "textless", "text": " "},
            chunk("\u200b"),
            documents=[{"id": "d", "metadata": {"a": "\0"}}],
            refused={"line 9": "is no JSON"},
        )
    )
    assert (report.created, report.documents, report.refused) == (1, 0, 7)
    assert refusals(report) == {
        "line 9": [" is no JSON"],
        "d0": ["/metadata/a must not contain the character NUL"],
        "c3": ["/text must be a string", "/unknown is not a known field"],
        "c5": ["/id must have no invisible characters, such as a zero width space or a byte order mark"],
        "c4": ["/embedding is required: this library has no embedding model; send a vector, null for none, or name the "
               "model that made the other vectors"],
        "c1": ["/embedding has 3 components, but the library's dimension is 2"],
        "c2": ["/embedding has a component that is NaN, infinite or beyond float32"],
    }  # fmt: skip


def test_the_mode_says_what_becomes_of_ids_in_use(library: str) -> None:
    run(batch(chunk("x", text="old"), documents=[{"id": "d", "title": "old"}]))
    again = batch(chunk("x", text="new"), chunk("y"), chunk("y", text="2nd"), documents=[{"id": "d", "title": "new"}])
    skip, insert = run(again, mode="skip"), run(batch(chunk("x"), documents=[{"id": "d"}]), mode="insert")
    assert (skip.created, skip.left, skip.updated, stored("x")["text"], stored("y")["text"]) == (1, 2, 0, "old", "")
    assert refusals(insert) == {"d0": ["/id is in use"], "c0": ["/id is in use"]}
    upsert = run(again)
    assert (upsert.created, upsert.updated, upsert.documents) == (0, 3, 1)
    assert (stored("x")["text"], stored("y")["text"], Document.objects.get().title) == ("new", "2nd", "new")
    # As a file has it that names the document with each of its chunks.
    assert run(batch(chunk("z"), documents=[{"id": "d", "title": "new"}]), mode="insert").refused == 0


def test_a_batch_and_what_is_noted_of_it_are_stored_together(library: str) -> None:
    batches = [batch(chunk("x"), next=1), batch(chunk("y"), chunk("z", text=1), next=2), batch(chunk("w"), next=3)]
    noted: list[tuple[int, Report]] = []
    refused: set[str] = set()

    def note(report: Report, batch: Batch, places: Iterable[str]) -> None:
        noted.append((batch.next, report))
        refused.update(places)

    def fail(report: Report, batch: Batch, places: Iterable[str]) -> None:
        if batch.next == 2:
            raise OSError
        note(report, batch, places)

    with pytest.raises(OSError):
        run(*batches, save=fail)
    assert set(Chunk.objects.values_list("public_id", flat=True)) == {"x"}
    next, report = noted[-1]
    after = run(*batches[next:], save=note, report=Report.of(report.data()))
    assert (after.created, after.refused, noted[-1]) == (3, 1, (3, after))
    assert [one["at"] for one in after.refusals] == list(refused)


def test_a_library_is_made_as_its_rows_need_it_and_another_is_refused(library: str) -> None:
    row = open_library(
        "new", {"id": "old", "name": "N", "dimension": 2, "metric": "dot", "embedding": None}, create=True
    )
    assert (row.public_id, row.name, row.dimension, row.metric, row.embedding) == ("new", "N", 2, "dot", None)
    hashing = {"provider": "hashing", "model": "hashing-64"}
    assert open_library("hashed", {"embedding": hashing}, create=True).dimension == 64
    with pytest.raises(Invalid, match="have 3 components, and those of the library 'a' 2"):
        open_library("a", {"dimension": 3}, create=True)
    reasons = "id must be a string .* without '/', white space .*; metric must be one of 'cosine', 'dot' or 'euclidean'"
    with pytest.raises(Invalid, match=rf"The library 'an id' cannot be made: {reasons}\."):
        open_library("an id", {"metric": "taxi"}, create=True)
    with pytest.raises(Invalid, match="compared by dot, and those of the library 'a' by cosine"):
        open_library("a", {"metric": "dot"}, create=False)
    with pytest.raises(ModelMismatch, match="hashing-128, and the library 'hashed' has those of hashing hashing-64"):
        open_library("hashed", {"embedding": hashing | {"model": "hashing-128"}}, create=False)
    wrong = np.ones(3, np.float32)
    with pytest.raises(Invalid, match="do not fit the library 'a': each has 3 components"):
        run(batch(chunk("x", embedding=wrong), chunk("y", embedding=wrong)))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_job_whose_library_is_deleted_ends_and_writes_nothing_to_another_of_its_id(
    library: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(path: Path) -> None:
        path.write_text("".join(f'{{"id": "{i}", "embedding": [1, 2]}}\n' for i in range(6)))

    monkeypatch.setattr(rows, "ROWS_PER_BATCH", 2)
    job = request_import(library_id="a", format="jsonl", mode="upsert", create=False, columns={}, put=put)
    asked = iter([False] * steps)
    run_job(job, lambda: next(asked, True))
    job.refresh_from_db()
    assert (job.state, Chunk.objects.count()) == ("running", 2 * steps)
    delete_library(library_id="a")
    ended = Job.objects.get()
    assert (ended.state, ended.result.get("created", 0)) == ("failed", 2 * steps)
    assert ended.error.startswith("The library 'a' was deleted.")
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    # A worker that has read the job before, and one that finds it running, as after a deletion by other means.
    for _ in range(2):
        run_job(job)
        ended.refresh_from_db()
        assert (ended.state, Chunk.objects.count()) == ("failed", 0)
        Job.objects.update(state="running")
        job.refresh_from_db()


def test_a_step_under_way_when_its_library_is_deleted_and_made_again_is_undone(library: str) -> None:
    job = create_job(kind="import", library="a")
    context = JobContext(job)
    context.bind(Library.objects.get())
    source = Source({}, iter([batch(chunk("x")), batch(chunk("y"))]))
    steps = import_as(context, source, "upsert")
    next(steps)
    delete_library(library_id="a")
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    Job.objects.update(state="running")
    with pytest.raises(NotFound, match="was deleted"):
        next(steps)
    assert Chunk.objects.count() == 0


def put_rows(dimension: int, metric: str) -> Callable[[Path], None]:
    """What makes a file of a library of dimension 2 whose vectors have another one, or that."""
    head = {"library": {"name": "N", "dimension": 2, "metric": metric}, "format": 1}
    chunks = [{"id": f"{i}", "embedding": [1.0] * dimension} for i in range(2)]
    lines = [head, *chunks, {"end": {"documents": 0, "chunks": 2}}]

    def put(path: Path) -> None:
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    return put


def test_the_audit_trail_has_what_an_import_wrote_before_its_key_was_revoked(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(path: Path) -> None:
        path.write_text("".join(f'{{"id": "{i}", "embedding": [1, 2], "document_id": "d"}}\n' for i in range(6)))

    def ask(key_id: str) -> Job:
        current_principal.set(Principal("Test", frozenset(["write"]), key_id))
        current_request_id.set(f"request of {key_id}")
        return request_import(library_id="a", format="jsonl", mode="upsert", create=False, columns={}, put=put)

    monkeypatch.setattr(rows, "ROWS_PER_BATCH", 2)
    made = create_key(name="Test", scopes=["write"])
    job = copy_context().run(ask, made.row.public_id)
    asked = iter([False] * 2)
    run_job(job, lambda: next(asked, True))
    assert Chunk.objects.count() == 4
    revoke_key(key_id=made.row.public_id)
    job.refresh_from_db()
    run_job(job)
    job.refresh_from_db()
    assert (job.state, job.error) == ("failed", "The key that asked for the job was revoked.")
    assert (Chunk.objects.count(), job.result["created"]) == (4, 4)
    found = AuditEntry.objects.values_list("action", "count", "key_id", "name", "library", "target", "request_id")
    who = (made.row.public_id, "Test", "a", f"import {job.public_id}", f"request of {made.row.public_id}")
    assert list(found) == [("create_job", None, *who), ("end_job", 5, *who)]


def test_an_import_that_fails_deletes_the_empty_library_that_it_has_made() -> None:
    def ask(put: Callable[[Path], None]) -> Job:
        return request_import(library_id="new", format="jsonl", mode="upsert", create=True, columns={}, put=put)

    job = ask(put_rows(3, "cosine"))
    assert Library.objects.get().public_id == "new"
    run_job(job)
    job.refresh_from_db()
    assert (job.state, Library.objects.count()) == ("failed", 0)
    assert job.error.startswith("The vectors do not fit the library 'new'")
    assert job.error.endswith("The library 'new', which the job had made, was deleted: it was empty.")
    job = ask(put_rows(2, "dot"))
    run_job(job)
    job.refresh_from_db()
    assert (job.state, Chunk.objects.count(), Library.objects.get().metric) == ("done", 2, "dot")


def test_an_import_that_fails_leaves_a_library_that_is_used_or_that_it_has_not_made() -> None:
    def ask(dimension: int) -> Job:
        put = put_rows(dimension, "cosine")
        return request_import(library_id="new", format="jsonl", mode="upsert", create=True, columns={}, put=put)

    first, second = ask(3), ask(3)
    # Another import waits for it.
    run_job(first)
    assert Library.objects.count() == 1
    # It has found it.
    run_job(second)
    assert Library.objects.count() == 1
    delete_library(library_id="new")
    third = ask(3)
    run_rows = import_source(library_id="new", source=Source({}, iter([batch(chunk("x"))])))
    next(run_rows)
    run_job(third)
    assert Chunk.objects.count() == 1
    assert list(Job.objects.values_list("state", flat=True)) == ["failed"] * 3


def test_a_file_that_has_lost_its_end_is_not_taken_for_whole(library: str) -> None:
    def put(path: Path) -> None:
        path.write_bytes(b'{"id": "x", "embedding": [1, 2]}\n{"id": "y", "embedding": [1, 2]}\n')

    job = request_import(library_id="a", format="jsonl", mode="upsert", create=False, columns={}, put=put)
    os.truncate(job_folder(job.public_id) / "file", 33)
    run_job(job)
    job.refresh_from_db()
    assert (job.state, Chunk.objects.count()) == ("failed", 0)
    assert job.error.startswith("The file is not whole any more")
