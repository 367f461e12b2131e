"""Which index files are a library's newest, and how often a rebuild of its index was asked for."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("libraries", "0001_initial")]

    operations = [
        migrations.AddField("library", "manifest", models.BigIntegerField(default=0, editable=False)),
        migrations.AddField("library", "rebuild", models.BigIntegerField(default=0, editable=False)),
    ]
