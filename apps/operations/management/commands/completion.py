"""`completion`: print what completes this program's command line in a shell."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import shtab
from django.core.management.base import BaseCommand, CommandParser

from apps.operations.management.own import own_commands, summary


class Command(BaseCommand):
    help = "Print a script that completes the commands and options of `vectordb` in a shell."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("shell", choices=("bash", "zsh", "fish"))

    def handle(self, *args: Any, shell: str, **options: Any) -> None:
        program = ArgumentParser("vectordb")
        data: Any = program.add_argument("--data", metavar="FOLDER", help="the data folder")
        data.complete = shtab.DIRECTORY
        commands = program.add_subparsers()
        for name, command in own_commands().items():
            parser = command.create_parser("vectordb", name)
            for action in parser._actions:
                if action.type is Path:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
            commands.add_parser(name, help=summary(command), parents=[parser], add_help=False)
        self.stdout.write(shtab.complete(program, shell))
