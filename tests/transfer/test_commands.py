"""`manage.py export` and `manage.py import`."""

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from pypdf import PdfWriter

from apps.access.models import AuditEntry
from apps.libraries.inputs import LibraryCreate
from apps.libraries.models import Chunk, Document, Library
from apps.libraries.services.libraries import create_library, delete_library
from apps.transfer import rows
from apps.transfer.command_jobs import sole_runner
from apps.transfer.formats.jsonl import Jsonl
from apps.transfer.jobs import cancel_job
from apps.transfer.models import Job
from apps.transfer.stored import StoredLibrary
from tests.transfer.libraries import content, make_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_a_library_goes_out_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_library()
    for format in ("jsonl", "zip", "parquet"):
        file = tmp_path / f"a.{format}"
        call_command("export", "a", str(file))
        # In Parquet a document is beside its chunks.
        assert f"a: {11 if format == 'parquet' else 12} rows" in capsys.readouterr().out
        with pytest.raises(CommandError, match=r"exists\. Name another file, or replace it by --force"):
            call_command("export", "a", str(file))
        call_command("import", str(file), f"b-{format}", "--create")
        assert "10 chunks created, 0 updated, 0 left, 2 documents written, 0 rows refused" in capsys.readouterr().out
        assert content(f"b-{format}") == content("a")
    imports, exports = Job.objects.filter(kind="import"), Job.objects.filter(kind="export")
    assert [(job.state, job.result["created"]) for job in imports] == [("done", 10)] * 3
    assert list(exports.values_list("state", "library", "done", "total")) == [("done", "a", 13, 13)] * 3
    made = AuditEntry.objects.filter(action="create_job", name="manage.py import").values_list("library", flat=True)
    assert list(made) == ["b-jsonl", "b-zip", "b-parquet"]
    with pytest.raises(CommandError, match="There is no library 'absent'"):
        call_command("export", "absent", str(tmp_path / "x.zip"))
    with pytest.raises(CommandError, match=r"There is no library 'absent'.* So does --create"):
        call_command("import", str(tmp_path / "a.zip"), "absent")
    # Nothing half-written is left.
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "a.zip", "a.parquet"}


def test_names_of_files_that_say_no_format_are_refused_with_those_there_are(tmp_path: Path) -> None:
    make_library()
    with pytest.raises(CommandError, match=r"a\.csv' is one that is only read\. There are: jsonl, zip, parquet\."):
        call_command("export", "a", str(tmp_path / "a.csv"))
    with pytest.raises(CommandError, match=r"a\.xyz' does not say which .* There are: jsonl, zip, parquet\."):
        call_command("export", "a", str(tmp_path / "a.xyz"))
    for name in ("folder", "file.xyz"):
        with pytest.raises(CommandError, match=f"There is no file or folder .*/{name}"):
            call_command("import", str(tmp_path / name), "a")
    (tmp_path / "file.xyz").touch()
    with pytest.raises(CommandError, match=r"file\.xyz' does not say which .* jsonl, zip, parquet, csv\."):
        call_command("import", str(tmp_path / "file.xyz"), "a")


def test_an_export_to_a_folder_that_cannot_be_used_names_it(tmp_path: Path) -> None:
    make_library()
    with pytest.raises(CommandError, match=f"^There is no folder {tmp_path}/absent. Make it, or name another one.$"):
        call_command("export", "a", str(tmp_path / "absent" / "a.zip"))
    with pytest.raises(CommandError, match=f"^{tmp_path}/a{'x' * 250}.zip cannot be used: File name too long$"):
        call_command("export", "a", str(tmp_path / f"a{'x' * 250}.zip"))


def test_a_disk_that_is_read_only_is_named(small_disk: Path, tmp_path: Path) -> None:
    make_library()
    (tmp_path / "rows.jsonl").write_text('{"id": "new", "embedding": [1, 2, 3]}\n')
    subprocess.run(["mount", "--options", "remount,ro", small_disk], check=True)
    for command in (
        ["export", "a", str(small_disk / "a.zip")],
        ["backup", str(small_disk / "backups")],
        ["import", str(tmp_path / "rows.jsonl"), "a", "--report", str(small_disk / "refused.jsonl")],
    ):
        with pytest.raises(CommandError, match=rf"^{command[-1]}\S* cannot be used: Read-only file system$"):
            call_command(*command)
    assert not Chunk.objects.filter(public_id="new").exists()
    assert not Job.objects.filter(state="running").exists()


