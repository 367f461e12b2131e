"""Qdrant: a folder of the client's local mode, a shard and its snapshot."""

import io
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
    assert "; 4 ids, of which 0 are not there" in said
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


def make_shard(path: Path, rows: dict[int, list[float]], distance: Any) -> None:
    shard = edge.EdgeShard.create(
        str(path), edge.EdgeConfig(vectors={"v": edge.EdgeVectorParams(size=4, distance=distance)})
    )
    points = [edge.Point(i, {"v": vector}, {"text": f"T{i}", "n": None}) for i, vector in rows.items()]
    shard.update(edge.UpdateOperation.upsert_points(points))
    shard.close()


@pytest.fixture(params=["Euclid", "Cosine"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The snapshot of a collection of three shards, one of them empty, as `Collection::create_snapshot` and
    `LocalShard::get_snapshot_creator` of Qdrant's server write it: a tar of each segment in the tar of all."""
    rows = dict(enumerate(random_vectors(50, 4).tolist()))
    parts = {"0": {}, "1": {i: rows[i] for i in range(20)}, "10": {i: rows[i] for i in range(20, 50)}}
    with tarfile.open(tmp_path / "all.snapshot", "w") as snapshot:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            snapshot.addfile(entry, io.BytesIO(content))

        for number, part in parts.items():
            path = tmp_path / "shards" / number
            make_shard(path, part, getattr(edge.Distance, request.param))
            for segment in (path / "segments").iterdir():
                packed = io.BytesIO()
                with tarfile.open(fileobj=packed, mode="w") as files:
                    files.add(segment, "snapshot/files")
                add(f"{number}/segments/{segment.name}.tar", packed.getvalue())
            snapshot.add(path / "wal", f"{number}/wal")
            add(f"{number}/replica_state.json", b"{}")
            add(f"{number}/shard_config.json", b'{"type":"ReplicaSet"}')
        add("version.info", b"1.16.0")
        add("config.json", b"{}")
        add("shard_key_mapping.json", b"[]")
        add("payload_index.json", b"{}")
    return tmp_path / "all.snapshot"


def test_a_snapshot_of_a_collection_has_all_its_shards(collection: Path, migrate: Migrate) -> None:
    said = migrate("qdrant", collection)
    assert_same_answers(said, 50, 50)
    assert "; 50 ids, of which 0 are not there" in said
    assert [text for text, _, _ in stored("all", "0", "19", "20", "49").values()] == ["T0", "T19", "T20", "T49"]


def test_a_shard_of_another_node_is_told(collection: Path, migrate: Migrate, tmp_path: Path) -> None:
    with tarfile.open(collection) as whole, tarfile.open(tmp_path / "some.snapshot", "w") as some:
        for member in whole:
            if not member.name.startswith("1/segments"):
                some.addfile(member, whole.extractfile(member) if member.isfile() else None)
    with pytest.raises(CommandError, match=r"Another node has shard 1 of the collection\. Migrate a snapshot of each"):
        migrate("qdrant", tmp_path / "some.snapshot")


def test_a_shard_and_its_snapshot_are_read_without_a_server(tmp_path: Path, migrate: Migrate) -> None:
    path = tmp_path / "shard"
    vectors = random_vectors(50, 4).tolist()
    make_shard(path, dict(enumerate(vectors)), edge.Distance.Euclid)
    with tarfile.open(tmp_path / "taken.snapshot", "w") as snapshot:
        snapshot.add(path, ".")
    for location in (path, tmp_path / "taken.snapshot"):
        assert_same_answers(migrate("qdrant", location), 50, 50)
        assert stored(location.stem, "0", "49") == {
            "0": ("T0", {"n": None}, vectors[0]),
            "49": ("T49", {"n": None}, vectors[49]),
        }
