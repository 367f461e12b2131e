"""A manifest of another format, library or generation is not read."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import xxhash

from apps.engine.errors import Damaged, Superseded
from apps.engine.storage.manifest import FORMAT, Identity, Manifest
from apps.engine.text import analyzer
from tests.engine.storage.stored import IDENTITY, StoredLibrary


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], **head: Any) -> None:
    """Change a manifest, and give it the checksum that it must have then."""
    fields = orjson.loads(path.read_bytes().partition(b"\n")[2])
    change(fields)
    body = orjson.dumps(fields)
    whole = {"format": FORMAT, "words": analyzer.VERSION, "xxh3": xxhash.xxh3_64_hexdigest(body)} | head
    path.write_bytes(orjson.dumps(whole) + b"\n" + body)


def change_nothing(fields: dict[str, Any]) -> None:
    pass


def drop_a_field(fields: dict[str, Any]) -> None:
    del fields["token"]


def add_a_field(fields: dict[str, Any]) -> None:
    fields["segments"][0]["colour"] = "red"


def drop_the_identity(fields: dict[str, Any]) -> None:
    fields["identity"] = None


def drop_the_segments(fields: dict[str, Any]) -> None:
    fields["segments"] = 5


@pytest.mark.parametrize("version", [0, 1, None, "2"])
def test_another_format_is_not_read(plain: StoredLibrary, version: Any) -> None:
    rewrite(plain.path / "manifests" / "1" / "manifest.json", change_nothing)
    assert len(plain.open()) == 2
    rewrite(plain.path / "manifests" / "1" / "manifest.json", change_nothing, format=version)
    with pytest.raises(Damaged, match=f"manifest 1 is of format {version!r}, not {FORMAT}"):
        plain.open()


def test_words_of_another_analyzer_are_not_read(plain: StoredLibrary) -> None:
    rewrite(plain.path / "manifests" / "1" / "manifest.json", change_nothing, words=None)
    with pytest.raises(Damaged, match=f"manifest 1 has words of format None, not {analyzer.VERSION}"):
        plain.open()


@pytest.mark.parametrize("change", [drop_a_field, add_a_field, drop_the_identity, drop_the_segments])
def test_other_fields_are_not_read(plain: StoredLibrary, change: Callable[[dict[str, Any]], None]) -> None:
    rewrite(plain.path / "manifests" / "1" / "manifest.json", change)
    with pytest.raises(Damaged, match="manifest 1 cannot be read"):
        plain.open()


@pytest.mark.parametrize(
    "identity",
    [
        replace(IDENTITY, library="another"),
        replace(IDENTITY, dimension=9),
        replace(IDENTITY, metric="dot"),
    ],
)
def test_a_manifest_of_other_vectors_is_not_read(plain: StoredLibrary, identity: Identity) -> None:
    with pytest.raises(Damaged, match="of another library, or of other vectors"):
        plain.folder.read(1, identity)


def test_a_manifest_of_another_generation_is_no_damage(plain: StoredLibrary) -> None:
    with pytest.raises(Superseded, match="manifest 1 is of generation 1 of the vectors"):
        plain.folder.read(1, replace(IDENTITY, generation=2))


def test_a_manifest_of_the_time_before_or_after_the_first_vector_is_no_damage(plain: StoredLibrary) -> None:
    with pytest.raises(Superseded, match="manifest 1 is of the time after the first vector"):
        plain.folder.read(1, replace(IDENTITY, dimension=0))
    earlier = replace(plain.manifest, identity=replace(IDENTITY, dimension=0))
    with pytest.raises(Superseded, match="manifest 1 is of the time before the first vector"):
        earlier.check(1, IDENTITY)


def test_a_manifest_that_leaves_out_other_metadata_is_no_damage(plain: StoredLibrary) -> None:
    with pytest.raises(Superseded, match="manifest 1 leaves out other metadata"):
        plain.folder.read(1, replace(IDENTITY, unindexed=("a",)))
    with pytest.raises(Damaged, match="manifest 1 is of another library"):
        plain.folder.read(1, replace(IDENTITY, unindexed=("a",), library="other"))
    kept = replace(plain.manifest, number=2, identity=replace(IDENTITY, unindexed=("a", "b.c")))
    assert Manifest.decode(kept.encode(), 2) == kept


def test_a_manifest_under_another_number_is_not_read(plain: StoredLibrary) -> None:
    shutil.copytree(plain.path / "manifests" / "1", plain.path / "manifests" / "2")
    assert plain.folder.numbers() == [2, 1]
    with pytest.raises(Damaged, match="manifest 2"):
        plain.folder.read(2, IDENTITY)
    assert plain.folder.read(1, IDENTITY) == plain.manifest
