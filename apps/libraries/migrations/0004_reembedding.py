"""Moves of libraries to another embedding model that are under way."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("libraries", "0003_embedding_model")]

    operations = [
        migrations.CreateModel(
            "Reembedding",
            fields=[
                (
                    "library",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="reembedding",
                        serialize=False,
                        to="libraries.library",
                    ),
                ),
                ("generation", models.PositiveIntegerField()),
                ("provider", models.CharField(max_length=64)),
                ("model", models.CharField(max_length=500)),
                ("dimension", models.PositiveIntegerField(null=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("waiting", "Waiting"),
                            ("failed", "Failed"),
                            ("sweeping", "Sweeping"),
                        ],
                        default="running",
                        max_length=16,
                    ),
                ),
                ("error", models.TextField(default="")),
                ("retry_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={"db_table": "reembedding"},
        ),
    ]
