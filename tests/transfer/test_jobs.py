"""Jobs go on where they were, end, and are seen by those who may see their library."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.access.keys import NewKey, create_key, revoke_key, rotate_key, update_key
from apps.access.models import AuditEntry
from apps.access.requests import SERVER, Principal, Refused, current_principal
from apps.libraries.errors import Conflict, NotFound
from apps.libraries.inputs import LibraryCreate
from apps.libraries.services.libraries import create_library
from apps.transfer import job_runner, jobs
from apps.transfer.job_kinds import JOB_KINDS
from apps.transfer.job_news import wait_for_jobs
from apps.transfer.models import Job
from tests.server import until
from tests.transfer import kinds

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _kinds(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.DATA_DIR = tmp_path
    kinds.seen.clear()
    JOB_KINDS.update(kinds.KINDS)
    yield
    for name in kinds.KINDS:
        del JOB_KINDS[name]


def run(job: Job, steps: int | None = None) -> Job:
    """Run a job, or that many steps of it."""
    begun = len(kinds.seen)
    job.refresh_from_db()
    job_runner.run_job(job, lambda: steps is not None and len(kinds.seen) - begun >= steps)
    job.refresh_from_db()
    return job


def test_a_stopped_job_goes_on_with_its_next_step_and_no_step_is_done_twice() -> None:
    job = run(jobs.create_job(kind="count", params={"to": 5}), steps=2)
    assert (job.state, job.done, job.total, job.ended_at, job.attempts) == ("running", 2, 5, None, 0)
    assert run(job, steps=1).state == "running"
    job = run(job)
    assert (job.state, job.done, job.result, kinds.seen) == ("done", 5, {"counted": 5}, [0, 1, 2, 3, 4])
    assert job.ended_at is not None


def test_jobs_of_all_kinds_are_run_until_none_is_left() -> None:
    made = [jobs.create_job(kind=kind, params={"to": 1}) for kind in ("count", "refuse", "tell")]
    elsewhere = jobs.create_job(kind="count", params={"to": 1})
    Job.objects.filter(pk=elsewhere.pk).update(folder="another")
    job_runner.run_jobs()
    states = dict(Job.objects.values_list("pk", "state"))
    assert [states[job.pk] for job in made] == ["done", "failed", "done"]
    assert states[elsewhere.pk] == "running"
    told = Job.objects.get(pk=made[2].pk)
    assert (told.done, told.total) == (3, 3)
    assert Job.objects.get(pk=made[1].pk).error == "There is no such bucket."


def test_what_starts_jobs_is_told_of_a_new_one_once_it_is_committed() -> None:
    seen: list[bool] = []

    def start() -> None:
        seen.append(Job.objects.exists())
        connections.close_all()
        raise OSError

    told = threading.Thread(target=wait_for_jobs, args=(start,))
    told.start()
    # It may not listen yet.
    until(lambda: jobs.create_job(kind="count") and not told.is_alive(), "it is told")
    assert seen == [True]


@pytest.mark.any_database
def test_a_job_that_takes_its_process_along_again_and_again_fails() -> None:
    job = jobs.create_job(kind="die")
    for _ in range(job_runner.MAX_ATTEMPTS):
        with pytest.raises(SystemExit):
            run(job)
    job = run(job)
    assert job.state == "failed"
    assert "begun 5 times" in job.error
    assert len(kinds.seen) == job_runner.MAX_ATTEMPTS


def test_a_job_that_is_cancelled_ends_before_its_next_step() -> None:
    job = run(jobs.create_job(kind="count", params={"to": 5}), steps=2)
    folder = jobs.job_folder(job.public_id)
    folder.mkdir(parents=True)
    jobs.cancel_job(job_id=job.public_id)
    jobs.cancel_job(job_id=job.public_id)  # its answer may have been lost
    job = run(job)
    assert (job.state, job.done, job.error, kinds.seen) == ("cancelled", 2, "", [0, 1])
    assert job.result == {"counted": 2}
    assert not folder.exists()
    done = run(jobs.create_job(kind="count", params={"to": 0}))
    with pytest.raises(Conflict, match="it is done"):
        jobs.cancel_job(job_id=done.public_id)


def test_imports_that_run_when_the_server_is_updated_are_bound_to_their_libraries(settings: Settings) -> None:
    settings.BACKUP_BEFORE_MIGRATE = "off"
    library = create_library(create=LibraryCreate(id="a", name="A"))
    there, gone = (jobs.create_job(kind="import", library=id) for id in ("a", "gone"))
    Job.objects.update(progress={"next": 1})
    call_command("migrate", "transfer", "0001", verbosity=0)
    call_command("migrate", verbosity=0)
    for job in there, gone:
        job.refresh_from_db()
    assert (there.state, there.library_uid) == ("running", library.uid)
    assert (gone.state, gone.error, gone.library_uid) == ("failed", "Its library was deleted.", "")


def test_a_key_sees_the_jobs_of_its_libraries_alone() -> None:
    of_docs, of_notes, of_all = (jobs.create_job(kind="count", library=name) for name in ("docs-en", "notes", ""))
    for principal, seen in (
        (Principal("everything", frozenset(["admin"])), {of_docs, of_notes, of_all}),
        (Principal("reader of all", frozenset(["read"])), {of_docs, of_notes}),
        (Principal("of some", frozenset(["admin"]), libraries=("docs-*", "other")), {of_docs}),
        (Principal("of none", frozenset(["write"]), libraries=("doc",)), set()),
    ):
        token = current_principal.set(principal)
        try:
            assert set(jobs.find_jobs()) == seen, principal
            for job in {of_docs, of_notes, of_all} - seen:
                with pytest.raises(NotFound):
                    jobs.cancel_job(job_id=job.public_id)
            if principal.name == "reader of all":
                with pytest.raises(Refused, match="needs the scope write"):
                    jobs.cancel_job(job_id=of_docs.public_id)
        finally:
            current_principal.reset(token)
    assert {job.state for job in jobs.find_jobs()} == {"running"}


def test_the_audit_trail_says_who_made_a_job() -> None:
    token = current_principal.set(Principal("of some", frozenset(["write"]), "key-1", libraries=("docs",)))
    try:
        job = jobs.create_job(kind="count", library="docs", params={"to": 1})
        jobs.cancel_job(job_id=job.public_id)
        current_principal.set(SERVER)
        jobs.create_job(kind="count", params={"to": 1})
    finally:
        current_principal.reset(token)
    found = AuditEntry.objects.values_list("action", "key_id", "library", "target")
    assert list(found) == [
        (action, "key-1", "docs", f"count {job.public_id}") for action in ("create_job", "cancel_job")
    ]


def job_of(made: NewKey, **fields: Any) -> Job:
    """A job that a key asks for."""
    token = current_principal.set(Principal("Test", frozenset(["write"]), made.row.public_id))
    try:
        return jobs.create_job(kind="count", params={"to": 5}, **fields)
    finally:
        current_principal.reset(token)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (None, "The key that asked for the job was revoked."),
        ({"expires_at": timezone.now()}, "The key that asked for the job has expired."),
        ({"scopes": "read"}, "The key that asked for the job has the scope write for the library 'docs' no longer."),
        ({"libraries": "a b*"}, "The key that asked for the job has the scope write for the library 'docs' no longer."),
    ],
)
def test_a_job_ends_with_its_key_and_what_it_has_done_stays(changes: dict[str, Any] | None, error: str) -> None:
    made = create_key(name="Test", scopes=["write"], libraries=["docs"])
    job = run(job_of(made, library="docs"), steps=2)
    assert (job.state, job.done) == ("running", 2)
    if changes is None:
        revoke_key(key_id=made.row.public_id)
    else:
        update_key(key_id=made.row.public_id, changes=changes)
    job = run(job)
    assert (job.state, job.done, job.error, job.result) == ("failed", 2, error, {"counted": 2})
    assert kinds.seen == [0, 1]


def test_a_job_that_runs_ends_before_its_next_step_when_its_key_is_revoked() -> None:
    made = create_key(name="Test", scopes=["admin"])
    job = job_of(made)

    def revoke_after_two_steps() -> bool:
        if len(kinds.seen) == 2:
            revoke_key(key_id=made.row.public_id)
        return False

    job_runner.run_job(job, revoke_after_two_steps)
    job.refresh_from_db()
    assert (job.state, job.done, job.error) == ("failed", 2, "The key that asked for the job was revoked.")


def test_a_job_of_the_server_itself_ends_when_its_key_is_no_longer_for_everything() -> None:
    made = create_key(name="Test", scopes=["admin"])
    job = run(job_of(made), steps=2)
    update_key(key_id=made.row.public_id, changes={"libraries": "docs*"})
    job = run(job)
    error = "The key that asked for the job has the scope admin for all libraries no longer."
    assert (job.state, job.done, job.error) == ("failed", 2, error)


@pytest.mark.parametrize("overlap", [0, 60])
def test_a_job_goes_on_when_its_key_is_rotated_or_may_do_more(overlap: float) -> None:
    made = create_key(name="Test", scopes=["write"], libraries=["docs"])
    job = run(job_of(made, library="docs"), steps=2)
    rotate_key(key_id=made.row.public_id, overlap_seconds=overlap)
    update_key(key_id=made.row.public_id, changes={"name": "Other", "scopes": "admin", "libraries": "d*"})
    assert run(job).state == "done"


@pytest.mark.any_database
def test_old_jobs_and_files_that_no_job_needs_are_deleted(settings: Settings) -> None:
    settings.JOB_DAYS = 30
    old, recent = (run(jobs.create_job(kind="count", params={"to": 0})) for _ in range(2))
    running = jobs.create_job(kind="count", params={"to": 1})
    Job.objects.filter(pk=old.pk).update(ended_at=timezone.now() - timedelta(days=31))
    for name in (recent.public_id, running.public_id, "written-now", "left"):
        jobs.job_folder(name).mkdir(parents=True)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(jobs.job_folder("left"), (long_ago, long_ago))
    jobs.delete_old_jobs()
    assert set(Job.objects.all()) == {recent, running}
    assert {one.name for one in jobs.job_folder("").iterdir()} == {running.public_id, "written-now"}
