"""`manage.py export`: a library as one file."""

import contextlib
import errno
import fcntl
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError, CommandParser

from apps.operations.management.base import AuditedCommand, counted, one_sentence_errors
from apps.operations.management.progress import progress_bar
from apps.search.snapshots import open_snapshot
from apps.transfer.command_jobs import running_reader
from apps.transfer.errors import name_file
from apps.transfer.formats import EXPORT_FORMATS, format_of, format_to_write
from apps.transfer.formats.base import Format
from apps.transfer.job_context import JobCancelled, JobContext
from apps.transfer.stored import StoredLibrary

# Of a name, and some letters: of no other program's file.
_DRAFT = ".export-draft"
# Of a disk that has no links, such as one of FAT.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class Command(AuditedCommand):
    help = "Write a library to one file, all of it as it is now. Works beside a running server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", help="id of a library")
        parser.add_argument("file", help="the file to make; - for standard output")
        parser.add_argument("--format", choices=EXPORT_FORMATS, help="left out, the file's name says it")
        parser.add_argument("--force", action="store_true", help="replace a file that is there")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        name, library_id = options["file"], options["library"]
        format_name = options["format"] or ("jsonl" if name == "-" else format_to_write(name))
        format, params = format_of(format_name), {"format": format_name, "file": name}
        if name != "-":
            params["file"] = str(Path(name).resolve())
            _check_target(Path(name), replace=options["force"])
        try:
            with open_snapshot() as snapshot:
                stored = StoredLibrary.open(snapshot, library_id)
                with running_reader("export", library_id, params) as job, _output(name, options["force"]) as file:
                    _write(stored, format, file, job)
        except JobCancelled:
            raise CommandError("It was cancelled.") from None
        if name != "-":
            self.stdout.write(f"{library_id}: {counted(stored.read, 'row')}, {os.path.getsize(name)} bytes in {name}")


def _write(stored: StoredLibrary, format: Format, file: BinaryIO, job: JobContext) -> None:
    total = stored.count()
    with progress_bar(desc=f"exporting {job.library}", total=total, unit="row") as bar:
        for part in format.write(stored):
            file.write(part)
            job.advance(stored.read, total)
            bar.update(stored.read - bar.n)


def _check_target(path: Path, *, replace: bool) -> None:
    """Raise CommandError where there is something that is not to be replaced, or no folder."""
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {path.parent}. Make it, or name another one.")
    if os.path.lexists(path) and not replace:
        raise CommandError(f"{path} exists. Name another file, or replace it by --force.")
    if path.exists() and not path.is_file():
        raise CommandError(f"{path} is no file. Name another one, or - for standard output.")


@contextlib.contextmanager
def _output(name: str, replace: bool) -> Iterator[BinaryIO]:
    """The file to write to. It has its name when it is complete, and on the disk."""
    if name == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise BrokenPipeError(errno.EPIPE, "nobody reads on", "Standard output") from None
        return
    path = Path(name)
    _sweep_drafts(path)
    with name_file(path), _new_draft(path) as (draft, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            _give_name(draft, path)


@contextlib.contextmanager
def _new_draft(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `path`, which is locked in the block, and gone after it."""
    while True:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DRAFT}")
        with _create(draft, path) as file:
            try:
                # Where there are no locks, nobody gets one, and no draft is swept up.
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                # Another export may have swept it up before it was locked.
                if draft.exists():
                    yield draft, file
                    return
            finally:
                draft.unlink(missing_ok=True)


def _create(draft: Path, path: Path) -> BinaryIO:
    """Create and open a draft; an error names `path`, for which it is."""
    try:
        return draft.open("xb")
    except OSError as error:
        error.filename = str(path)
        raise


def _sweep_drafts(path: Path) -> None:
    """Delete the drafts of `path` whose exports were killed."""
    for draft in path.parent.glob(f".*{_DRAFT}"):
        if draft.name.startswith(f".{path.name}."):
            with contextlib.suppress(OSError), draft.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                draft.unlink()


def _give_name(draft: Path, path: Path) -> None:
    """Let a draft have a name that nothing has. Raise CommandError where something got it meanwhile."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in (errno.EEXIST, *_NO_LINKS):
            raise
        _check_target(path, replace=False)
        draft.rename(path)
