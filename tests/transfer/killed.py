"""Runs an act again and again, each time killed one step further, until it ends; a program of its own.

A step is an event of the interpreter that files below the test's folder see: one is opened, renamed, removed or made.
Of imports and migrations it is some statements of the database; these go on where they were killed.
The act is done in a fork of this process, which has loaded all that is needed.
`python -m tests.transfer.killed backup|restore|delete|export|replace|import|migrate ARGUMENT`.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

_EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect", "shutil.rmtree")

# How many statements of the database are a step of an act.
_STATEMENTS = {"folder": 1, "import": 3, "migrate": 3}


def main() -> None:
    """Print the number of steps after which the act was killed, after each time; then the name of what it made."""
    act, argument = sys.argv[1:]
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from apps.transfer.backups.make import make_backup
    from apps.transfer.backups.restore import restore_backup
    from apps.transfer.backups.stores import open_store, split_source
    from apps.transfer.formats import format_of

    def delete() -> None:
        store, backup = split_source(argument)
        if backup in store.ids():
            store.delete(backup)

    rows = Path(argument).with_suffix(".jsonl")
    acts: dict[str, Callable[[], Any]] = {
        "backup": lambda: make_backup(store=open_store(argument), reason="request"),
        "restore": lambda: restore_backup(source=argument, force=True),
        "delete": delete,
        "export": lambda: call_command("export", "a", argument, stdout=io.StringIO()),
        "replace": lambda: call_command("export", "a", argument, force=True, stdout=io.StringIO()),
        "folder": lambda: call_command("import", argument, "a", "--create", stdout=io.StringIO()),
        "import": lambda: call_command("import", argument, "a", "--create", stdout=io.StringIO()),
        "migrate": lambda: call_command("migrate_from", "faiss", argument, f"--rows={rows}", stdout=io.StringIO()),
    }
    # Loaded once for all.
    open_store(argument)
    format_of("zip")
    folder = os.path.commonpath([argument.removeprefix("local://"), os.environ["VECTORDB_DATA_DIR"]])
    step = 0
    while True:
        step += 1
        child = os.fork()
        if not child:
            killer = _Killer(step, folder)
            if act in _STATEMENTS:
                killer.left *= _STATEMENTS[act]
                connection.execute_wrappers.append(killer.before_statement)
            else:
                sys.addaudithook(killer.see_event)
            acts[act]()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            sys.stdout.write(f"killed {step}\n")
        else:
            sys.stdout.write(f"ended {os.WEXITSTATUS(status)}\n")
            return
        sys.stdout.flush()
        # Whoever watches has looked, or has seen enough.
        if not sys.stdin.readline():
            return


class _Killer:
    """Kills this process at its `step`-th event below a folder, or statement."""

    def __init__(self, step: int, folder: str) -> None:
        self.left, self.folder = step, folder

    def see_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and self.folder in str(arguments[0]):
            self._count()

    def before_statement(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self._count()
        return execute(*arguments)

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
