"""Which model makes vectors of a library's texts."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("libraries", "0002_index_files")]

    operations = [
        migrations.AddField(
            "library",
            "embedding_provider",
            models.CharField(blank=True, default="", editable=False, max_length=64),
        ),
        migrations.AddField(
            "library",
            "embedding_model",
            models.CharField(blank=True, default="", editable=False, max_length=500),
        ),
    ]
