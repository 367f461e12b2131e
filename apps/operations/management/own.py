"""This program's own commands, among all those that Django finds."""

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand


def own_commands() -> dict[str, BaseCommand]:
    """Commands by name, those for the accounts of people included."""
    apps = sorted((name, str(app)) for name, app in get_commands().items())
    return {name: load_command_class(app, name) for name, app in apps if app.startswith("apps.")}


def summary(command: BaseCommand) -> str:
    """The first sentence of its help."""
    return f"{command.help.partition('. ')[0].removesuffix('.')}."
