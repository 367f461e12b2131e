"""Documents are moved, merged and let expire by eight writers at once: every answer shows one state, and nothing is
lost.

Shelves of documents belong to one writer each, and each of its writes keeps what readers look for: a document has two
chunks or none in answers, these name it in their metadata, and all chunks of a shelf are of the same round.
TEST_MOVED_DOCUMENTS is the number of documents.
"""

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.server import Server, serving, until

WRITERS = 8
DOCUMENTS_PER_SHELF = 80
# Of a shelf that are written one by one.
SOME = 8
CHUNKS = 2
SHELVES = int(os.environ.get("TEST_MOVED_DOCUMENTS", 640)) // DOCUMENTS_PER_SHELF
ROOMS = ("hall", "attic", "cellar")
LIBRARY: Final = "/libraries/moves"
# Time enough to answer before it, and short enough to wait for.
SOON = timedelta(milliseconds=50)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """Two workers of eight threads, and the library."""
    with serving(folder, VECTORDB_THREADS=8) as running, running.client() as client:
        library = {"id": "moves", "name": "Moves", "dimension": 3, "metric": "euclidean"}
        client.post("/libraries", json=library).raise_for_status()
        yield running


@dataclass
class Shelf:
    """Documents as their writer knows them: the room of each, and its chunks, none where they have expired."""

    name: str
    round: int = 0
    rooms: dict[str, str] = field(default_factory=dict)
    chunks: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    # The chunks' ids of those that have expired.
    expired: dict[str, list[str]] = field(default_factory=dict)

    @property
    def documents(self) -> list[str]:
        """The names of all documents, also of those that have expired."""
        return [f"{self.name}-{i}" for i in range(DOCUMENTS_PER_SHELF)]

    @property
    def chunk_ids(self) -> list[str]:
        """The ids of all chunks, also of those that have expired."""
        return [f"{document}:{i}" for document in self.documents for i in range(CHUNKS)]

    def place(self, document: str, room: str, ids: list[str]) -> dict[str, Any]:
        """Have the document in a room with new chunks, and return it as it is sent."""
        self.rooms[document] = room
        metadata = {"home": document, "round": self.round, "of": {f"round-{self.round}": True}}
        self.chunks[document] = {chunk_id: dict(metadata) for chunk_id in ids}
        chunks = [
            {"id": chunk_id, "text": f"on {self.name}", "metadata": metadata, "embedding": vector(chunk_id)}
            for chunk_id in ids
        ]
        return {"id": document, "metadata": self.metadata(document), "chunks": chunks}

    def metadata(self, document: str) -> dict[str, Any]:
        """What the document's metadata are."""
        return {"name": document, "shelf": self.name, "room": self.rooms[document]}


def is_document_expired(shelf: str) -> bool:
    """Whether documents of a shelf expire, or else all chunks of a document at once."""
    return int(shelf.removeprefix("shelf-")) % 2 == 0


def vector(chunk_id: str) -> list[int]:
    """A vector that no other chunk has."""
    _, shelf, rest = chunk_id.split("-")
    document, number = rest.split(":")
    return [int(shelf), int(document), int(number)]


