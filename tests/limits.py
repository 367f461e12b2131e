"""What a system refuses a process that has used up what it may have."""

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

# A command before a command that permissions of files bind, as they do not bind root otherwise. It stays the parent.
BOUND_BY_PERMISSIONS = (
    ["sh", "-c", 'setpriv --bounding-set=-dac_override --inh-caps=-dac_override "$0" "$@"; exit $?']
    if os.geteuid() == 0
    else []
)


@contextlib.contextmanager
def make_read_only(folder: Path) -> Iterator[None]:
    """Let nobody who is bound by permissions write below `folder` during the block."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    before = [path.stat().st_mode for path in folders]
    for path in folders:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        yield
    finally:
        for path, mode in zip(folders, before, strict=True):
            path.chmod(mode)


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let the system give this process `count` more file descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(name) for name in os.listdir("/dev/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    taken: list[int] = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                break
        resource.setrlimit(resource.RLIMIT_NOFILE, (most + count, before[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write more into a file, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
