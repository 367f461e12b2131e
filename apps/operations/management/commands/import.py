"""`manage.py import`: the rows of a file, or the texts of a folder, into a library."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, get_args

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from pydantic import ValidationError

from apps.embeddings.errors import EmbeddingError
from apps.libraries.errors import LibraryError, NotFound
from apps.libraries.imported import Mode
from apps.operations.management.base import (
    INTERRUPTED,
    AuditedCommand,
    counted,
    one_sentence_errors,
    rows_refused,
    show_progress,
)
from apps.operations.management.progress import progress_bar
from apps.transfer.command_jobs import file_identity, find_command_job, running_command
from apps.transfer.folders import SUFFIXES, Folder, import_folder, open_folder
from apps.transfer.formats import FORMATS, format_of, format_of_file
from apps.transfer.formats.tables import parse_columns
from apps.transfer.import_job import import_as, open_or_make, report_of, resume_at, rows_before, stored_report
from apps.transfer.importing import MOST_REFUSALS, Report
from apps.transfer.job_context import JobCancelled, JobContext
from apps.transfer.models import Job
from apps.transfer.refusals import RefusalFile
from apps.transfer.rows import Source

_SHOWN = 20
# How many names of files that are skipped it tells.
_NAMED = 5


class Command(AuditedCommand):
    help = (
        "Write the rows of a file to a library, or the texts of a folder as documents. What cannot be stored is "
        "reported, and the rest goes in. After an interruption, the same command goes on where it was."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", help=f"a file, - for standard input, or a folder of {', '.join(SUFFIXES)}")
        parser.add_argument("library", help="id of a library")
        parser.add_argument("--format", choices=FORMATS, help="left out, the file's name says it")
        parser.add_argument("--create", action="store_true", help="make the library if it is not there")
        parser.add_argument(
            "--mode", choices=get_args(Mode), default="upsert", help="what becomes of ids in use (default: upsert)"
        )
        parser.add_argument(
            "--columns", nargs="+", default=[], metavar="FIELD=COLUMN", help="what a table's columns are called"
        )
        parser.add_argument("--report", metavar="FILE", help="write every refused row to a file, as lines of JSON")
        parser.add_argument("--restart", action="store_true", help="begin again where an earlier run was cut off")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            job_id, report = self._import(options)
        except NotFound as error:
            raise CommandError(f"{error} So does --create.") from error
        except (LibraryError, EmbeddingError, ValidationError) as error:
            raise CommandError(str(error)) from error
        except JobCancelled:
            raise CommandError("It was cancelled. What was imported stays.") from None
        except KeyboardInterrupt:
            again = "" if options["source"] == "-" else " The same command goes on with the rest."
            raise CommandError(f"Interrupted. What was imported stays.{again}", returncode=INTERRUPTED) from None
        self._tell(options["library"], report)
        if report.refused:
            raise CommandError(_refused(report.refused, f"GET /api/v1/jobs/{job_id}", options["report"]))

    def _import(self, options: dict[str, Any]) -> tuple[str, Report]:
        """Import; return the id of the job, and the report. Where it fails, tell what is in the library by then."""
        name, library_id, columns = options["source"], options["library"], _columns(options["columns"])
        path = Path(name)
        is_folder = path.is_dir() or path.suffix.lower() in SUFFIXES
        format = None if is_folder else format_of(options["format"] or format_of_file(name))
        is_stream = name == "-"
        params = {"mode": options["mode"], "columns": columns, "format": options["format"]}
        params |= {"source": name} if is_stream else file_identity(name)
        running = running_command("import", library_id, params, restart=options["restart"], is_repeatable=not is_stream)
        earlier = None if is_stream else find_command_job("import", library_id, params)
        with _refusal_file(options, earlier) as refusals, running as job, _bar(library_id) as bar:
            try:
                if format is None:
                    self._import_folder(job, path, bar, refusals, create=options["create"])
                else:
                    with _file(name) as file:
                        source = format.read(file, resume_at(job), columns)
                        self._import_file(job, source, bar, refusals, create=options["create"], mode=options["mode"])
            except BaseException:
                with suppress(DatabaseError):
                    if (report := stored_report(job)) != Report():
                        self._tell(library_id, report)
                raise
        return job.id, report_of(job)

    def _import_folder(
        self, job: JobContext, path: Path, bar: Any, refusals: RefusalFile | None, *, create: bool
    ) -> None:
        library, is_made = open_or_make(job.library, {}, create=create)
        job.bind(library, is_made=is_made)
        folder = open_folder(job, path)
        if "next" in job.progress and not folder.done:
            self.stdout.write(f"{job.library}: reads all files again, since some were changed meanwhile")
        else:
            self._say_where(job, f"{folder.done} files")
        self._say_skipped(path, folder)
        bar.unit = "file"
        for _, done, total in import_folder(job, folder, refusals):
            show_progress(bar)(done, total)

    def _import_file(
        self, job: JobContext, source: Source, bar: Any, refusals: RefusalFile | None, *, create: bool, mode: Mode
    ) -> None:
        library, is_made = open_or_make(job.library, source.library, create=create)
        job.bind(library, is_made=is_made)
        self._say_where(job, f"{rows_before(job)} rows")
        bar.total, bar.unit, bar.unit_scale = source.total, source.unit, source.unit == "B"
        rows, began = 0, time.monotonic()
        for _, batch in import_as(job, source, mode, refusals):
            rows += len(batch.chunks)
            bar.update(batch.done - bar.n)
            bar.set_postfix_str(f"{rows / (time.monotonic() - began):.0f} rows/s")

    def _tell(self, library_id: str, report: Report) -> None:
        self.stdout.write(
            f"{library_id}: {counted(report.created, 'chunk')} created, {report.updated} updated, {report.left} left, "
            f"{counted(report.documents, 'document')} written, {counted(report.refused, 'row')} refused"
        )
        for refusal in report.refusals[:_SHOWN]:
            faults = "; ".join(f"{one['pointer']} {one['detail']}".strip() for one in refusal["errors"])
            self.stdout.write(f"{refusal['at']}: {faults}")

    def _say_skipped(self, path: Path, folder: Folder) -> None:
        """Tell which files are not read, and that there are none that are."""
        if not folder.files:
            self.stdout.write(f"There is nothing to import in {path}: no file that ends in {', '.join(SUFFIXES)}.")
        if folder.skipped:
            names = [*folder.skipped[:_NAMED], *(["..."] if len(folder.skipped) > _NAMED else [])]
            self.stdout.write(f"Skipped {len(folder.skipped)} of other kinds, hidden or links: {', '.join(names)}")

    def _say_where(self, job: JobContext, before: str) -> None:
        if "next" in job.progress:
            self.stdout.write(f"{job.library}: goes on behind {before}; --restart begins again")


def _refused(count: int, request: str, file: str | None) -> str:
    """What is said of refused rows, and where they are listed."""
    what = rows_refused(count)
    if file is not None:
        return f"{what}, and written to {file}."
    if count <= MOST_REFUSALS:
        return f"{what}; {request} lists {'it' if count == 1 else 'them'}."
    return f"{what}; {request} lists the first {MOST_REFUSALS}, and --report FILE writes all to a file."


@contextmanager
def _refusal_file(options: dict[str, Any], earlier: Job | None) -> Iterator[RefusalFile | None]:
    """The file of --report, as the job of an earlier run has left it."""
    if options["report"] is None:
        yield None
        return
    progress = earlier.progress if earlier is not None else {}
    with RefusalFile(Path(options["report"]), progress, is_restarted=options["restart"]) as file:
        yield file


@contextmanager
def _bar(library_id: str) -> Iterator[Any]:
    with progress_bar(desc=f"importing into {library_id}", unit="row") as bar:
        yield bar


@contextmanager
def _file(name: str) -> Iterator[BinaryIO]:
    """The file of that name; standard input is put into a file without a name, in which can be sought."""
    if name != "-":
        with Path(name).open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile(dir=settings.DATA_DIR) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        yield copy


def _columns(given: list[str]) -> dict[str, str]:
    try:
        return parse_columns(",".join(given)) if given else {}
    except ValueError as error:
        raise CommandError(f"--columns {error}") from None