class Writer:
    """Does all there is to its shelves, one after the other, and looks whether that is to be seen at once."""

    def __init__(self, server: Server, shelves: list[Shelf], seed: int) -> None:
        # Keeps no connection, so that any worker may get the next request.
        self._client = server.client(limits=httpx.Limits(max_keepalive_connections=0))
        self._random = random.Random(seed)
        self._shelves = shelves
        self.current = shelves[0]

    def fill(self) -> None:
        """Create all documents."""
        for shelf in self._shelves:
            documents = [
                shelf.place(document, self._random.choice(ROOMS), [f"{document}:{i}" for i in range(CHUNKS)])
                for document in shelf.documents
            ]
            self._post("documents/batch", {"documents": documents})

    def run(self) -> None:
        """Do every action on every shelf, most of them twice."""
        before = (self.move, self.merge, self.patch, self.mark, self.expire)
        after = (self.move, self.restore, self.merge, self.mark, self.expire, self.patch, self.move)
        for shelf in self._shelves:
            self.current = shelf
            for action in before + after:
                action(shelf)

    def move(self, shelf: Shelf) -> None:
        """Let pairs of documents exchange a chunk, in one write."""
        live = [document for document, chunks in shelf.chunks.items() if chunks]
        self._random.shuffle(live)
        moved: list[dict[str, Any]] = []
        for one, other in zip(live[::2], live[1::2], strict=False):
            ids = [self._random.choice(list(shelf.chunks[document])) for document in (one, other)]
            for chunk_id, source, target in zip(ids, (one, other), (other, one), strict=True):
                metadata = shelf.chunks[source].pop(chunk_id) | {"home": target}
                shelf.chunks[target][chunk_id] = metadata
                moved.append({"id": chunk_id, "document_id": target, "metadata": metadata})
        answer = self._post("chunks", {"chunks": moved, "mode": "update"})
        assert (answer["created"], answer["updated"]) == (0, len(moved))

    def merge(self, shelf: Shelf) -> None:
        """Begin a round: take the old one's mark off all chunks of the shelf, and put on the new one's."""
        old, shelf.round = f"round-{shelf.round}", shelf.round + 1
        patch = {"round": shelf.round, "of": {old: None, f"round-{shelf.round}": True}}
        change = {"filter": {"@document.shelf": shelf.name}, "metadata": patch, "metadata_mode": "merge"}
        rows = [row for chunks in shelf.chunks.values() for row in chunks.values()]
        assert self._post("chunks/update", change) == {"updated": len(rows)}
        for row in rows:
            row |= {"round": shelf.round, "of": {f"round-{shelf.round}": True}}
        self._assert_count({"@document.shelf": shelf.name, "round": shelf.round}, len(rows))

    def patch(self, shelf: Shelf) -> None:
        """Bring documents to other rooms."""
        for document in self._random.sample(list(shelf.rooms), SOME):
            shelf.rooms[document] = self._random.choice(ROOMS)
            self._patch(document, metadata=shelf.metadata(document))
        for room in ROOMS:
            self._assert_count({"@document.shelf": shelf.name, "@document.room": room}, len(in_room(shelf, room)))

    def mark(self, shelf: Shelf) -> None:
        """Put a mark on what is in a room."""
        room = self._random.choice(ROOMS)
        rows = in_room(shelf, room)
        where = {"@document.shelf": shelf.name, "@document.room": room}
        change = {"filter": where, "metadata": {"marked": {room: shelf.round}}}
        assert self._post("chunks/update", change) == {"updated": len(rows)}
        for row in rows:
            row["marked"] = {room: shelf.round}

    def expire(self, shelf: Shelf) -> None:
        """Let some documents expire, or all chunks of some at once, now or soon."""
        names = self._random.sample([name for name, chunks in shelf.chunks.items() if chunks], SOME)
        is_now = self._random.random() < 0.5
        moment = datetime.now(UTC) + (timedelta() if is_now else SOON)
        if is_document_expired(shelf.name):
            for name in names:
                self._patch(name, expires_at=moment.isoformat())
        else:
            where = {"@document.name": {"$in": names}}
            change = {"filter": where, "metadata": {}, "expires_at": moment.isoformat()}
            assert self._post("chunks/update", change) == {"updated": len(names) * CHUNKS}
        for name in names:
            shelf.expired[name] = list(shelf.chunks[name])
            shelf.chunks[name] = {}
            if is_document_expired(shelf.name):
                del shelf.rooms[name]
        until(lambda: datetime.now(UTC) >= moment, "they have expired")
        left = sum(map(len, shelf.chunks.values()))
        self._assert_count({"@document.shelf": shelf.name}, left)

    def restore(self, shelf: Shelf) -> None:
        """Write half of the expired documents again, with chunks of the same ids, in one request."""
        names = self._random.sample(list(shelf.expired), len(shelf.expired) // 2)
        documents = [shelf.place(name, self._random.choice(ROOMS), shelf.expired.pop(name)) for name in names]
        self._post("documents/batch", {"documents": documents, "mode": "upsert"})
        self._assert_count({"@document.name": {"$in": names}, "round": shelf.round}, len(names) * CHUNKS)

    def _assert_count(self, filter: dict[str, Any], count: int) -> None:
        assert self._post("chunks/count", {"filter": filter}) == {"count": count}

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(f"{LIBRARY}/{path}", json=body)
        assert response.is_success, response.text
        return dict(response.json())

    def _patch(self, document: str, **fields: Any) -> None:
        response = self._client.patch(f"{LIBRARY}/documents/{document}", json=fields)
        assert response.is_success, response.text


def in_room(shelf: Shelf, room: str) -> list[dict[str, Any]]:
    """The metadata of the chunks in a room."""
    return [row for name, at in shelf.rooms.items() if at == room for row in shelf.chunks[name].values()]


class Reader:
    """Asks in every way, and looks whether each answer is of one state."""

    def __init__(
        self, client: httpx.Client, writers: list[Writer], seed: int, seen: dict[tuple[int, str], Any]
    ) -> None:
        self._client = client
        self._random = random.Random(seed)
        self._writers = writers
        # What queries showed of a chunk in a revision, on all workers.
        self._seen = seen

    def run(self, is_over: threading.Event) -> int:
        """Read until the writers are done; return the number of answers."""
        ways = (self.query, self.list, self.order, self.get, self.count, self.facets, self.fields, self.documents)
        answers = 0
        while not is_over.is_set() or answers < len(ways):
            ways[answers % len(ways)](self._random.choice(self._writers).current)
            answers += 1
        return answers

    def query(self, shelf: Shelf) -> None:
        """A batch of queries, by vectors and by words."""
        common = {"filter": on(shelf), "k": CHUNKS * DOCUMENTS_PER_SHELF, "include": ["metadata", "document"]}
        queries = [{"vector": [0, 0, 0]}, {"text": f"on {shelf.name}", "mode": "lexical"}]
        answers = self._post("query/batch", {"queries": [query | common for query in queries]})["results"]
        by_vector, by_words = ({row["id"]: row for row in answer["results"]} for answer in answers)
        for row in by_vector.values():
            own = row["document"]["metadata"]
            assert (own["name"], own["shelf"]) == (row["document_id"], shelf.name)
            shown = row["document_id"], row["metadata"], own
            assert self._seen.setdefault((answers[0]["meta"]["revision"], row["id"]), shown) == shown
            assert by_words[row["id"]]["metadata"] == row["metadata"]
        assert by_words.keys() == by_vector.keys()
        assert len({answer["meta"]["revision"] for answer in answers}) == 1
        assert_one_state(list(by_vector.values()))

    def list(self, shelf: Shelf) -> None:
        """The list of a shelf, and of one of its documents."""
        assert_one_state(self._get("chunks", filter=json.dumps(on(shelf)), limit=500)["items"])
        name = self._random.choice(shelf.documents)
        response = self._client.get(f"{LIBRARY}/chunks", params={"document_id": name})
        if response.status_code == 400:
            assert is_document_expired(shelf.name), response.text
        else:
            assert response.status_code == 200, response.text
            assert len(response.json()["items"]) in ((CHUNKS,) if is_document_expired(shelf.name) else (0, CHUNKS))
            assert_one_state(response.json()["items"])

    def order(self, shelf: Shelf) -> None:
        """The list in an order."""
        order = [{"field": "@document.name"}, {"field": "home"}]
        rows = self._post("chunks/list", {"filter": on(shelf), "order_by": order, "limit": 500})["items"]
        names = [row["document_id"] for row in rows]
        assert names == sorted(names)
        assert_one_state(rows)

    def get(self, shelf: Shelf) -> None:
        """Chunks by their ids."""
        assert_one_state(self._post("chunks/get", {"ids": shelf.chunk_ids})["items"])

    def count(self, shelf: Shelf) -> None:
        """Numbers of chunks, of a shelf and of all."""
        for filter in (on(shelf), {}):
            assert self._post("chunks/count", {"filter": filter})["count"] % CHUNKS == 0

    def facets(self, shelf: Shelf) -> None:
        """The documents, the rooms and the round."""
        found = {}
        for name in ("@document.name", "@document.room", "home", "round"):
            answer = self._post("chunks/facets", {"field": name, "filter": on(shelf), "limit": 1000})
            found[name] = [value["count"] for value in answer["facets"]]
            assert sum(found[name]) == answer["chunks"]
        assert {*found["@document.name"], *found["home"]} <= {CHUNKS}
        assert not any(count % CHUNKS for count in found["@document.room"])
        assert len(found["round"]) <= 1

    def fields(self, shelf: Shelf) -> None:
        """The same, in one answer."""
        names = ["@document.name", "@document.room", "home", "round", f"of.round-{shelf.round}"]
        answer = self._post("chunks/fields", {"filter": on(shelf), "fields": names})
        document, room, home, of_round, _ = answer["fields"]
        assert document["count"] == room["count"] == home["count"] == of_round["count"]
        assert document["count"] == CHUNKS * document["distinct"] == CHUNKS * home["distinct"]
        assert of_round["distinct"] <= 1

    def documents(self, shelf: Shelf) -> None:
        """The documents: those of the shelf, the first ones of all, and one."""
        documents = self._get("documents", filter=json.dumps({"shelf": shelf.name}), limit=500)["items"]
        documents += self._get("documents", limit=100)["items"]
        one = self._client.get(f"{LIBRARY}/documents/{self._random.choice(shelf.documents)}")
        if one.status_code == 404:
            assert is_document_expired(shelf.name)
        else:
            documents.append(one.raise_for_status().json())
        for document in documents:
            own = document["metadata"]
            assert own["name"] == document["id"]
            assert document["chunk_count"] in ((CHUNKS,) if is_document_expired(own["shelf"]) else (0, CHUNKS))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._client.post(f"{LIBRARY}/{path}", json=body)
        assert response.is_success, response.text
        return dict(response.json())

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        response = self._client.get(f"{LIBRARY}/{path}", params=params)
        assert response.is_success, response.text
        return dict(response.json())


def on(shelf: Shelf) -> dict[str, Any]:
    """The filter of a shelf's chunks."""
    return {"@document.shelf": shelf.name}


def assert_one_state(rows: list[dict[str, Any]]) -> None:
    """Chunks of a shelf are of one round, and each is where it says, with the others that are there."""
    rounds = {row["metadata"]["round"] for row in rows}
    assert len(rounds) <= 1, f"one answer shows the rounds {rounds}"
    for row in rows:
        assert row["metadata"]["home"] == row["document_id"]
        assert row["metadata"]["of"] == {f"round-{row['metadata']['round']}": True}
    assert set(Counter(row["document_id"] for row in rows).values()) <= {CHUNKS}


def listed(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """All of a list."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        params = {"limit": 500} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"{LIBRARY}/{path}", params=params).raise_for_status().json()
        items += page["items"]
        cursor = page["next_cursor"]
    return items


def test_documents_that_are_moved_merged_and_expire_are_seen_in_one_state(server: Server) -> None:
    shelves = [Shelf(f"shelf-{i}") for i in range(SHELVES)]
    writers = [Writer(server, shelves[i::WRITERS], seed=i) for i in range(WRITERS)]
    seen: dict[tuple[int, str], Any] = {}
    is_over = threading.Event()
    with server.clients_of_each_worker(1) as clients, ThreadPoolExecutor(WRITERS + len(clients)) as pool:
        list(pool.map(Writer.fill, writers))
        # Index files are made meanwhile.
        clients[0].post(f"{LIBRARY}/reindex", json={}).raise_for_status()
        reading = [pool.submit(Reader(client, writers, i, seen).run, is_over) for i, client in enumerate(clients)]
        try:
            list(pool.map(Writer.run, writers))
        finally:
            is_over.set()
        assert all(reader.result() for reader in reading)
        for client in clients:
            chunks = {row["id"]: (row["document_id"], row["metadata"]) for row in listed(client, "chunks")}
            assert chunks == {
                chunk_id: (document, metadata)
                for shelf in shelves
                for document, chunks in shelf.chunks.items()
                for chunk_id, metadata in chunks.items()
            }
            documents = {row["id"]: (row["metadata"], row["chunk_count"]) for row in listed(client, "documents")}
            assert documents == {
                document: (shelf.metadata(document), len(shelf.chunks[document]))
                for shelf in shelves
                for document in shelf.rooms
            }
    for command in ("rebuild_index", "verify_index"):
        ended = server.manage(command, "moves")
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"moves: {len(chunks):,} rows, equal to the database" in ended.stdout
    log = server.log.read_text()
    assert not [word for word in ("locked", "Traceback", "ERROR", "busy", "deadlock") if word in log], log