def test_an_export_into_a_pipe_that_nobody_reads_on_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As with `| head`. The command line ends quietly then."""
    make_library()
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", pipe)
        with pytest.raises(BrokenPipeError):
            call_command("export", "a", "-")
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())
    assert capfd.readouterr().err == ""
    assert Job.objects.values_list("state", "error").get() == (
        "failed",
        "Standard output cannot be used: nobody reads on.",
    )


class Pipe(io.BytesIO):
    """Standard output of a command: calls `act` with each part that is written."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act

    def write(self, part: Any) -> int:
        self.act()
        return super().write(part)


def test_an_export_is_a_job_that_is_seen_and_cancelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_library()
    seen: list[str] = []

    def cancel() -> None:
        [job] = Job.objects.filter(state="running")
        seen.append(job.kind)
        cancel_job(job_id=job.public_id)

    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Pipe(cancel)))
    with pytest.raises(CommandError, match="It was cancelled"):
        call_command("export", "a", "-")
    assert seen == ["export"]
    job = Job.objects.get()
    assert (job.state, job.library, job.name) == ("cancelled", "a", "manage.py export")

    def fail() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Pipe(fail)))
    with pytest.raises(KeyboardInterrupt):
        call_command("export", "a", "-")
    assert Job.objects.values_list("state", "error").last() == ("failed", "It was interrupted.")


