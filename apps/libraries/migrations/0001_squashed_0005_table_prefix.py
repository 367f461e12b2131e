"""The tables as they are named since 0005. A new database begins here, so that it never holds a table without the prefix,
which another program that shares a PostgreSQL may have; a database of an earlier version goes by 0001 to 0005."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models
from django.db.models.functions import Length
from django.db.models.lookups import Exact, GreaterThan

import apps.libraries.models


class Migration(migrations.Migration):
    initial = True
    replaces = [
        ("libraries", "0001_initial"),
        ("libraries", "0002_index_files"),
        ("libraries", "0003_embedding_model"),
        ("libraries", "0004_reembedding"),
        ("libraries", "0005_table_prefix"),
    ]
    dependencies = []

    operations = [
        migrations.CreateModel(
            "Library",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("public_id", models.CharField(max_length=128, unique=True, verbose_name="id")),
                ("uid", models.CharField(default=apps.libraries.models.new_uid, editable=False, max_length=32, unique=True)),
                ("name", models.CharField(max_length=200)),
                ("description", models.TextField(blank=True, default="")),
                ("dimension", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "metric",
                    models.CharField(
                        choices=[("cosine", "cosine"), ("dot", "dot"), ("euclidean", "euclidean")],
                        default="cosine",
                        max_length=16,
                    ),
                ),
                ("index_type", models.CharField(default="auto", max_length=32)),
                ("index_params", apps.libraries.models.ExactJSONField(blank=True, default=dict)),
                ("embedding_provider", models.CharField(blank=True, default="", editable=False, max_length=64)),
                ("embedding_model", models.CharField(blank=True, default="", editable=False, max_length=500)),
                ("metadata", apps.libraries.models.ExactJSONField(blank=True, default=dict)),
                ("generation", models.PositiveIntegerField(default=1, editable=False)),
                ("manifest", models.BigIntegerField(default=0, editable=False)),
                ("rebuild", models.BigIntegerField(default=0, editable=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "verbose_name_plural": "libraries",
                "db_table": "vectordb_library",
                "ordering": ["id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("dimension__isnull", True), ("dimension__gte", 1), _connector="OR"),
                        name="vectordb_library_dimension",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("metric__in", ["cosine", "dot", "euclidean"])), name="vectordb_library_metric"
                    ),
                    models.CheckConstraint(
                        condition=~models.Q(("name", "")) & ~models.Q(("public_id", "")), name="vectordb_library_named"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            "Document",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "library",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="documents",
                        to="libraries.library",
                    ),
                ),
                ("public_id", models.CharField(max_length=128, verbose_name="id")),
                ("title", models.TextField(blank=True, default="")),
                ("source", models.TextField(blank=True, default="")),
                ("metadata", apps.libraries.models.ExactJSONField(blank=True, default=dict)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "db_table": "vectordb_document",
                "ordering": ["id"],
                "constraints": [
                    models.UniqueConstraint(fields=["library", "public_id"], name="vectordb_document_id_unique")
                ],
                "indexes": [models.Index(fields=["library", "id"], name="vectordb_document_order")],
            },
        ),
        migrations.CreateModel(
            "Chunk",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "library",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="chunks",
                        to="libraries.library",
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="chunks",
                        to="libraries.document",
                    ),
                ),
                ("public_id", models.CharField(max_length=128, verbose_name="id")),
                ("text", models.TextField(blank=True, default="")),
                ("metadata", apps.libraries.models.ExactJSONField(blank=True, default=dict)),
                ("position", models.PositiveIntegerField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "db_table": "vectordb_chunk",
                "ordering": ["id"],
                "constraints": [
                    models.UniqueConstraint(fields=["library", "public_id"], name="vectordb_chunk_id_unique")
                ],
                "indexes": [
                    models.Index(fields=["library", "id"], name="vectordb_chunk_order"),
                    models.Index(fields=["document", "position"], name="vectordb_chunk_of_document"),
                ],
            },
        ),
        migrations.CreateModel(
            "Embedding",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "chunk_id", "generation", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "chunk",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="embeddings",
                        to="libraries.chunk",
                    ),
                ),
                ("generation", models.PositiveIntegerField()),
                ("vector", models.BinaryField()),
            ],
            options={
                "db_table": "vectordb_embedding",
                "constraints": [
                    models.CheckConstraint(
                        condition=GreaterThan(Length("vector"), 0) & Exact(Length("vector") % 4, 0),
                        name="vectordb_embedding_float32",
                    )
                ],
            },
        ),
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
            options={"db_table": "vectordb_reembedding"},
        ),
        migrations.CreateModel(
            "Change",
            fields=[
                ("seq", models.BigAutoField(primary_key=True, serialize=False)),
                ("library_key", models.BigIntegerField()),
                ("chunk_key", models.BigIntegerField()),
                ("token", models.BigIntegerField()),
            ],
            options={
                "db_table": "vectordb_change",
                "indexes": [models.Index(fields=["library_key", "seq"], name="vectordb_change_of_library")],
            },
        ),
    ]
