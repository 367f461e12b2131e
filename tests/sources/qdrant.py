"""Qdrant: a folder of the client's local mode, a shard and its snapshot."""

import tarfile
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from apps.libraries.models import Library
from tests.sources.conftest import assert_same_answers, random_vectors, stored

client: Any = import_module("qdrant_client")
edge: Any = import_module("qdrant_edge")
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

Migrate = Callable[..., str]
PAYLOAD: dict[str, Any] = {
    "page_content": "Text",
    "metadata": {"source": "a.pdf", "page": 3},
    "none": None,
    "nested": {"list": [1, {"deep": None}], "empty": {}},
}
IDS = [1, 2, str(uuid.UUID(int=7)), 4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The collection `one` has points of one vector, `named` those of some of two, `far` an unknown metric."""
    path, models = tmp_path / "qdrant", client.models
    database = client.QdrantClient(path=str(path))
    database.create_collection("one", models.VectorParams(size=4, distance=models.Distance.DOT))
    two = {
        "small": models.VectorParams(size=2, distance=models.Distance.EUCLID),
        "large": models.VectorParams(size=4, distance=models.Distance.COSINE),
    }
    database.create_collection("named", two)
    database.create_collection("far", models.VectorParams(size=2, distance=models.Distance.MANHATTAN))
    vectors = random_vectors(4, 4).tolist()
    for key, vector in zip(IDS, vectors, strict=True):
        database.upsert("one", [models.PointStruct(id=key, vector=vector, payload=PAYLOAD)])
        named = {"small": vector[:2]} if key != 2 else {"large": vector}
        database.upsert("named", [models.PointStruct(id=key, vector=named)])
    database.close()
    return path


def test_a_folder_keeps_points(folder: Path, migrate: Migrate) -> None:
    fields = {"text": "page_content", "metadata": "metadata"}
    said = migrate("qdrant", folder, collection=["one"], **fields)
    assert "4 created" in said
    assert_same_answers(said, 4, 4)
    metadata = {"source": "a.pdf", "page": 3, "none": None, "nested": PAYLOAD["nested"]}
    vectors = random_vectors(4, 4).tolist()
    expected = {str(key): ("Text", metadata, vector) for key, vector in zip(IDS, vectors, strict=True)}
    assert stored("one", *map(str, IDS)) == expected
    assert Library.objects.get().metric == "dot"


def test_one_of_several_vectors_is_chosen(folder: Path, migrate: Migrate) -> None:
    with pytest.raises(CommandError, match="Name a vector by --vector; there are: 'small', 'large'"):
        migrate("qdrant", folder, collection=["named"])
    with pytest.raises(CommandError, match=r"Say how by --metric: cosine, dot, euclidean"):
        migrate("qdrant", folder, collection=["far"])
    said = migrate("qdrant", folder, collection=["named"], vector="small")
    assert_same_answers(said, 4, 3)
    vectors = [vector for _, _, vector in stored("named", *map(str, IDS)).values()]
    assert vectors == [vector[:2] if i != 1 else None for i, vector in enumerate(random_vectors(4, 4).tolist())]


def test_a_shard_and_its_snapshot_are_read_without_a_server(tmp_path: Path, migrate: Migrate) -> None:
    path = tmp_path / "shard"
    shard = edge.EdgeShard.create(
        str(path), edge.EdgeConfig(vectors={"v": edge.EdgeVectorParams(size=4, distance=edge.Distance.Euclid)})
    )
    vectors = random_vectors(50, 4).tolist()
    points = [edge.Point(i, {"v": vector}, {"text": f"T{i}", "n": None}) for i, vector in enumerate(vectors)]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.close()
    with tarfile.open(tmp_path / "taken.snapshot", "w") as snapshot:
        snapshot.add(path, ".")
    for location in (path, tmp_path / "taken.snapshot"):
        assert_same_answers(migrate("qdrant", location), 50, 50)
        assert stored(location.stem, "0", "49") == {
            "0": ("T0", {"n": None}, vectors[0]),
            "49": ("T49", {"n": None}, vectors[49]),
        }