class Meanwhile(Jsonl):
    """Calls `act` when the first part of an export was written."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        for part in super().write(stored):
            yield part
            self.act()


def test_an_export_replaces_nothing_that_it_was_not_told_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_library()
    file = tmp_path / "a.jsonl"
    format = Meanwhile(lambda: file.write_text("another's"))
    monkeypatch.setattr("apps.operations.management.commands.export.format_of", lambda _: format)
    with pytest.raises(CommandError, match=r"a\.jsonl exists\. Name another file, or replace it by --force"):
        call_command("export", "a", str(file))
    assert file.read_text() == "another's"
    call_command("export", "a", str(file), force=True)
    assert file.read_text().endswith('{"end":{"documents":2,"chunks":10}}\n')
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(CommandError, match=r"folder\.jsonl is no file"):
        call_command("export", "a", str(tmp_path / "folder.jsonl"), force=True)
    file.unlink()
    file.symlink_to(tmp_path / "absent")
    with pytest.raises(CommandError, match="exists"):
        call_command("export", "a", str(file))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "folder.jsonl"]


def test_an_export_deletes_what_killed_ones_have_left_and_not_what_others_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_library()
    file, mine = tmp_path / "a.jsonl", [tmp_path / ".a.jsonl.bak", tmp_path / ".b.jsonl.0.export-draft"]
    left = tmp_path / ".a.jsonl.0.export-draft"
    for path in left, *mine:
        path.touch()
    drafts: list[set[Path]] = []

    def export_beside() -> None:
        drafts.append(set(tmp_path.glob(".a.jsonl.*.export-draft")))
        if len(drafts) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(export, "a.jsonl").result()

    def export(name: str) -> None:
        try:
            call_command("export", "a", str(tmp_path / name), force=True)
        finally:
            connections.close_all()

    format = Meanwhile(export_beside)
    monkeypatch.setattr("apps.operations.management.commands.export.format_of", lambda _: format)
    export("a.jsonl")
    assert left not in drafts[0]
    # The second one has left the first alone.
    assert len(drafts[0]) == 1
    assert max(map(len, drafts)) == 2
    assert {*tmp_path.iterdir()} == {file, *mine}


def test_exports_of_one_library_run_side_by_side_and_one_that_was_killed_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_library()
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(list(Job.objects.values_list("state", flat=True)))

    def export_beside() -> None:
        if not seen:
            monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Pipe(look)))
            with ThreadPoolExecutor(1) as pool:
                pool.submit(export).result()

    def export() -> None:
        try:
            call_command("export", "a", "-")
        finally:
            connections.close_all()

    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Pipe(export_beside)))
    export()
    assert seen[0] == ["running", "running"]
    assert list(Job.objects.values_list("state", flat=True)) == ["done", "done"]
    # As a process leaves them that is killed.
    Job.objects.update(state="running", ended_at=None)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Pipe(look)))
    export()
    ended = Job.objects.order_by("pk").values_list("state", "error")
    assert list(ended) == [("failed", "Its process has ended.")] * 2 + [("done", "")]


def test_jobs_are_listed_and_cancelled_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("jobs")
    assert capsys.readouterr().out == "There are no jobs.\n"
    Job.objects.create(kind="export", library="a", state="failed", done=3, total=9, error="The disk is full.")
    job = Job.objects.create(kind="backup", done=5)
    call_command("jobs")
    last, first = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    assert (last[0], last[2:]) == (job.public_id, ["running", "backup", "-", "5/?"])
    assert first[2:] == ["failed", "export", "a", "3/9", "The disk is full."]
    call_command("jobs", cancel=job.public_id)
    assert capsys.readouterr().out == f"{job.public_id} is cancelled.\n"
    job.refresh_from_db()
    assert job.state == "cancelled"
    entry = AuditEntry.objects.get(action="cancel_job")
    assert (entry.name, entry.target) == ("manage.py jobs", f"backup {job.public_id}")
    with pytest.raises(CommandError, match="There is no job 'absent'"):
        call_command("jobs", cancel="absent")
    with pytest.raises(CommandError, match="has ended already: it is failed"):
        call_command("jobs", cancel=first[0])


def test_an_import_of_standard_input_that_was_killed_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))

    def import_rows() -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "t", "embedding": [1, 2]}\n')))
        call_command("import", "-", "a", format="jsonl")

    import_rows()
    # As a process leaves it that is killed.
    Job.objects.update(state="running", ended_at=None)
    import_rows()
    assert list(Job.objects.values_list("state", "error")) == [("failed", "Its process has ended."), ("done", "")]
    assert Chunk.objects.count() == 2


def test_columns_of_a_table_are_named_in_pairs(tmp_path: Path) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"key": ["x"], "body": ["one"], "emb": [[1.0, 2.0]]}), file)
    call_command("import", str(file), "a", columns=["id=key,text=body", "vector=emb"])
    assert Chunk.objects.values_list("public_id", "text").get() == ("x", "one")
    with pytest.raises(CommandError, match="--columns must be pairs such as text=body,vector=emb"):
        call_command("import", str(file), "a", columns=["text"])


def test_the_same_command_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    file = tmp_path / "rows.jsonl"
    # Without ids: each row that was stored twice would be there twice.
    lines = [json.dumps({"text": f"t{i}", "embedding": [i, 1] if i != 5 else [1]}) for i in range(10)]
    file.write_text("\n".join(lines))
    monkeypatch.setattr(rows, "ROWS_PER_BATCH", 3)
    seen = 0

    def interrupt(*args: Any, **kwargs: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("apps.operations.management.progress._Lines.update", interrupt)
        with pytest.raises(CommandError, match="The same command goes on with the rest") as interrupted:
            call_command("import", str(file), "a")
    assert interrupted.value.returncode == 130
    assert Chunk.objects.count() == 8

    def run_beside() -> None:
        try:
            call_command("import", str(file), "a")
        finally:
            connections.close_all()

    refused = pytest.raises(CommandError, match="Another command runs the job import")
    with sole_runner(Job.objects.get()), ThreadPoolExecutor(1) as pool, refused:
        pool.submit(run_beside).result()
    assert Chunk.objects.count() == 8
    with pytest.raises(CommandError, match="1 row was refused"):
        call_command("import", str(file), "a")
    out = capsys.readouterr().out
    assert "9 chunks created" in out
    assert "line 6: /embedding has 1 components, but the library's dimension is 2" in out
    assert sorted(Chunk.objects.values_list("text", flat=True)) == [f"t{i}" for i in range(10) if i != 5]
    job = Job.objects.get()
    assert (job.state, job.done, job.result["refused"]) == ("done", file.stat().st_size, 1)


def interrupted_after(batches: int, monkeypatch: pytest.MonkeyPatch, *arguments: str, **options: Any) -> None:
    """Run an import of three rows a batch that is interrupted once these are stored."""
    seen = 0

    def interrupt(*args: Any, **kwargs: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == batches:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rows, "ROWS_PER_BATCH", 3)
        patched.setattr("apps.operations.management.progress._Lines.update", interrupt)
        with pytest.raises(CommandError, match="Interrupted"):
            call_command("import", *arguments, **options)


@pytest.mark.parametrize("is_deleted_by_service", [True, False])
def test_an_import_whose_library_was_deleted_does_not_go_on_in_another_of_its_id(
    is_deleted_by_service: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"text": "t{i}", "embedding": [{i}, 1]}}\n' for i in range(10)))
    interrupted_after(2, monkeypatch, str(file), "a", create=True)
    assert Chunk.objects.count() == 6
    if is_deleted_by_service:
        delete_library(library_id="a")
        [job] = Job.objects.all()
        assert (job.state, job.error) == (
            "failed", "The library 'a' was deleted. A job does not go on in another one of that id."
        )  # fmt: skip
        assert job.result["created"] == 6
    else:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM vectordb_library")
    call_command("import", str(file), "a", create=True)
    assert sorted(Chunk.objects.values_list("text", flat=True)) == [f"t{i}" for i in range(10)]
    assert list(Job.objects.values_list("state", flat=True)) == ["failed", "done"]


def test_an_import_says_where_it_goes_on_and_can_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"id": "{i}", "embedding": [{i}, 1]}}\n' for i in range(10)))
    interrupted_after(1, monkeypatch, str(file), "a")
    assert "goes on" not in capsys.readouterr().out
    interrupted_after(1, monkeypatch, str(file), "a")
    assert "a: goes on behind 3 rows; --restart begins again" in capsys.readouterr().out
    call_command("import", str(file), "a")
    said = capsys.readouterr().out
    assert "a: goes on behind 6 rows" in said
    assert "10 chunks created, 0 updated" in said
    interrupted_after(2, monkeypatch, str(file), "a")
    call_command("import", str(file), "a", restart=True)
    said = capsys.readouterr().out
    assert "goes on" not in said
    assert "0 chunks created, 10 updated" in said
    states = Job.objects.order_by("pk").values_list("state", "result__updated")
    assert list(states) == [("done", 0), ("cancelled", 6), ("done", 10)]


def test_an_import_that_fails_midway_says_what_is_in_the_library_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    head = '{"library": {"name": "A", "dimension": 2}, "format": 1}\n'
    file.write_text(head + "".join(f'{{"embedding": [{i}, 1{", 1" if i == 2 else ""}]}}\n' for i in range(10)))
    monkeypatch.setattr(rows, "ROWS_PER_BATCH", 3)
    with pytest.raises(CommandError, match="The file is cut off"):
        call_command("import", str(file), "a", create=True)
    said, result = capsys.readouterr().out, Job.objects.get().result
    assert (result["created"], result["refused"]) == (Chunk.objects.count(), 1)
    assert f"a: {result['created']} chunks created, 0 updated, 0 left, 0 documents written, 1 row refused" in said
    assert "line 4: /embedding has 3 components" in said
    interrupted_after(2, monkeypatch, str(file), "a")
    assert "a: 5 chunks created" in capsys.readouterr().out
    # Also where it fails before its next step.
    with monkeypatch.context() as patched:
        patched.setattr("apps.transfer.formats.jsonl.read_lines", interrupt)
        with pytest.raises(CommandError, match="Interrupted"):
            call_command("import", str(file), "a")
    assert "a: 5 chunks created" in capsys.readouterr().out


def test_an_import_that_fails_at_once_leaves_no_library_behind(tmp_path: Path) -> None:
    def write(name: str, metric: str, dimension: int) -> str:
        head = {"library": {"name": "A", "dimension": 2, "metric": metric}, "format": 1}
        lines = [head, *[{"embedding": [1] * dimension}] * 2, {"end": {"documents": 0, "chunks": 2}}]
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return str(tmp_path / name)

    with pytest.raises(CommandError, match="do not fit the library 'a'"):
        call_command("import", write("wrong.jsonl", "cosine", 3), "a", create=True)
    assert (Job.objects.get().state, Library.objects.count()) == ("failed", 0)
    call_command("import", write("right.jsonl", "dot", 2), "a", create=True)
    assert (Library.objects.get().metric, Chunk.objects.count()) == ("dot", 2)


def test_what_an_import_says_counts_documents_that_chunks_name_and_the_place_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_library()
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "x", "document_id": "named", "embedding": [1, 2, 3]}\n{"id": "y", "document_id": }\n')
    with pytest.raises(CommandError, match="1 row was refused"):
        call_command("import", str(file), "a")
    assert capsys.readouterr().out.splitlines() == [
        "a: 1 chunk created, 0 updated, 0 left, 1 document written, 1 row refused",
        "line 2: is no valid JSON at column 28: unexpected character, expected a JSON value",
    ]
    # It is there by now.
    file.write_text('{"id": "z", "document_id": "named", "embedding": [1, 2, 3]}\n')
    call_command("import", str(file), "a")
    assert "1 chunk created, 0 updated, 0 left, 0 documents written" in capsys.readouterr().out
    create_library(create=LibraryCreate(id="one", name="One"))
    call_command("import", str(file), "one")
    call_command("export", "one", str(tmp_path / "one.parquet"))
    assert "one: 1 row, " in capsys.readouterr().out


@pytest.mark.parametrize("format", ["jsonl", "zip", "parquet"])
def test_an_import_of_an_empty_library_has_a_total(format: str, tmp_path: Path) -> None:
    create_library(create=LibraryCreate(id="a", name="A"))
    call_command("export", "a", str(tmp_path / f"a.{format}"))
    call_command("import", str(tmp_path / f"a.{format}"), "b", "--create")
    job = Job.objects.get(kind="import")
    assert job.state == "done"
    assert job.done == job.total is not None


def bad_rows(count: int) -> str:
    """Lines of which each second one is refused, for different reasons, with and without ids."""
    wrong = ["[", '{"text": 5, "id": "t"}', '{"embedding": [1], "id": "v"}']
    lines = [wrong[i // 2 % 3] if i % 2 else f'{{"id": "{i}", "embedding": [{i}, 1]}}' for i in range(count)]
    return "".join(f"{line}\n" for line in lines)


def test_refused_rows_are_told_in_their_order_and_where_all_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    file = tmp_path / "rows.jsonl"
    file.write_text(bad_rows(12))
    with pytest.raises(CommandError, match=r"^6 rows were refused; GET /api/v1/jobs/(job-\w+) lists them\.$") as few:
        call_command("import", str(file), "a")
    assert Job.objects.get().public_id in str(few.value)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said[1:]] == [f"line {i}" for i in range(2, 13, 2)]
    file.write_text(bad_rows(240))
    with pytest.raises(CommandError, match=r"^120 rows were refused; GET \S+ lists the first 100, and --report FILE"):
        call_command("import", str(file), "a")
    assert [one["at"] for one in Job.objects.latest("pk").result["refusals"]] == [f"line {i}" for i in range(2, 201, 2)]
    file.write_text(bad_rows(2))
    with pytest.raises(CommandError, match=r"^1 row was refused; GET \S+ lists it\.$"):
        call_command("import", str(file), "a")


def test_refused_rows_are_written_to_a_file_once_each_though_the_import_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    file, report = tmp_path / "rows.jsonl", tmp_path / "refused.jsonl"
    file.write_text(bad_rows(240))
    report.write_text("mine")
    with pytest.raises(CommandError, match=r"refused\.jsonl exists\. Name another file for --report, or delete it"):
        call_command("import", str(file), "a", report=str(report))
    assert (report.read_text(), Job.objects.count()) == ("mine", 0)
    report.unlink()
    interrupted_after(3, monkeypatch, str(file), "a", report=str(report))
    assert len(report.read_bytes().splitlines()) == 4
    # As a step leaves it that was killed before its end.
    with report.open("a") as added:
        added.write('{"at": "line 10", "err')
    interrupted_after(2, monkeypatch, str(file), "a", report=str(report))
    with pytest.raises(CommandError, match=r"^120 rows were refused, and written to \S+refused\.jsonl\.$"):
        call_command("import", str(file), "a", report=str(report))
    written = [json.loads(line) for line in report.read_bytes().splitlines()]
    assert [one["at"] for one in written] == [f"line {i}" for i in range(2, 241, 2)]
    assert [one.pop("id", None) for one in written[:3]] == [None, "t", "v"]
    assert written[:2] == Job.objects.get().result["refusals"][:2]
    assert written[2]["errors"][0]["detail"] == "has 1 components, but the library's dimension is 2"


@pytest.mark.sqlite
def test_refused_rows_are_written_once_each_though_the_disk_of_their_file_was_full(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    monkeypatch.setattr(rows, "ROWS_PER_BATCH", 3)
    file, report, ballast = tmp_path / "rows.jsonl", small_disk / "refused.jsonl", small_disk / "ballast"
    # Of all that is written of them, there is room for some.
    lines = [{"id": f"{i}{'x' * 120}", "text": i} for i in range(300)]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as filling:
        while True:
            filling.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - 3 * 4096)
    with pytest.raises(CommandError, match=r"refused\.jsonl cannot be written: No space left on device"):
        call_command("import", str(file), "a", report=str(report))
    [job] = Job.objects.all()
    assert (job.state, 0 < job.progress["report"]["refused"] < 300) == ("running", True)
    ballast.unlink()
    with pytest.raises(CommandError, match=r"300 rows were refused, and written to .*/refused\.jsonl\."):
        call_command("import", str(file), "a", report=str(report))
    assert [json.loads(line)["id"] for line in report.read_text().splitlines()] == [line["id"] for line in lines]


def test_refused_files_of_a_folder_are_written_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding: Any = {"provider": "hashing", "model": "hashing-64"}
    create_library(create=LibraryCreate(id="a", name="A", embedding=embedding))
    folder, report = tmp_path / "texts", tmp_path / "refused.jsonl"
    folder.mkdir()
    for name in "bcde":
        (folder / f"{name}.txt").write_bytes(b"\xe9" if name in "bd" else b"text")
    for _ in range(2):
        interrupted_after(3, monkeypatch, str(folder), "a", report=str(report))
        # All files are read again.
        (folder / "a.txt").write_bytes(b"\xe9")
    with pytest.raises(CommandError, match="3 rows were refused, and written to"):
        call_command("import", str(folder), "a", report=str(report))
    written = [json.loads(line) for line in report.read_bytes().splitlines()]
    assert [(one["at"], one["id"]) for one in written] == [(f"{name}.txt", f"{name}.txt") for name in "abd"]


def interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_files_of_a_folder_are_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    embedding: Any = {"provider": "hashing", "model": "hashing-64"}
    create_library(create=LibraryCreate(id="a", name="A", embedding=embedding))
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "plain.txt").write_text("Cats sleep most of the day.")
    (folder / "sub" / "page.md").write_text("# A page\n\nDogs bark at cats.")
    paragraph = "A long paragraph about birds, which sing in the morning, and about nothing else at all. " * 5
    (folder / "site.html").write_text(
        f"<html><head><title>Birds</title></head><body><nav>Home | Login</nav><article><h1>Birds</h1><p>{paragraph}</p>"
        "</article></body></html>"
    )
    (folder / "latin.txt").write_bytes(b"\xe9t\xe9")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    foreign = b"/Root 1 0 R /Encrypt << /Filter /Other /V 1 >>"
    (folder / "encrypted.pdf").write_bytes(pdf("Birds swim").replace(b"/Root 1 0 R", foreign))
    (folder / "paper.pdf").write_bytes(pdf("Fish swim"))
    (folder / "protected.pdf").write_bytes(encrypted(pdf("Whales sing"), ""))
    (folder / "secret.pdf").write_bytes(encrypted(pdf("Sharks bite"), "password"))
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "link.txt").symlink_to("/etc/hostname")
    with pytest.raises(CommandError, match="4 rows were refused"):
        call_command("import", str(folder), "a")
    out = capsys.readouterr().out
    assert "latin.txt: is no text in UTF-8" in out
    assert "broken.pdf: cannot be read as PDF" in out
    # The reader's own lines do not name the file.
    assert not [record for record in caplog.records if record.name.startswith("pypdf")]
    assert "encrypted.pdf: cannot be read as PDF: only Standard PDF encryption" in out
    assert "secret.pdf: cannot be read as PDF: it needs a password; import a copy without one" in out
    documents = {row.public_id: row for row in Document.objects.all()}
    assert documents.keys() == {"plain.txt", "sub/page.md", "site.html", "paper.pdf", "protected.pdf"}
    assert (documents["sub/page.md"].title, documents["site.html"].title) == ("A page", "Birds")
    texts = dict(Chunk.objects.filter(position=0).values_list("document__public_id", "text"))
    assert "Fish swim" in texts["paper.pdf"]
    assert "Whales sing" in texts["protected.pdf"]
    assert "birds" in texts["site.html"]
    assert "Login" not in texts["site.html"]
    before = set(Chunk.objects.values_list("pk", flat=True))
    (folder / "latin.txt").unlink()
    for name in ("broken", "encrypted", "secret"):
        (folder / f"{name}.pdf").unlink()
    call_command("import", str(folder), "a")
    assert "0 chunks created, 0 updated" in capsys.readouterr().out
    assert set(Chunk.objects.values_list("pk", flat=True)) == before


def test_an_import_of_a_folder_tells_what_it_skips_and_that_there_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedding: Any = {"provider": "hashing", "model": "hashing-64"}
    create_library(create=LibraryCreate(id="a", name="A", embedding=embedding))
    folder = tmp_path / "texts"
    (folder / ".git").mkdir(parents=True)
    call_command("import", str(folder), "a")
    said = capsys.readouterr().out
    assert f"There is nothing to import in {folder}: no file that ends in .txt, .text, .md" in said
    assert "Skipped 1 of other kinds, hidden or links: .git\n" in said
    assert Job.objects.values_list("state", "done", "total").get() == ("done", 0, 0)
    (folder / "plain.txt").write_text("Cats sleep.")
    (folder / "link.txt").symlink_to("plain.txt")
    (folder / "sub").mkdir()
    for name in ("a.docx", "b.odt", "c.rtf", "d.epub"):
        (folder / "sub" / name).touch()
    call_command("import", str(folder), "a")
    said = capsys.readouterr().out
    assert "nothing to import" not in said
    assert "Skipped 6 of other kinds, hidden or links: .git, link.txt, sub/a.docx, sub/b.odt, sub/c.rtf, ...\n" in said
    assert "1 document written" in said


@pytest.mark.parametrize("change", ["none", "add", "change", "remove", "refuse"])
def test_an_interrupted_import_of_a_folder_sees_what_was_changed_before_the_place_where_it_was(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embedding: Any = {"provider": "hashing", "model": "hashing-64"}
    create_library(create=LibraryCreate(id="a", name="A", embedding=embedding))
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "bdfh":
        (folder / f"{name}.txt").write_text(f"Text {name}.")
    (folder / "e.txt").write_bytes(b"\xe9")
    interrupted_after(4, monkeypatch, str(folder), "a")
    assert Job.objects.get().progress["next"] == "f.txt"
    if change == "add":
        (folder / "a.txt").write_text("Text a.")
    elif change == "change":
        (folder / "b.txt").write_text("Another text b.")
    elif change == "remove":
        (folder / "b.txt").unlink()
    elif change == "refuse":
        (folder / "d.txt").write_bytes(b"\xe9")
    capsys.readouterr()
    refused = 2 if change == "refuse" else 1
    with pytest.raises(CommandError, match=f"{refused} rows? (was|were) refused"):
        call_command("import", str(folder), "a")
    where = "goes on behind 4 files" if change == "none" else "reads all files again"
    assert f"a: {where}" in capsys.readouterr().out
    texts = dict(Chunk.objects.values_list("document__public_id", "text"))
    expected = {f"{name}.txt": f"Text {name}." for name in "bdfh"}
    expected |= {"add": {"a.txt": "Text a."}, "change": {"b.txt": "Another text b."}}.get(change, {})
    assert texts == expected
    report = Job.objects.get().result
    created = 5 if change in ("add", "change") else 4
    files = {"add": 5, "remove": 3, "refuse": 3}.get(change, 4)
    assert (report["created"], report["updated"], report["documents"], report["refused"]) == (
        created, 0, files, refused
    )  # fmt: skip
    assert [one["at"] for one in report["refusals"]] == ["d.txt", "e.txt"][2 - refused :]


def encrypted(content: bytes, password: str) -> bytes:
    """A PDF as protected ones are: by AES, with a password to read it and another to change it."""
    writer, out = PdfWriter(clone_from=io.BytesIO(content)), io.BytesIO()
    writer.encrypt(password, "owner", algorithm="AES-256")
    writer.write(out)
    return out.getvalue()


def pdf(text: str) -> bytes:
    """A file of one page that says a text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, what in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, what)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%btrailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return bytes(out) + end % (table, len(out))
