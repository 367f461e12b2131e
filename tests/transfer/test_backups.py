"""A backup is one state of the database, whole, or it is none; a restore is all of it, or nothing."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from apps.telemetry.slots import try_lock
from apps.transfer import job_runner
from apps.transfer.backups import catalog
from apps.transfer.backups.make import make_backup
from apps.transfer.backups.manifest import Manifest
from apps.transfer.backups.restore import restore_backup, serving_lock
from apps.transfer.backups.stores import FolderStore, open_store
from apps.transfer.errors import TransferError
from apps.transfer.models import Job

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

VENDOR = connection.vendor
COPY = "database.sqlite3" if VENDOR == "sqlite" else "database.dump"


@pytest.fixture(autouse=True)
def data_folder(settings: Settings, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path / "own"
    settings.DATA_DIR.mkdir()
    settings.BACKUP_URL = ""
    return settings.DATA_DIR


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "backups")


@pytest.fixture
def made(store: FolderStore) -> Manifest:
    """A backup of a database with a job, which is gone from the database."""
    Job.objects.create(kind="in the backup")
    made = make_backup(store=store, reason="request")
    Job.objects.all().delete()
    return made


def change(**values: Any) -> Callable[[Path], None]:
    """Set values of a manifest."""

    def write(backup: Path) -> None:
        file = backup / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return write


def flip(backup: Path) -> None:
    """Change a bit of the copy."""
    content = bytearray((backup / COPY).read_bytes())
    content[len(content) // 2] ^= 1
    (backup / COPY).write_bytes(content)


def cut(backup: Path) -> None:
    (backup / COPY).write_bytes((backup / COPY).read_bytes()[:-1000])


def be_foreign(backup: Path) -> None:
    (backup / "manifest.json").write_text('{"tables": ["users"]}')


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda backup: (backup / "manifest.json").unlink(), "it has no manifest.json"),
        (be_foreign, r"is no backup of this server.*\(format\)"),
        (change(format=2), r"or of another version.*\(format\)"),
        (
            change(migrations=[["libraries", "0099_later"]], server="9.0"),
            r"newer version .* 9\.0.* libraries\.0099_later",
        ),
        (change(database={"sqlite": "postgresql", "postgresql": "sqlite"}[VENDOR]), "Export and import"),
        (cut, "it is cut"),
        (flip, "its SHA-256 is not"),
        (lambda backup: (backup / COPY).unlink(), "is not there"),
        (lambda backup: shutil.rmtree(backup), "it has no manifest.json"),
    ],
)
def test_what_is_no_whole_backup_of_ours_is_refused_by_one_sentence(
    harm: Callable[[Path], None], sentence: str, store: FolderStore, made: Manifest
) -> None:
    backup = store.folder / made.id
    harm(backup)
    with pytest.raises(TransferError, match=sentence):
        restore_backup(source=str(backup), force=True)
    assert not Job.objects.exists()
    assert [one.name for one in store.folder.iterdir() if one.name != made.id] == []


def test_a_database_that_is_not_empty_is_replaced_by_force_alone(store: FolderStore, made: Manifest) -> None:
    source = f"{store.folder}/{made.id}/"
    with pytest.raises(TransferError, match=r"is not empty\. With --force"):
        restore_backup(source=source, force=False)
    assert not Job.objects.exists()
    assert restore_backup(source=source, force=True) == made
    [job] = Job.objects.all()
    # It must not go on with files that are not there.
    assert (job.kind, job.state) == ("in the backup", "failed")


def test_neither_a_server_nor_another_restore_may_use_the_folder(
    store: FolderStore, made: Manifest, data_folder: Path
) -> None:
    for lock in (serving_lock(), try_lock(data_folder / "serving.lock")):
        with lock, pytest.raises(TransferError, match="A server or another restore uses"):
            restore_backup(source=str(store.folder / made.id), force=True)
    with try_lock(data_folder / "serving.lock"), serving_lock() as is_free:
        assert not is_free


@pytest.mark.sqlite
def test_a_disk_that_fills_up_leaves_nothing_of_the_backup(small_disk: Path) -> None:
    Job.objects.create(kind="large", params={"text": "x" * (6 << 20)})

    def fill(done: int, total: int) -> None:
        with (small_disk / "filler").open("ab") as file:
            file.write(b"\0" * (60 << 20))

    with pytest.raises(OSError, match="No space left"):
        make_backup(store=FolderStore(small_disk / "backups"), reason="request", advance=fill)
    assert list((small_disk / "backups").iterdir()) == []
    with pytest.raises(OSError, match=r"it needs \d+ MB, and its disk has 0"):
        make_backup(store=FolderStore(small_disk / "backups"), reason="request")
    Job.objects.create(kind="written afterwards")


@pytest.mark.any_database
def test_a_place_that_cannot_be_written_fails_the_job(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings.BACKUP_URL = str(tmp_path / "file" / "backups")
    job = catalog.request_backup(is_tested=False)
    job_runner.run_jobs()
    job.refresh_from_db()
    assert job.state == "failed"
    assert re.fullmatch(r".*/file/backups.* cannot be used: Not a directory\.", job.error)


@pytest.mark.any_database
def test_a_backup_that_is_cancelled_leaves_nothing(data_folder: Path) -> None:
    job = catalog.request_backup(is_tested=False)
    assert catalog.request_backup(is_tested=False) == job
    assert catalog.request_backup(is_tested=True) != job

    def cancel() -> bool:
        Job.objects.filter(pk=job.pk).update(state="cancelled")
        return False

    job_runner.run_job(job, cancel)
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert list((data_folder / "backups").iterdir()) == []


@pytest.mark.any_database
def test_the_schedule_makes_a_backup_when_the_last_one_is_old_and_keeps_some(settings: Settings) -> None:
    settings.BACKUP_INTERVAL_HOURS, settings.BACKUP_KEEP = 24, 2
    asked = catalog.request_backup(is_tested=True)
    for _ in range(3):
        for _ in range(2):
            catalog.request_backup_if_due()
            job_runner.run_jobs()
        Job.objects.update(
            created_at=timezone.now() - timedelta(hours=25), ended_at=timezone.now() - timedelta(hours=25)
        )
    assert set(Job.objects.values_list("state", flat=True)) == {"done"}
    assert Job.objects.count() == 3
    asked.refresh_from_db()
    reasons = {one["id"]: one["reason"] for one in catalog.list_backups(limit=10, after=()).items}
    assert sorted(reasons.values()) == ["request", "schedule", "schedule"]
    assert reasons[asked.result["backup"]] == "request"


@pytest.mark.any_database
def test_lists_have_pages(store: FolderStore, settings: Settings) -> None:
    settings.BACKUP_URL = str(store.folder)
    made = [make_backup(store=store, reason="request").id for _ in range(3)]
    shutil.copytree(store.folder / made[0], store.folder / "backup-20990101T000000000")
    change(format=2)(store.folder / "backup-20990101T000000000")  # of a version to come
    first = catalog.list_backups(limit=2, after=())
    assert first.next_key is not None
    rest = catalog.list_backups(limit=2, after=first.next_key)
    assert [one["id"] for one in first.items + rest.items] == made


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of S3 on this machine, and credentials for it in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-s3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield
    server.stop()


@pytest.mark.any_database
@pytest.mark.usefixtures("s3")
def test_s3_keeps_backups_as_a_folder_does(settings: Settings, data_folder: Path) -> None:
    import fsspec

    settings.BACKUP_URL = "s3://bucket/backups"
    Job.objects.create(kind="in the backup", folder="elsewhere")
    absent = catalog.request_backup(is_tested=True)
    job_runner.run_jobs()
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    job = catalog.request_backup(is_tested=True)
    job_runner.run_jobs()
    absent.refresh_from_db()
    assert absent.state == "failed"
    assert "s3://bucket/backups cannot be used: The specified bucket does not exist" in absent.error
    job.refresh_from_db()
    assert job.error == ""
    [backup] = catalog.list_backups(limit=10, after=()).items
    assert backup["id"] == job.result["backup"]
    assert list((data_folder / "backups").iterdir()) == []
    Job.objects.all().delete()
    restore_backup(source=f"s3://bucket/backups/{backup['id']}", force=True)
    assert Job.objects.filter(kind="in the backup").exists()
    catalog.delete_backup(backup_id=backup["id"])
    assert catalog.list_backups(limit=10, after=()).items == []
    assert "secret-of-s3" not in repr(list(Job.objects.values()))


@pytest.mark.any_database
def test_a_place_without_its_library_names_what_to_install() -> None:
    with pytest.raises(TransferError, match=r"gs://bucket needs a library that is not installed.*gcsfs"):
        open_store("gs://bucket")
    with pytest.raises(TransferError, match="must hold no password"):
        open_store("sftp://user:secret@host/backups")
