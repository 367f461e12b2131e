"""The command line, `manage.py` in a checkout and `vectordb` of the package: Django's, with `--data` and own help."""

import argparse
import gc
import os
import signal
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility, get_commands
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, OperationalError, ProgrammingError

from vectordb import __version__

# Before numpy is loaded: threads of BLAS spin between calls, which takes the cores from the other processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is imported stays. Looked through for garbage every 700 objects, it is a fifth of the time of a start.
gc.set_threshold(10_000, 10, 10)

_DATA_HELP = "the data folder, in place of VECTORDB_DATA_DIR"


def main() -> None:
    """Run the command that the process's arguments name; `--data` and `--version` may stand before or behind it."""
    try:
        try:
            _run()
        finally:
            # Else Python does it when it ends, and complains of a reader that has gone.
            sys.stdout.flush()
    except BrokenPipeError:
        # As of `| head`. What is left of the output goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _run() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data")
    parser.add_argument("--version", action="version", version=f"vectordb {__version__}")
    options, sys.argv[1:] = parser.parse_known_args()
    if options.data is not None:
        os.environ["VECTORDB_DATA_DIR"] = options.data
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
    try:
        # Raises ImproperlyConfigured.
        import vectordb.settings  # noqa: F401

        _Utility(sys.argv).execute()
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except (OperationalError, ProgrammingError) as error:
        if not _is_without_tables():
            _exit_by_failure(error)
            raise
        from apps.operations.management.base import no_database

        sys.exit(no_database(f" ({error})"))
    except KeyboardInterrupt:
        sys.exit(130)


class _Utility(ManagementUtility):
    """Django's, which lists this program's own commands first, with what they do."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        """The command, whose help shows `--data`, too. What stands behind it, `_run` has taken already."""
        command = super().fetch_command(subcommand)
        add_arguments = command.add_arguments

        def add_all(parser: CommandParser) -> None:
            add_arguments(parser)
            parser.add_argument("--data", metavar="FOLDER", help=_DATA_HELP)

        command.add_arguments = add_all  # type: ignore[method-assign]
        return command

    def main_help_text(self, commands_only: bool = False) -> str:
        if commands_only:
            return super().main_help_text(commands_only=True)
        from apps.operations.management.own import own_commands, summary

        own = own_commands()
        width = max(map(len, own))
        return "\n".join(
            [
                f"Usage: {self.prog_name} [--data FOLDER] COMMAND [OPTIONS]",
                "",
                "Commands:",
                *(f"  {name:{width}}  {summary(command)}" for name, command in own.items()),
                "",
                f"Of Django: {', '.join(sorted(get_commands().keys() - own.keys()))}",
                "",
                f"--data FOLDER    {_DATA_HELP}",
                "--version        show the version",
                "",
                f"`{self.prog_name} COMMAND --help` shows what a command takes. Settings are environment variables.",
            ]
        )


def _exit_by_failure(error: DatabaseError) -> None:
    """End with a sentence where an error is no bug, as while the database does not answer."""
    from apps.libraries.dialects import failure_of, sentence_of

    if failure_of(error) is not None:
        sys.exit(sentence_of(error))


def _is_without_tables() -> bool:
    from django.db import connection

    try:
        return "vectordb_library" not in connection.introspection.table_names()
    except DatabaseError:
        return connection.vendor == "sqlite" and not os.path.exists(connection.settings_dict["NAME"])
