"""Bring rows of another database: JSON lines, one row each, whose fields may have other names.

    python examples/migrate.py rows.jsonl LIBRARY --id _id --text document --vector embedding

What is no id, text or vector becomes metadata. Run it again after a break: rows have ids, so none comes twice. The
server's own `manage.py migrate_from` reads Chroma, Qdrant, pgvector, LanceDB and faiss directly.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from vectordb_client import Client

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file")
parser.add_argument("library")
parser.add_argument("--id", default="id")
parser.add_argument("--text", default="text")
parser.add_argument("--vector", default="vector")
options = parser.parse_args()


def rows() -> Iterator[dict[str, Any]]:
    with open(options.file, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            known = {"id": str(row.pop(options.id)), "text": row.pop(options.text, "")}
            yield {**known, "vector": row.pop(options.vector, None), "metadata": row.pop("metadata", {}) | row}


client = Client()
library = client.libraries.create(options.library, if_exists="get")
report = library.upload(rows(), progress=True)
print(f"{report.created} created, {report.updated} updated, {len(report.errors)} refused")
for error in report.errors[:10]:
    print(f"row {error.row}: {error.detail}")
