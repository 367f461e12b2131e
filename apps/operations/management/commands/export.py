"""`manage.py export`: a library as one file."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from apps.access.management.base import AuditedCommand
from apps.libraries.errors import LibraryError
from apps.operations.management.base import one_sentence_errors
from apps.search.snapshots import open_snapshot
from apps.transfer.formats import EXPORT_FORMATS, format_of, format_of_file
from apps.transfer.stored import StoredLibrary


class Command(AuditedCommand):
    help = "Write a library to one file, all of it as it is now. Works beside a running server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", help="id of a library")
        parser.add_argument("file", help="the file to make; - for standard output")
        parser.add_argument("--format", choices=EXPORT_FORMATS, help="left out, the file's name says it")
        parser.add_argument("--force", action="store_true", help="replace a file that is there")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        name: str = options["file"]
        try:
            format = format_of(options["format"] or ("jsonl" if name == "-" else format_of_file(name)))
            with _output(name, replace=options["force"]) as file, open_snapshot() as snapshot:
                stored = StoredLibrary.open(snapshot, options["library"])
                with tqdm(desc=f"exporting {options['library']}", unit="row", disable=None) as bar:
                    bar.total = stored.count()
                    for part in format.write(stored):
                        file.write(part)
                        bar.update(stored.read - bar.n)
        except LibraryError as error:
            raise CommandError(error.detail) from error
        if name != "-":
            self.stdout.write(f"{options['library']}: {stored.read} rows, {os.path.getsize(name)} bytes in {name}")


@contextmanager
def _output(name: str, *, replace: bool) -> Iterator[BinaryIO]:
    """The file to write to. It has its name when it is complete, and on the disk."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not replace:
        raise CommandError(f"{name} exists. Name another file, or replace it by --force.")
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
        try:
            yield draft  # type: ignore[misc]
            draft.flush()
            os.fsync(draft.fileno())
            os.chmod(draft.name, 0o666 & ~_umask())
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink()
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
