"""The reference of ingest: Django's `bulk_create` of the same rows, with the server's own models, triggers and database
settings. Run as `python -m benchmarks.bulk_create DATA ROWS` with VECTORDB_DATA_DIR set; prints seconds.

Model instances are made within the measured time, since a program that uses the ORM has to make them; JSON is parsed
before it.
"""

import os
import sys

import django
import orjson

from benchmarks.dataset import Dataset
from benchmarks.timing import seconds


def main(data_folder: str, count: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
    django.setup()

    from django.core.management import call_command
    from django.db import transaction

    from apps.libraries.models import Chunk, Embedding, Library
    from benchmarks.testbed import ALL, ROWS_PER_WRITE

    call_command("migrate", verbosity=0)
    data = Dataset.load(data_folder)
    rows = [
        (orjson.loads(line), vector.tobytes())
        for line, vector in zip(data.lines[:count], data.vectors[:count], strict=True)
    ]
    library = Library.objects.create(public_id=ALL, name=ALL, dimension=data.dimension)

    def write_all() -> None:
        for start in range(0, count, ROWS_PER_WRITE):
            some = rows[start : start + ROWS_PER_WRITE]
            with transaction.atomic():
                chunks = Chunk.objects.bulk_create(
                    Chunk(library=library, public_id=row["id"], text=row["text"], metadata=row["metadata"])
                    for row, _ in some
                )
                Embedding.objects.bulk_create(
                    Embedding(chunk=chunk, generation=library.generation, vector=vector)
                    for chunk, (_, vector) in zip(chunks, some, strict=True)
                )

    print(seconds(write_all))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
