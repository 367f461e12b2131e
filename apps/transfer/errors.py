"""What a job or a command of this app says when it ends without success."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class TransferError(Exception):
    """A failure that a person can do something about; the message is one sentence or two, for people."""


def sentence_of_system(error: OSError) -> str:
    """Return what a job says of an error of the system that it failed by."""
    return f"{error.filename or 'A file'} cannot be used: {error.strerror or error}."


@contextlib.contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Let an error of the system in the block that names no file, as of a write to a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
