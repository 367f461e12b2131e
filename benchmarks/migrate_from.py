"""Migration from Chroma beside an import of the same rows from a zip, each into a library of its own.

`python -m benchmarks.migrate_from [ROWS]` (default: all rows) needs chromadb: `make test-migrate` makes an environment
that has it, .venv-migrate.
"""

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from benchmarks.dataset import Dataset, MissingData
from benchmarks.report import Row, at_most, times_at_least
from benchmarks.standalone import make_parser, report, use_default_settings
from benchmarks.timing import progress, seconds

_ROWS_PER_ADD = 2000


def main() -> int:
    options = make_parser("migrate_from", __doc__, None).parse_args()
    try:
        import chromadb

        data = Dataset.load(options.data)
    except (ImportError, MissingData) as reason:
        print(f"Nothing was measured: {reason}; docs/benchmarks.md says what is needed.", file=sys.stderr)
        return 0

    def measure(scratch: Path) -> list[Row]:
        _fill(chromadb, scratch / "chroma", data, options.rows or len(data))
        _set_up(scratch / "data")
        return _measure(scratch / "chroma", options.rows or len(data))

    report("migrate_from", measure)
    return 0


def _fill(chromadb: Any, folder: Path, data: Dataset, rows: int) -> None:
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    collection = chromadb.PersistentClient(str(folder), settings=settings).create_collection(
        "migrated", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
    )
    for start in progress(range(0, rows, _ROWS_PER_ADD), "Chroma"):
        some = slice(start, min(start + _ROWS_PER_ADD, rows))
        collection.add(
            ids=[row["id"] for row in data.rows[some]],
            embeddings=data.vectors[some],
            documents=[row["text"] for row in data.rows[some]],
            metadatas=[row["metadata"] for row in data.rows[some]],
        )


def _set_up(folder: Path) -> None:
    """An empty database, used by this process."""
    use_default_settings()
    os.environ |= {"VECTORDB_DATA_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "vectordb.settings"}
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from apps.libraries.dialects import create_database

    create_database(connection)
    call_command("migrate", verbosity=0)


def _measure(chroma: Path, rows: int) -> list[Row]:
    from apps.transfer.exporting import export_library
    from apps.transfer.formats import format_of
    from apps.transfer.importing import import_source, open_library
    from apps.transfer.migrating import migrate, open_source, plan, running_migration
    from apps.transfer.migration_check import compare
    from apps.transfer.sources.base import Fields

    fields = Fields()
    planned = plan(open_source("chroma", str(chroma), fields), "chroma", "migrated", fields=fields)
    with running_migration(planned) as job:
        began = time.perf_counter()
        migrated = migrate(planned, job, sample=500)
        took = time.perf_counter() - began
    assert migrated.report.created == rows, migrated.report
    found = compare(planned, migrated)

    format, path = format_of("zip"), chroma.with_name("rows.zip")
    with path.open("wb") as file:
        file.writelines(export_library(library_id="migrated", format=format))
    with path.open("rb") as file:
        source = format.read(file)
        open_library("imported", source.library, create=True)
        import_rate = rows / seconds(lambda: deque(import_source(library_id="imported", source=source), 0))
    return [
        Row("migrate_from chroma", rows / took, "rows/s", "import of a zip", import_rate, times_at_least(0.5)),
        Row("rows that differ, of the sample", found.different, "rows", wanted=at_most(0)),
        Row("answers with a farther row than Chroma's, of the sample", found.worse, "answers", wanted=at_most(0)),
    ]


if __name__ == "__main__":
    sys.exit(main())
