"""A backup is one state of the database, whole, or it is none; a restore is all of it, or nothing."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import fsspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from fsspec.implementations.local import LocalFileSystem
from pytest_django.fixtures import Settings

from apps.access.models import AuditEntry
from apps.libraries.dialects import dialect_of
from apps.libraries.errors import Conflict
from apps.telemetry.slots import try_lock
from apps.transfer import job_runner
from apps.transfer.backups import catalog
from apps.transfer.backups.make import back_up_before_migration, make_backup
from apps.transfer.backups.manifest import Manifest
from apps.transfer.backups.restore import restore_backup, serving_lock
from apps.transfer.backups.stores import FolderStore, local_store, open_store, split_source
from apps.transfer.errors import TransferError
from apps.transfer.job_context import JobCancelled
from apps.transfer.models import Job
from tests.limits import files_of_at_most
from tests.server import Server

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
        (be_foreign, r"is no backup of this server.*\(format\)\. The newest in .*: none\.$"),
        (change(format=2), r"or of another version.*\(format\)"),
        (
            change(migrations=[["libraries", "0099_later"]], server="9.0"),
            r"newer version .*, 9\.0: this one does not know libraries\.0099_later\.",
        ),
        (
            change(migrations=[["libraries", "0099_later"]]),
            r"newer version of the server: this one does not know libraries\.0099_later\.",
        ),
        (change(database={"sqlite": "postgresql", "postgresql": "sqlite"}[VENDOR]), "Export and import"),
        (cut, "it is cut"),
        (flip, "its SHA-256 is not"),
        (lambda backup: (backup / COPY).unlink(), "is not there"),
        (lambda backup: shutil.rmtree(backup), r"^There is no /.*/backups/backup-\d+T\d+\. The newest in .*: none\.$"),
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


def test_of_two_that_make_one_backup_the_second_leaves_the_first_alone(store: FolderStore) -> None:
    """As of one millisecond."""
    with store.new_folder("backup-1") as folder:
        (folder / "copy").touch()
        with pytest.raises(TransferError, match="Another process makes backup-1"), store.new_folder("backup-1"):
            pass
        assert (folder / "copy").exists()


def test_tables_that_are_missing_in_a_restored_copy_are_named_however_many(store: FolderStore, made: Manifest) -> None:
    copied, rows = store.folder / made.id / COPY, {f"absent_{i}": 0 for i in range(5_000)}
    [fault] = dialect_of(connection).check_copy(connection, copied, rows, is_restored=True)
    assert "absent_0" in fault


@pytest.mark.any_database
def test_a_backup_is_found_by_its_id_in_both_places_and_a_wrong_one_lists_those_there_are(
    store: FolderStore, made: Manifest, settings: Settings
) -> None:
    settings.BACKUP_URL, absent = store.shown, "backup-20260101T000000000"
    local = make_backup(store=local_store(), reason="migration")
    assert [split_source(one.id)[0].shown for one in (local, made)] == [local_store().shown, store.shown]
    of_local = f"The newest in {local_store().shown}: {local.id}."
    of_store = f"The newest in {store.shown}: {made.id}."
    for source, listed in (
        (absent, f"{of_local} {of_store}"),
        (f"{store.folder}/{absent}", of_store),
        ("yesterday", f"{of_local} {of_store}"),
    ):
        with pytest.raises(TransferError, match=r"^There is no /|is no backup") as refused:
            restore_backup(source=source, force=True)
        assert str(refused.value).endswith(f" {listed}")


@pytest.mark.any_database
@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_a_backup_is_restored_from_a_folder_of_another_name_whatever_its_manifest_says(
    scheme: str, store: FolderStore, made: Manifest
) -> None:
    """What a manifest says becomes no path."""
    monday = (store.folder / made.id).rename(store.folder / "monday")
    change(id="../../elsewhere")(monday)
    assert restore_backup(source=f"{scheme}{monday}", force=True).backup.id == "monday"
    assert Job.objects.filter(kind="in the backup").exists()


@pytest.mark.parametrize("source", ["monday", "s3://bucket", "s3://bucket/"])
def test_what_names_neither_a_backup_nor_a_folder_is_not_looked_for(source: str) -> None:
    with pytest.raises(TransferError, match=f"^{source} is no backup: name the folder or the URL of one"):
        split_source(source)


def test_what_begins_at_the_root_is_a_folder(settings: Settings, tmp_path: Path) -> None:
    settings.BACKUP_URL = str(tmp_path)
    for source in ("/backup-20260101T000000000", "file:///backup-20260101T000000000"):
        assert split_source(source)[0].shown == "/"


def test_a_file_of_a_backup_is_refused_and_its_folder_named(store: FolderStore, made: Manifest) -> None:
    backup = store.folder / made.id
    sentence = f"{backup / COPY} is a file, and a backup is a folder. Name {backup} for the one it is in."
    with pytest.raises(TransferError, match=f"^{re.escape(sentence)}$"):
        restore_backup(source=str(backup / COPY), force=True)


@pytest.mark.any_database
def test_a_folder_by_a_url_is_made_as_one_by_a_path_and_both_are_private(tmp_path: Path) -> None:
    for scheme in ("", "file://"):
        folder = tmp_path / f"of {scheme.rstrip(':/')}" / "backups"
        made = make_backup(store=open_store(f"{scheme}{folder}"), reason="request")
        modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
        assert modes == {"backups": 0o700, made.id: 0o700, COPY: 0o600, "manifest.json": 0o600}


@pytest.mark.parametrize("place", ["memory://x", "dir::memory://x"])
def test_a_place_that_ends_with_the_process_is_refused(place: str, settings: Settings) -> None:
    sentence = f"{place} is in the memory of this process, and ends with it."
    with pytest.raises(CommandError, match=f"^{sentence}"):
        call_command("backup", place)
    settings.BACKUP_URL = place
    job = catalog.request_backup(is_tested=False)
    job_runner.run_jobs()
    job.refresh_from_db()
    assert (job.state, job.error[: len(sentence)]) == ("failed", sentence)


@pytest.mark.any_database
def test_the_command_says_by_what_its_backup_is_restored(tmp_path: Path) -> None:
    said = StringIO()
    call_command("backup", str(tmp_path / "of mine"), stdout=said)
    [backup] = (tmp_path / "of mine").iterdir()
    assert said.getvalue().endswith(f"`manage.py restore --force '{backup}'` puts it back.\n")


def test_a_database_that_is_not_empty_is_replaced_by_force_alone(store: FolderStore, made: Manifest) -> None:
    source = f"{store.folder}/{made.id}/"
    with pytest.raises(TransferError, match=r"is not empty\. With --force"):
        restore_backup(source=source, force=False)
    assert not Job.objects.exists()
    assert restore_backup(source=source, force=True).backup == made
    [job] = Job.objects.all()
    # It must not go on with files that are not there.
    assert (job.kind, job.state) == ("in the backup", "failed")


def test_the_audit_trail_names_who_made_a_backup_and_in_the_restored_database_who_restored_it(
    store: FolderStore,
) -> None:
    call_command("backup", str(store.folder), stdout=StringIO())
    [backup] = store.ids()
    AuditEntry.objects.create(name="gone afterwards")
    call_command("restore", str(store.folder / backup), "--force", stdout=StringIO())
    before, after = AuditEntry.objects.all()
    assert (before.name, before.action, before.target.partition(" ")[0]) == ("manage.py backup", "create_job", "backup")
    assert (after.name, after.action, after.target) == ("manage.py restore", "restore_backup", backup)
    assert timezone.now() - timedelta(hours=1) < after.at < timezone.now()


def test_neither_a_server_nor_another_restore_may_use_the_folder(
    store: FolderStore, made: Manifest, data_folder: Path
) -> None:
    for lock in (serving_lock(), try_lock(data_folder / "serving.lock")):
        with lock, pytest.raises(TransferError, match="A server or another restore uses"):
            restore_backup(source=str(store.folder / made.id), force=True)
    with try_lock(data_folder / "serving.lock"), serving_lock() as is_free:
        assert not is_free


def test_of_two_restores_at_once_the_second_is_refused_and_the_first_ends_well(
    store: FolderStore, made: Manifest
) -> None:
    source = str(store.folder / made.id)
    refusals: list[object] = []

    def restore_beside(done: int, total: int) -> None:
        with pytest.raises(TransferError, match="A server or another restore uses") as refused:
            restore_backup(source=source, force=True)
        refusals.append(refused)

    restore_backup(source=source, force=True, advance=restore_beside)
    assert refusals
    assert Job.objects.filter(kind="in the backup").exists()


@pytest.mark.sqlite
def test_a_disk_that_fills_up_leaves_nothing_of_the_backup(small_disk: Path) -> None:
    Job.objects.create(kind="large", params={"text": "x" * (6 << 20)})

    def fill(done: int, total: int) -> None:
        with (small_disk / "filler").open("ab") as file:
            file.write(b"\0" * (60 << 20))

    with pytest.raises(OSError, match="No space left"):
        make_backup(store=FolderStore(small_disk / "backups"), reason="request", advance=fill)
    assert list((small_disk / "backups").iterdir()) == []
    with pytest.raises(OSError, match=r"it needs \d+ MB, and its disk has 0 MB: '/.*/backups'$"):
        make_backup(store=FolderStore(small_disk / "backups"), reason="request")
    Job.objects.create(kind="written afterwards")


@pytest.mark.sqlite
def test_a_backup_that_there_is_no_room_to_restore_for_a_test_is_deleted(
    small_disk: Path, settings: Settings, tmp_path: Path
) -> None:
    """It would stay untested, and the schedule would make another one each hour."""
    Job.objects.create(kind="large", params={"text": "x" * (6 << 20)})
    settings.DATA_DIR, store = small_disk, FolderStore(tmp_path / "backups")
    seen: list[str] = []

    def fill(done: int, total: int) -> None:
        if store.ids() and not seen:
            seen.extend(store.ids())
            (small_disk / "filler").write_bytes(bytes(60 << 20))

    with pytest.raises(OSError, match="No space left") as refused:
        make_backup(store=store, reason="request", advance=fill, is_tested=True)
    assert refused.value.filename.startswith(str(small_disk))
    assert len(seen) == 1
    assert [*store.folder.iterdir(), *(small_disk / "backups").iterdir()] == []


@pytest.mark.any_database
def test_a_backup_that_is_cancelled_while_it_is_tested_is_deleted(store: FolderStore) -> None:
    def cancel(done: int, total: int) -> None:
        if store.ids():
            raise JobCancelled

    with pytest.raises(JobCancelled):
        make_backup(store=store, reason="request", advance=cancel, is_tested=True)
    assert [*store.folder.iterdir(), *local_store().folder.iterdir()] == []


@pytest.mark.sqlite
def test_an_old_database_that_takes_no_writes_any_more_keeps_its_log(store: FolderStore, made: Manifest) -> None:
    file, copied = Path(connection.settings_dict["NAME"]), store.folder / made.id / COPY
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    Job.objects.create(kind="in the log", params={"text": "x" * 2 * copied.stat().st_size})
    with (
        files_of_at_most(max(copied.stat().st_size, file.stat().st_size)),
        pytest.raises(Conflict, match="could not be closed, so it stays"),
    ):
        restore_backup(source=str(store.folder / made.id), force=True)
    assert Job.objects.filter(kind="in the log").exists()


@pytest.mark.sqlite
def test_without_a_database_nothing_is_made(folder: Path) -> None:
    refused = Server(folder).manage("backup")
    sentence = r"CommandError: There is nothing to back up: .* is not there, or is empty\.\n"
    assert (refused.returncode, bool(re.fullmatch(sentence, refused.stderr))) == (1, True), refused.stderr
    assert not folder.exists()


@pytest.mark.any_database
def test_a_place_that_cannot_be_written_fails_the_job(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    settings.BACKUP_URL = str(tmp_path / "file" / "backups")
    job = catalog.request_backup(is_tested=False)
    job_runner.run_jobs()
    job.refresh_from_db()
    assert job.state == "failed"
    assert re.fullmatch(r".*/file/backups.* cannot be used: Not a directory\.", job.error)
    assert f"failed: {job.error}\n" in caplog.text
    with pytest.raises(CommandError, match="cannot be used: Not a directory"):
        call_command("backup")
    assert Job.objects.exclude(pk=job.pk).get().error == job.error


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
def test_servers_that_share_a_place_delete_no_backups_of_each_other(settings: Settings, tmp_path: Path) -> None:
    settings.BACKUP_URL, settings.BACKUP_KEEP = str(tmp_path / "shared"), 1
    own = FolderStore(tmp_path / "shared")

    def back_up() -> str:
        catalog.request_backup(is_tested=False, reason="schedule")
        job_runner.run_jobs()
        return str(Job.objects.latest("pk").result["backup"])

    earlier, production = back_up(), back_up()
    assert earlier not in own.ids()
    without_id = own.folder / "backup-20260101T000000000"
    shutil.copytree(own.folder / production, without_id)
    change(id=without_id.name, database_id="")(without_id)
    settings.DATA_DIR = tmp_path / "staging"
    settings.DATA_DIR.mkdir()
    first, staging = back_up(), back_up()
    shown = [(one["id"], one["own"]) for one in catalog.list_backups(limit=10, after=()).items]
    assert shown == [(without_id.name, False), (production, False), (staging, True)]
    assert first not in own.ids()
    assert not catalog.find_backup(production)["own"]


def test_the_command_is_a_job_that_the_schedule_does_not_count(settings: Settings, tmp_path: Path) -> None:
    call_command("backup", str(tmp_path / "elsewhere"))
    [made] = (tmp_path / "elsewhere").iterdir()
    job = Job.objects.get()
    assert (job.kind, job.state, job.result, job.name) == ("backup", "done", {"backup": made.name}, "manage.py backup")
    assert job.done == job.total > 0
    settings.BACKUP_INTERVAL_HOURS = 24
    catalog.request_backup_if_due()
    assert [job.params["reason"] for job in Job.objects.all()] == ["request", "schedule"]


class AppendOnly(LocalFileSystem):
    """A place that lets nobody delete."""

    protocol = "appendonly"

    def rm_file(self, path: str) -> None:
        raise PermissionError("deleting is denied")


@pytest.mark.any_database
def test_where_nothing_may_be_deleted_a_scheduled_backup_is_done_all_the_same(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec.register_implementation("appendonly", AppendOnly, clobber=True)
    settings.BACKUP_INTERVAL_HOURS, settings.BACKUP_KEEP = 24, 1
    settings.BACKUP_URL = f"appendonly://{tmp_path}"
    for _ in range(2):
        catalog.request_backup_if_due()
        job_runner.run_jobs()
        Job.objects.update(
            created_at=timezone.now() - timedelta(hours=25), ended_at=timezone.now() - timedelta(hours=25)
        )
    assert list(Job.objects.values_list("state", "error")) == [("done", "")] * 2
    assert len(catalog.list_backups(limit=10, after=()).items) == 2
    assert "deleting is denied" in caplog.text


@pytest.mark.any_database
def test_an_old_backup_that_cannot_be_read_does_not_keep_from_migrating(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.BACKUP_BEFORE_MIGRATE = "on"
    broken = local_store().folder / "backup-20260101T000000000" / "manifest.json"
    broken.mkdir(parents=True)
    made = back_up_before_migration()
    assert made is not None
    assert made.is_dir()
    assert f"{broken.parent} cannot be read" in caplog.text


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


# As before the versions that restrict scripts.
_OLD_PG_RESTORE = """#!/bin/sh
case "$*" in *--restrict-key=*) echo "unrecognized option" >&2; exit 1;; esac
{program} "$@" | grep -v restrict-key
for option in "$@"; do case "$option" in *.sql) sed -i -e '/^.restrict/d' -e '/^.unrestrict/d' "$option";; esac; done
"""


if VENDOR == "postgresql":

    def make_up(backup: Path) -> None:
        """Put a command of psql's into the dump, in the place of a statement of the same length."""
        content = (backup / COPY).read_bytes()
        statement = b"CREATE FUNCTION public.vectordb_chunk_log_insert() RETURNS trigger"
        command = b"\\! touch $MADE_UP\n"
        assert content.count(statement) == 1
        content = content.replace(statement, command + b" " * (len(statement) - len(command)))
        (backup / COPY).write_bytes(content)
        change(sha256=hashlib.sha256(content).hexdigest())(backup)

    @pytest.mark.parametrize("is_old", [False, True])
    def test_a_backup_that_somebody_made_up_runs_no_commands(
        is_old: bool, store: FolderStore, made: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_up(store.folder / made.id)
        monkeypatch.setenv("MADE_UP", str(tmp_path / "made-up"))
        sentence = "backslash commands are restricted"
        if is_old:
            old = tmp_path / "old" / "pg_restore"
            old.parent.mkdir()
            old.write_text(_OLD_PG_RESTORE.format(program=shutil.which("pg_restore")))
            old.chmod(0o755)
            monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
            sentence = "pg_restore is too old to keep a backup from running commands"
        with pytest.raises(Conflict, match=sentence):
            restore_backup(source=str(store.folder / made.id), force=True)
        assert not (tmp_path / "made-up").exists()
        assert not Job.objects.exists()

    def test_hosts_that_share_a_database_know_its_backups(
        store: FolderStore, settings: Settings, tmp_path: Path
    ) -> None:
        settings.BACKUP_URL = str(store.folder)
        made = make_backup(store=store, reason="request")
        settings.DATA_DIR = tmp_path / "other-host"
        settings.DATA_DIR.mkdir()
        assert re.fullmatch(r"\d+-\d+", made.database_id)
        assert catalog.find_backup(made.id)["own"]

    def test_a_script_of_sql_is_no_backup(store: FolderStore, made: Manifest) -> None:
        content = b"DROP TABLE vectordb_job;\n"
        (store.folder / made.id / COPY).write_bytes(content)
        change(sha256=hashlib.sha256(content).hexdigest(), size=len(content))(store.folder / made.id)
        with pytest.raises(TransferError, match="is not in the custom format of pg_dump"):
            restore_backup(source=str(store.folder / made.id), force=True)
        assert not Job.objects.exists()
