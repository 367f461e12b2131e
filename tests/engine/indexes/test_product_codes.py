"""The files of types whose codes are scanned: each is checked before faiss sees it."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from apps.engine.indexes.base import VectorIndex
from apps.engine.indexes.matrix import Matrix
from apps.engine.indexes.registry import index_type
from apps.engine.metrics import Metric
from apps.engine.vectors import Float32
from tests.engine.approximate import embeddings

ROWS, DIMENSION = 6000, 48
ABOUT = {"quantized": "codes.json", "ivf": "lists.json"}
every_type = pytest.mark.parametrize("kind", ABOUT)


@cache
def built(kind: str) -> tuple[Float32, VectorIndex]:
    vectors = embeddings(ROWS, DIMENSION)
    vectors.flags.writeable = False
    return vectors, index_type(kind).build(Matrix(vectors, Metric.COSINE))


@every_type
def test_files_that_hold_something_else_are_refused(kind: str, tmp_path: Path) -> None:
    vectors, index = built(kind)
    index.save(tmp_path)
    names = [ABOUT[kind], "centres.npy", "pieces.npy", "lists.npy", "codes.bin", "copies.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    about, codes = json.loads((tmp_path / ABOUT[kind]).read_text()), (tmp_path / "codes.bin").read_bytes()
    sizes = np.load(tmp_path / "lists.npy")

    def described(**changes: object) -> bytes:
        return json.dumps(about | changes).encode()

    def array(values: np.ndarray) -> bytes:
        np.save(tmp_path / "other.npy", values)
        content = (tmp_path / "other.npy").read_bytes()
        (tmp_path / "other.npy").unlink()
        return content

    damages = [
        *((name, content) for name in names for content in (b"", b"\0" * 200, b"\xff", b"7", b"{}")),
        ("codes.bin", codes[:-1]),
        ("codes.bin", codes + b"\0"),
        ("lists.npy", array(sizes.astype(np.int32))),
        ("lists.npy", array(np.append(sizes, 0))),
        ("lists.npy", array(sizes - 1)),
        ("lists.npy", array(-sizes)),
        ("centres.npy", array(np.zeros((len(sizes), DIMENSION)))),
        ("pieces.npy", array(np.zeros((DIMENSION // 4, 16, 5), np.float32))),
        (ABOUT[kind], described(piece=5)),
        (ABOUT[kind], described(recall=None)),
        (ABOUT[kind], described(recall=about["recall"] | {"targets": []})),
        (ABOUT[kind], described(recall=about["recall"] | {"targets": about["recall"]["targets"][::-1]})),
        (ABOUT[kind], described(recall=about["recall"] | {"values": {}})),
    ]
    for name, content in damages:
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ValueError, OSError)):
            index_type(kind).load(tmp_path, Matrix(vectors, Metric.COSINE))
        (tmp_path / name).write_bytes(before)
    for others in (vectors[:-1], vectors[:, :-4]):
        with pytest.raises(ValueError, match="holds"):
            index_type(kind).load(tmp_path, Matrix(others, Metric.COSINE))
    for name in names:
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            index_type(kind).load(tmp_path, Matrix(vectors, Metric.COSINE))
        (tmp_path / "away").rename(tmp_path / name)
    index_type(kind).load(tmp_path, Matrix(vectors, Metric.COSINE))


@every_type
def test_a_full_disk_is_told(kind: str, tmp_path: Path) -> None:
    (tmp_path / "codes.bin").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        built(kind)[1].save(tmp_path)


@every_type
def test_the_same_rows_give_the_same_files(kind: str, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        index_type(kind).build(Matrix(embeddings(5000, 20), Metric.DOT)).save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
