"""A full disk has a way out by the API: deletes go on, and give their room back."""

import contextlib
from pathlib import Path

import httpx
import pytest

from tests.server import serving, until

pytestmark = pytest.mark.sqlite


def insert(client: httpx.Client, library: str, name: str, document: str | None = None) -> httpx.Response:
    """Write 20 chunks of 10 kB."""
    chunks = [{"id": f"{name}-{i}", "text": "x" * 10_000, "embedding": [i, 1]} for i in range(20)]
    if document:
        return client.post(f"/libraries/{library}/documents", json={"id": document, "chunks": chunks})
    return client.post(f"/libraries/{library}/chunks", json={"chunks": chunks})


def fill(disk: Path) -> None:
    """Leave no room."""
    with contextlib.suppress(OSError), (disk / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def assert_full(client: httpx.Client) -> None:
    refused = insert(client, "large", "late")
    assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
    assert "delete chunks" in refused.json()["detail"]


def test_deletes_make_room_on_a_full_disk(small_disk: Path) -> None:
    database, reserve, wal = (small_disk / f"vectordb.sqlite3{end}" for end in ("", "-reserve", "-wal"))
    with serving(small_disk) as server, server.client() as client:
        for library in ("small", "large"):
            client.post("/libraries", json={"id": library, "name": "A", "dimension": 2}).raise_for_status()
        for number in range(50):
            insert(client, "large", f"{number}").raise_for_status()
        insert(client, "small", "a", document="a").raise_for_status()
        insert(client, "small", "b").raise_for_status()
        assert reserve.stat().st_size == 2 << 20
        until(lambda: wal.stat().st_size == 0, "maintenance has moved the WAL into the database")
        assert database.stat().st_size > 10_000_000
        fill(small_disk)
        assert_full(client)

        def has_given_the_wal_back() -> bool:
            # Index files that were replaced are deleted meanwhile.
            fill(small_disk)
            return wal.stat().st_size == 0

        until(has_given_the_wal_back, "maintenance gives the room of the WAL back")
        fill(small_disk)

        for number in range(20):
            ids = [f"{number}-{i}" for i in range(10)]
            for _ in range(2):
                # The answer is kept on the full disk, too.
                key = {"Idempotency-Key": f"{number}"}
                deleted = client.post("/libraries/large/chunks/delete", json={"ids": ids}, headers=key)
                assert deleted.json() == {"deleted": 10}
            assert client.delete(f"/libraries/large/chunks/{number}-19").status_code == 204
            assert reserve.stat().st_size == 0
            assert_full(client)
        assert client.delete("/libraries/small/documents/a").status_code == 204
        assert client.post("/libraries/small/chunks/count", json={}).json() == {"count": 20}
        assert client.delete("/libraries/small").status_code == 204
        assert client.delete("/libraries/large").status_code == 204

        until(lambda: reserve.stat().st_size == 2 << 20, "the room is given back, and the reserve is made again")
        client.post("/libraries", json={"id": "new", "name": "New"}).raise_for_status()
        insert(client, "new", "a").raise_for_status()


def test_a_disk_that_writes_have_filled_has_room_for_deletes(small_disk: Path) -> None:
    with serving(small_disk) as server, server.client() as client:
        client.post("/libraries", json={"id": "large", "name": "A", "dimension": 2}).raise_for_status()
        for number in range(320):
            if insert(client, "large", f"{number}").is_error:
                break
        assert_full(client)
        assert client.delete("/libraries/large").status_code == 204
        new = {"id": "new", "name": "New"}
        until(lambda: client.post("/libraries", json=new).is_success, "the room is given back")


def test_an_import_that_fills_the_disk_says_so_and_gives_its_own_room_back(small_disk: Path) -> None:
    rows = b"".join(b'{"id": "%d", "text": "%b", "embedding": [1, 2]}\n' % (i, b"x" * 10_000) for i in range(2400))
    with serving(small_disk, VECTORDB_MAX_BODY_BYTES=1 << 20) as server, server.client() as client:
        client.post("/libraries", json={"id": "a", "name": "A"}).raise_for_status()
        path = "/libraries/a/import?format=jsonl"
        job = client.post(path, content=rows).raise_for_status().json()
        files = [small_disk / "jobs" / job["id"] / "file"]

        def ended() -> bool:
            nonlocal job
            job = client.get(f"/jobs/{job['id']}").json()
            return job["state"] != "running"

        # What else the disk has is as much as the file: there is room for some of the rows.
        (small_disk / "ballast").write_bytes(bytes(20 << 20))
        until(ended, "the job has ended")
        assert job["state"] == "failed"
        assert "disk" in job["error"]
        # Whole batches are there, from the first row on.
        count = client.post("/libraries/a/chunks/count", json={}).json()["count"]
        assert 0 < count == job["result"]["created"] < 2400
        assert client.get(f"/libraries/a/chunks/{count - 1}").status_code == 200
        until(lambda: not any(file.exists() for file in files), "its file is deleted")
        refused = client.post(path, content=iter([rows, rows]))
        assert (refused.status_code, refused.json()["code"]) == (503, "disk_full")
        until(lambda: not list((small_disk / "uploads").iterdir()), "nothing of the body is kept")
        assert client.get("/libraries/a").status_code == 200
