"""Tables, indexes and constraints get the prefix `vectordb_`: a PostgreSQL is often shared with other programs.

Rows stay where they are; SQLite makes the four indexes again. The names of its constraints are part of a table's text,
known to nobody, and become the new ones when Django next remakes the table.
"""

from django.db import migrations, models
from django.db.models.functions import Length
from django.db.models.lookups import Exact, GreaterThan

TABLES = ("library", "document", "chunk", "embedding", "reembedding", "change")
CONSTRAINTS = [
    (
        "library",
        models.CheckConstraint(
            condition=models.Q(("dimension__isnull", True), ("dimension__gte", 1), _connector="OR"),
            name="library_dimension",
        ),
    ),
    (
        "library",
        models.CheckConstraint(condition=models.Q(("metric__in", ["cosine", "dot", "euclidean"])), name="library_metric"),
    ),
    (
        "library",
        models.CheckConstraint(condition=~models.Q(("name", "")) & ~models.Q(("public_id", "")), name="library_named"),
    ),
    ("document", models.UniqueConstraint(fields=["library", "public_id"], name="document_id_unique")),
    ("chunk", models.UniqueConstraint(fields=["library", "public_id"], name="chunk_id_unique")),
    (
        "embedding",
        models.CheckConstraint(
            condition=GreaterThan(Length("vector"), 0) & Exact(Length("vector") % 4, 0), name="embedding_float32"
        ),
    ),
]
INDEXES = [
    ("document", "document_order"),
    ("chunk", "chunk_order"),
    ("chunk", "chunk_of_document"),
    ("change", "change_of_library"),
]


def rename_in_state(model, constraint):
    renamed = constraint.clone()
    renamed.name = f"vectordb_{constraint.name}"
    return [migrations.RemoveConstraint(model, constraint.name), migrations.AddConstraint(model, renamed)]


# What PostgreSQL has named after a table, and how each is renamed. A constraint's index goes with it.
RENAMES = [
    (
        "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass",
        'ALTER TABLE {table} RENAME CONSTRAINT "{name}" TO "vectordb_{name}"',
    ),
    (
        "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = %s::regclass",
        'ALTER INDEX "{name}" RENAME TO "vectordb_{name}"',
    ),
    (
        "SELECT relname FROM pg_depend JOIN pg_class ON oid = objid AND relkind = 'S' WHERE refobjid = %s::regclass",
        'ALTER SEQUENCE "{name}" RENAME TO "vectordb_{name}"',
    ),
]


def rename_on_postgresql(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        for table in (f"vectordb_{table}" for table in TABLES):
            for names, rename in RENAMES:
                cursor.execute(names, [table])
                for (name,) in cursor.fetchall():
                    if not name.startswith("vectordb_"):
                        cursor.execute(rename.format(table=table, name=name))


class Migration(migrations.Migration):
    dependencies = [("libraries", "0004_reembedding")]

    operations = [
        *(migrations.AlterModelTable(table, f"vectordb_{table}") for table in TABLES),
        *(migrations.RenameIndex(model, new_name=f"vectordb_{name}", old_name=name) for model, name in INDEXES),
        migrations.SeparateDatabaseAndState(
            state_operations=[change for model, constraint in CONSTRAINTS for change in rename_in_state(model, constraint)],
            database_operations=[migrations.RunPython(rename_on_postgresql)],
        ),
    ]
