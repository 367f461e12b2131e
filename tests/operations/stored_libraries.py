"""Libraries of a server whose index files tests look at, with the rows that they hold."""

import contextlib
import random
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from apps.engine.vectors import Float32
from tests.api.vectors import base64_of
from tests.engine.approximate import embeddings
from tests.server import Server

DIMENSION = 8
# Enough dimensions and rows for each type to make all its files, the copy in 8-bit codes included.
LARGE_DIMENSION = 32
LARGE_ROWS = {"brute_force": 530, "kd_tree": 530, "lsh": 530, "quantized": 2050, "ivf": 4050, "hnsw": 6200}
# A graph that is built quickly.
LARGE_PARAMS = {"hnsw": {"m": 8, "ef_construction": 16}}
ROWS_PER_WRITE = 2000


@dataclass
class Library:
    """A library whose vectors are whole numbers, so that a row is at distance 0 of its own vector and of no other."""

    id: str
    dimension: int = DIMENSION
    rows: dict[str, Float32] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/libraries/{self.id}"

    def create(self, client: httpx.Client, **settings: Any) -> "Library":
        body = {"id": self.id, "name": "Files", "dimension": self.dimension, "metric": "euclidean"}
        client.post("/libraries", json=body | settings).raise_for_status()
        return self

    def write(self, client: httpx.Client, count: int, first: int = 0) -> None:
        """Write the rows numbered from `first` on."""
        vectors = np.rint(embeddings(count, self.dimension, seed=first) * np.float32(1 << 20))
        rows = {str(first + i): vector for i, vector in enumerate(vectors)}
        texts = [f"row {i}" + " again" * (i % 3) for i in range(first, first + count)]
        chunks = [
            {"id": i, "text": text, "embedding": base64_of(vector)}
            for (i, vector), text in zip(rows.items(), texts, strict=True)
        ]
        for start in range(0, count, ROWS_PER_WRITE):
            some = {"chunks": chunks[start : start + ROWS_PER_WRITE]}
            client.post(f"{self.path}/chunks", json=some).raise_for_status()
        self.rows |= rows

    def delete(self, client: httpx.Client, row: str) -> None:
        client.delete(f"{self.path}/chunks/{row}").raise_for_status()
        del self.rows[row]

    def build(self, client: httpx.Client) -> None:
        """Ask for the index to be built."""
        client.post(f"{self.path}/reindex", json={}).raise_for_status()

    def index(self, client: httpx.Client) -> dict[str, Any]:
        index: dict[str, Any] = client.get(f"{self.path}/stats").raise_for_status().json()["index"]
        return index

    def is_built(self, client: httpx.Client) -> bool:
        index = self.index(client)
        assert index["state"] != "failed", index["error"]
        return index["state"] == "ready" and not index["rows_pending"]

    def assert_answers(self, client: httpx.Client) -> None:
        """Exact answers are right, others are sound."""
        ids, matrix = list(self.rows), np.array(list(self.rows.values()), np.float64)
        chosen = random.Random(len(ids)).sample(ids, min(len(ids), 12))
        queries = [{"vector": self.rows[i].tolist(), "k": 5, "exact": True, "include": []} for i in chosen]
        answer = client.post(f"{self.path}/query/batch", json={"queries": queries}).raise_for_status().json()
        for one, query in zip(answer["results"], queries, strict=True):
            nearest = np.argsort(np.linalg.norm(matrix - query["vector"], axis=1), kind="stable")[:5]
            assert [result["id"] for result in one["results"]] == [ids[i] for i in nearest]
            assert one["results"][0]["distance"] == 0
        found = client.post(f"{self.path}/query", json={"vector": queries[0]["vector"], "k": 5}).raise_for_status()
        assert len(found.json()["results"]) == 5
        assert {result["id"] for result in found.json()["results"]} <= set(ids)

    def folder(self, server: Server) -> Path:
        """Where the index files are."""
        with contextlib.closing(sqlite3.connect(server.folder / "vectordb.sqlite3")) as database:
            (uid,) = database.execute("SELECT uid FROM vectordb_library WHERE public_id = ?", [self.id]).fetchone()
        return server.folder / "index" / uid

    def manifest(self, server: Server) -> int:
        """The number of the newest manifest; 0 where there is none."""
        folder = self.folder(server) / "manifests"
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.exists() else []
        return max(numbers, default=0)

    def files(self, server: Server) -> list[Path]:
        """The files of the newest manifest and of its segments."""
        folder, number = self.folder(server), self.manifest(server)
        own = sorted((folder / "manifests" / str(number)).iterdir())
        names = set(re.findall(r'"name":"([0-9a-f]+)"', own[-1].read_text()))
        assert own[-1].name == "manifest.json"
        parts = [path for name in sorted(names) for path in sorted((folder / "segments" / name).rglob("*"))]
        return [path for path in [*own, *parts] if path.is_file()]

    def named_files(self, server: Server) -> dict[str, Path]:
        """The same by what they are, where there is one segment: their paths in its folder, and `manifest.json` and
        `mask`."""
        files = self.files(server)
        named = {_name(path): path for path in files}
        assert len(named) == len(files)
        return named


def large(client: httpx.Client, name: str, kind: str, first: int = 0) -> Library:
    """A library of an index type with all files that the type has, about to be built."""
    library = Library(name, LARGE_DIMENSION).create(client, index_type=kind, index_params=LARGE_PARAMS.get(kind, {}))
    library.write(client, LARGE_ROWS[kind], first)
    library.build(client)
    return library


def _name(path: Path) -> str:
    if "manifests" in path.parts:
        return path.name if path.suffix == ".json" else "mask"
    return "/".join(path.parts[path.parts.index("segments") + 2 :])


def assert_equal_to_the_database(server: Server) -> None:
    verified = server.manage("verify_index", "--sample", "10")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "DIFFER" not in verified.stdout


def half_done(server: Server) -> int:
    """The number of segments and manifests that nobody has finished."""
    folders = [path for path in (server.folder / "index").iterdir() if (path / "manifests").exists()]
    manifests = [path for folder in folders for path in (folder / "manifests").iterdir()]
    named = "".join((path / "manifest.json").read_text() for path in manifests if path.name.isdecimal())
    segments = [path.name for folder in folders for path in (folder / "segments").iterdir()]
    return sum(name not in named for name in segments) + sum(not path.name.isdecimal() for path in manifests)


def reported_damage(server: Server, since: int = 0) -> Counter[str]:
    """How many lines the log has about damaged files of each library, past `since` characters."""
    return Counter(re.findall(r"WARNING apps\.search\S* .*?index of library (\S+): ", server.log.read_text()[since:]))


def assert_nothing_crashed(server: Server) -> None:
    log = server.log.read_text()
    assert not [word for word in ("Traceback", "ERROR", "CRITICAL", "SIGBUS", "SIGSEGV") if word in log], log
