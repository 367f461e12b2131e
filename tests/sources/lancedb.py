"""LanceDB: tables with and without ids."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from apps.libraries.models import Library
from tests.sources.conftest import assert_same_answers, random_vectors, stored

lancedb: Any = import_module("lancedb")
arrow: Any = import_module("pyarrow")
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

Migrate = Callable[..., str]
VECTORS = random_vectors(60, 4).tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The table `docs` has ids and a vector that is null, `plain` has no ids and two versions."""
    database = lancedb.connect(tmp_path / "lance")
    vector = arrow.list_(arrow.float32(), 4)
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("vector", vector),
            ("text", arrow.string()),
            ("at", arrow.timestamp("us", "UTC")),
            ("tags", arrow.list_(arrow.string())),
            ("of", arrow.struct([("page", arrow.int64()), ("none", arrow.string())])),
        ]
    )
    rows = [
        {
            "id": f"it's {i}",
            "vector": one if i != 5 else None,
            "text": f"T{i}",
            "at": datetime(2025, 1, 2, tzinfo=UTC),
            "tags": ["a"],
            "of": {"page": i, "none": None},
        }
        for i, one in enumerate(VECTORS)
    ]
    table = database.create_table("docs", rows, schema=schema, on_bad_vectors="null")
    table.create_index(metric="dot", vector_column_name="vector", index_type="IVF_FLAT", num_partitions=1)
    schema = arrow.schema([("vec", vector), ("n", arrow.int64())])
    plain = database.create_table("plain", [{"vec": one, "n": i} for i, one in enumerate(VECTORS)], schema=schema)
    plain.delete("n = 3")
    return tmp_path / "lance"


def test_tables_keep_rows(folder: Path, migrate: Migrate) -> None:
    said = migrate("lancedb", folder)
    assert "docs: 60 created" in said
    assert "plain: 59 created" in said
    assert_same_answers(said, 60, 59)
    assert_same_answers(said, 59, 59)
    assert "; 60 ids, of which 0 are not there" in said
    assert "; 59 ids, of which 0 are not there" in said
    metadata = {"at": "2025-01-02T00:00:00+00:00", "tags": ["a"], "of": {"page": 5, "none": None}}
    assert stored("docs", "it's 5") == {"it's 5": ("T5", metadata, None)}
    assert stored("docs", "it's 9")["it's 9"][2] == VECTORS[9]
    assert dict(Library.objects.values_list("public_id", "metric")) == {"docs": "dot", "plain": "euclidean"}
    found = stored("plain", *map(str, range(60)))
    assert [(metadata["n"], vector) for _, metadata, vector in found.values()] == [
        (i, one) for i, one in enumerate(VECTORS) if i != 3
    ]


def test_a_folder_without_tables_is_refused(tmp_path: Path, migrate: Migrate) -> None:
    with pytest.raises(CommandError, match=r"it has no table NAME\.lance"):
        migrate("lancedb", tmp_path)
