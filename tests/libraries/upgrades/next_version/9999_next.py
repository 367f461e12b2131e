"""A migration that alters every table which has triggers, or which triggers read."""

from pathlib import Path
from typing import Any

from django.db import migrations, models

from apps.libraries import migrations as present
from tests.libraries.upgrades import interrupt

NEWEST = max(path.stem for path in Path(present.__path__[0]).glob("[0-9]*.py"))


def _interrupt(apps: Any, schema_editor: Any) -> None:
    interrupt()


class Migration(migrations.Migration):
    dependencies = [("libraries", NEWEST)]

    operations = [
        migrations.AddField("library", "colour", models.TextField(default="blue")),
        migrations.AlterField("library", "name", models.CharField(max_length=300)),
        migrations.AddField("document", "colour", models.TextField(default="blue")),
        migrations.RunPython(_interrupt),
        migrations.AddField("chunk", "colour", models.TextField(default="blue")),
        migrations.AddField("embedding", "colour", models.TextField(default="blue")),
    ]
