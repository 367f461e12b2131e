"""`manage.py import`: the rows of a file, or the texts of a folder, into a library."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, get_args

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from pydantic import ValidationError
from tqdm import tqdm

from apps.access.management.base import AuditedCommand
from apps.embeddings.errors import EmbeddingError
from apps.libraries.errors import LibraryError
from apps.libraries.imported import Mode
from apps.operations.management.base import INTERRUPTED, one_sentence_errors, show_progress
from apps.transfer.command_jobs import running_command
from apps.transfer.folders import SUFFIXES, import_folder
from apps.transfer.formats import FORMATS, format_of, format_of_file
from apps.transfer.import_job import import_as, resume_at
from apps.transfer.importing import Report, open_library
from apps.transfer.job_context import JobCancelled

_SHOWN = 20


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

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        report = Report()
        try:
            for after in _run(options):
                report = after
        except (LibraryError, EmbeddingError, ValidationError) as error:
            raise CommandError(str(error)) from error
        except JobCancelled:
            raise CommandError("It was cancelled. What was imported stays.") from None
        except KeyboardInterrupt:
            again = "" if options["source"] == "-" else " The same command goes on with the rest."
            raise CommandError(f"Interrupted. What was imported stays.{again}", returncode=INTERRUPTED) from None
        self.stdout.write(
            f"{options['library']}: {report.created} chunks created, {report.updated} updated, {report.left} left, "
            f"{report.documents} documents written, {report.refused} rows refused"
        )
        for refusal in report.refusals[:_SHOWN]:
            faults = "; ".join(f"{one['pointer']} {one['detail']}".strip() for one in refusal["errors"])
            self.stdout.write(f"{refusal['at']}: {faults}")
        if report.refused:
            raise CommandError(f"{report.refused} rows were refused; GET /api/v1/jobs lists the first hundred.")


def _run(options: dict[str, Any]) -> Iterator[Report]:
    """Import, and yield what became of all so far after each step."""
    name, library_id, columns = options["source"], options["library"], _columns(options["columns"])
    path = Path(name)
    is_folder = path.is_dir() or path.suffix.lower() in SUFFIXES
    format = None if is_folder else format_of(options["format"] or format_of_file(name))
    params = {"mode": options["mode"], "columns": columns, "format": options["format"]}
    with running_command("import", library_id, name, params) as job, _bar(library_id) as bar:
        if format is None:
            open_library(library_id, {}, create=options["create"])
            bar.unit = "file"
            for report, done, total in import_folder(job, path):
                show_progress(bar)(done, total)
                yield report
            return
        with _file(name) as file:
            source = format.read(file, resume_at(job), columns)
            open_library(library_id, source.library, create=options["create"])
            bar.total, bar.unit, bar.unit_scale = source.total, source.unit, source.unit == "B"
            rows, began = 0, time.monotonic()
            for report, batch in import_as(job, source, options["mode"]):
                rows += len(batch.chunks)
                bar.update(batch.done - bar.n)
                bar.set_postfix_str(f"{rows / (time.monotonic() - began):.0f} rows/s")
                yield report


@contextmanager
def _bar(library_id: str) -> Iterator[Any]:
    with tqdm(desc=f"importing into {library_id}", unit="row", disable=None) as bar:
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


def _columns(pairs: list[str]) -> dict[str, str]:
    pairs = ",".join(pairs).split(",") if pairs else []
    for pair in pairs:
        if not all(pair.partition("=")):
            raise CommandError(f"--columns {pair}: must be a field and a column, such as text=body")
    return {field: column for field, _, column in (pair.partition("=") for pair in pairs)}
