"""Runs an act again and again, each time killed one step further, until it ends; a program of its own.

A step is an event of the interpreter that files below the test's folder see: one is opened, renamed, removed or made.
The act is done in a fork of this process, which has loaded all that is needed.
`python -m tests.transfer.killed backup|restore ARGUMENT`.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect", "shutil.rmtree")


def main() -> None:
    """Print the number of steps after which the act was killed, after each time; then the name of what it made."""
    act, argument = sys.argv[1:]
    django.setup()
    from apps.transfer.backups.make import make_backup
    from apps.transfer.backups.restore import restore_backup
    from apps.transfer.backups.stores import open_store

    acts: dict[str, Callable[[], Any]] = {
        "backup": lambda: make_backup(store=open_store(argument), reason="request"),
        "restore": lambda: restore_backup(source=argument, force=True),
    }
    step = 0
    while True:
        step += 1
        child = os.fork()
        if not child:
            sys.addaudithook(_Killer(step, os.path.commonpath([argument, os.environ["VECTORDB_DATA_DIR"]])))
            acts[act]()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            sys.stdout.write(f"killed {step}\n")
        else:
            sys.stdout.write(f"ended {os.WEXITSTATUS(status)}\n")
            return
        sys.stdout.flush()
        # Whoever watches has looked.
        sys.stdin.readline()


class _Killer:
    """A hook that kills this process at its `step`-th event below a folder."""

    def __init__(self, step: int, folder: str) -> None:
        self.left, self.folder = step, folder

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and self.folder in str(arguments[0]):
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
