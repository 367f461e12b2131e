"""Exports and imports over HTTP."""

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.operations.edge.uploads import delete_uploads
from tests.access.callers import bearer, make_key
from tests.server import Server, serving, until
from tests.sockets import connect, read_response
from tests.transfer.files import file_without_ids

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker with one thread."""
    settings = {
        "VECTORDB_WORKERS": 1,
        "VECTORDB_THREADS": 1,
        "VECTORDB_LOG_LEVEL": "info",
        "VECTORDB_LOG_FORMAT": "json",
    }
    with serving(tmp_path_factory.mktemp("transfer") / "data", **settings) as server:
        yield server


@pytest.fixture(scope="module")
def large(server: Server) -> str:
    """The id of a library whose export has some 30 MB, more than buffers hold."""
    with server.client() as client:
        client.post("/libraries", json={"id": "large", "name": "Large"}).raise_for_status()
        rewrite(client, "old")
    return "large"


def rewrite(client: httpx.Client, word: str) -> None:
    for part in range(6):
        chunks = [{"id": f"{part}-{i}", "text": word + "x" * 250_000, "embedding": [1, i]} for i in range(20)]
        client.post("/libraries/large/chunks", json={"chunks": chunks}).raise_for_status()


def head_of_export(library: str, authorization: dict[str, str]) -> bytes:
    lines = [f"GET /api/v1/libraries/{library}/export HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in authorization.items()]
    return "\r\n".join([*lines, "\r\n"]).encode()


def finish(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it has ended."""

    def ended() -> dict[str, Any] | None:
        nonlocal job
        job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
        return None if job["state"] == "running" else job

    until(ended, f"the job has ended: {job}")
    return job


def listed(client: httpx.Client, library: str) -> list[dict[str, Any]]:
    items = client.post(f"/libraries/{library}/chunks/list", json={"include": ["text", "metadata", "embedding"]}).json()
    return [{name: value for name, value in item.items() if name != "updated_at"} for item in items["items"]]


@pytest.mark.parametrize("format", ["jsonl", "zip"])
def test_an_export_is_imported_into_a_library_of_its_own(client: httpx.Client, library: str, format: str) -> None:
    document = {"id": "d", "title": "T", "chunks": [{"id": "d/1", "text": "one", "embedding": [1, 2, 3]}]}
    client.post(f"/libraries/{library}/documents", json=document).raise_for_status()
    client.post(f"/libraries/{library}/chunks", json={"chunks": [{"id": "x", "embedding": [3, 2, 1]}]})
    exported = client.get(f"/libraries/{library}/export?format={format}").raise_for_status()
    assert exported.headers["Content-Disposition"] == f'attachment; filename="{library}.{format}"'
    answer = client.post(
        f"/libraries/copy-{format}/import?create=true",
        content=exported.content,
        headers={"Content-Type": exported.headers["Content-Type"]},
    )
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/v1/jobs/{answer.json()['id']}"
    job = finish(client, answer.json())
    assert (job["state"], job["result"]["created"], job["result"]["refused"]) == ("done", 2, 0), job
    assert job["done"] == job["total"]
    assert listed(client, f"copy-{format}") == listed(client, library)


def test_what_cannot_be_imported_is_refused_or_reported(client: httpx.Client, server: Server, library: str) -> None:
    def post(path: str, body: bytes, **headers: str) -> tuple[int, str]:
        answer = client.post(path, content=body, headers=headers)
        return answer.status_code, answer.json()["detail"]

    path = f"/libraries/{library}/import"
    row = b'{"id": "x", "embedding": [1, 2, 3]}\n'
    assert post(path, row, **{"Content-Type": "text/plain"})[0] == 415
    assert post(f"{path}?format=xml", row)[0] == 400
    assert post(f"{path}?format=zip", b"PK no zip") == (
        400,
        "The file is no zip, or is cut off: File is not a zip file. Nothing of it was imported.",
    )
    assert post(f"{path}?format=jsonl", b"\x89PNG\r\n" + row)[0] == 400
    assert post(f"{path}?format=jsonl", b"") == (400, "The body is empty; send the file.")
    assert post("/libraries/absent/import?format=jsonl", row)[0] == 404
    writer = make_key(client, "write")["key"]
    assert post("/libraries/absent/import?format=jsonl&create=true", row, **bearer(writer))[0] == 403
    answer = client.post(f"{path}?format=jsonl", content=row + b'{"id": 5}\nno json\n')
    job = finish(client, answer.json())
    assert (job["result"]["created"], job["result"]["refused"]) == (1, 2)
    assert [one["at"] for one in job["result"]["refusals"]] == ["line 2", "line 3"]
    # What was read before a file turned out to be cut off stays.
    head = b'{"library": {"name": "N", "dimension": 3}, "format": 1}\n'
    cut = finish(client, client.post(f"{path}?format=jsonl", content=head + row * 2500).json())
    assert (cut["state"], cut["result"]["updated"]) == ("failed", 2500)
    assert cut["error"].startswith("The file is cut off: it has no last line")
    done = len(client.get("/jobs?kind=import&state=done").json()["items"])
    counted = f'vectordb_jobs_ended_total{{kind="import",state="done"}} {done}.0\n'
    until(lambda: counted in client.get(f"{server.url}/metrics").text, "jobs are counted, though their process ends")
    # Its file is gone.
    until(lambda: not list((server.folder / "jobs").glob("*/file")), "files of ended jobs are deleted")


def test_an_export_is_one_state_however_slowly_it_is_taken(server: Server, client: httpx.Client, large: str) -> None:
    with client.stream("GET", f"/libraries/{large}/export") as export:
        pieces = export.iter_bytes(1 << 16)
        first = next(pieces)
        # The only thread is free for others.
        rewrite(client, "new")
        client.post(f"/libraries/{large}/chunks/delete", json={"ids": ["5-19"]}).raise_for_status()
        lines = b"".join([first, *pieces]).splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["text"][:3] for row in rows[1:-1]] == ["old"] * 120
    assert rows[-1] == {"end": {"documents": 0, "chunks": 120}}
    size = sum(len(line) + 1 for line in lines)
    until(lambda: f'"bytes_out":{size}' in server.log.read_text(), "the log has its size")


def test_clients_that_do_not_take_their_exports_keep_others_from_no_more_than_an_export(
    server: Server, client: httpx.Client, large: str
) -> None:
    head = head_of_export(large, server.authorization)

    def status() -> int:
        with client.stream("GET", f"/libraries/{large}/export") as answer:
            return answer.status_code

    with ExitStack() as stack:
        slow = [connect(server, stack, head) for _ in range(2)]
        for connection in slow:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
        refused = client.get(f"/libraries/{large}/export")
        assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "exhausted", "10")
        assert client.get("/libraries").status_code == 200
        # Nor from a file that they have: its answer has no body to be streamed.
        css = f"{server.url}/static/vectordb/api.css"
        last = client.get(css).raise_for_status().headers["Last-Modified"]
        assert client.get(css, headers={"If-Modified-Since": last}).status_code == 304
        slow[0].close()
        until(lambda: status() == 200, "an export whose client is gone has ended")


def test_an_export_is_one_of_the_requests_of_its_key_until_its_client_has_it(tmp_path: Path) -> None:
    settings = {"VECTORDB_WORKERS": 1, "VECTORDB_KEY_CONCURRENT_REQUESTS": 1}
    with serving(tmp_path / "data", **settings) as server, server.client() as client, ExitStack() as stack:
        client.post("/libraries", json={"id": "large", "name": "Large"}).raise_for_status()
        rewrite(client, "old")
        slow = connect(server, stack, head_of_export("large", server.authorization))
        assert slow.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert client.get("/libraries").json()["code"] == "rate_limited"
        slow.close()
        until(lambda: client.get("/libraries").status_code == 200, "an export whose client is gone has ended")


@pytest.mark.any_database
def test_where_pyarrow_is_missing_parquet_names_the_command_that_installs_it(tmp_path: Path) -> None:
    # None here makes Python's own import say that there is no such module.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyarrow'] = None\n")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    sentence = (
        "The format parquet needs the Python package pyarrow. Install it: python -m pip install --require-hashes "
        "-r requirements/parquet.txt"
    )
    with serving(tmp_path / "data", VECTORDB_WORKERS=1, PYTHONPATH=tmp_path) as server, server.client() as client:
        client.post("/libraries", json={"id": "a", "name": "A"}).raise_for_status()
        exported = client.get("/libraries/a/export?format=parquet")
        imported = client.post("/libraries/a/import?format=parquet", content=b"PAR1")
        for answer in exported, imported:
            assert (answer.status_code, answer.json()["detail"]) == (400, sentence)
        assert client.get("/libraries/a/export").status_code == 200
        for arguments in ("export", "a", str(tmp_path / "a.parquet")), ("import", str(tmp_path / "rows.parquet"), "a"):
            ended = server.manage(*arguments)
            assert (ended.returncode, ended.stderr) == (1, f"CommandError: {sentence}\n")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps bodies of 20,000 bytes in memory, and files of 2,000,000 on the disk."""
    limits = {"VECTORDB_MAX_BODY_BYTES": 20_000, "VECTORDB_MAX_IMPORT_BYTES": 2_000_000, "VECTORDB_WORKERS": 1}
    with serving(tmp_path_factory.mktemp("narrow") / "data", **limits) as server:
        yield server


def uploads(server: Server) -> list[Path]:
    return list((server.folder / "uploads").glob("*"))


def test_a_body_that_is_too_large_for_memory_goes_by_the_disk(narrow: Server) -> None:
    rows = b"".join(b'{"id": "%d", "text": "%b", "embedding": [1, 2]}\n' % (i, b"x" * 1000) for i in range(300))
    with narrow.client() as client:
        client.post("/libraries", json={"id": "a", "name": "A"}).raise_for_status()

        def post(content: Any, **headers: str) -> httpx.Response:
            headers = {"Content-Type": "application/x-ndjson"} | headers
            return client.post("/libraries/a/import", content=content, headers=headers)

        for content in rows, iter([rows[:100_000], rows[100_000:]]):
            answer = post(content)
            assert answer.status_code == 202, answer.text
            assert finish(client, answer.json())["done"] == len(rows)
            assert client.post("/libraries/a/chunks/count", json={}).json() == {"count": 300}
        # The same key is the same request, by the content of its file.
        first, again = (post(rows, **{"Idempotency-Key": "k"}) for _ in range(2))
        assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
        assert post(rows[:-1] + b" ", **{"Idempotency-Key": "k"}).status_code == 409
        too_large = post(rows * 10)
        assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
        assert "VECTORDB_MAX_IMPORT_BYTES" in too_large.json()["detail"]
        too_large = post(iter([rows] * 10))
        assert too_large.status_code == 413
        assert client.post("/libraries/a/chunks", content=rows).status_code == 413
        assert post(b"\xff" + rows, **{"Content-Type": "application/zip"}).status_code == 400
    until(lambda: not uploads(narrow), "no body is kept that is not needed")


def test_nothing_is_kept_of_who_may_not_import_or_hangs_up(narrow: Server) -> None:
    head = b"POST /api/v1/libraries/a/import?format=jsonl HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n"
    with ExitStack() as stack:
        stranger = connect(narrow, stack, head + b"Expect: 100-continue\r\n\r\n")
        refused = read_response(stranger)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert not uploads(narrow)
        key = "".join(f"{name}: {value}\r\n" for name, value in narrow.authorization.items()).encode()
        friend = connect(narrow, stack, head + key + b"Expect: 100-continue\r\n\r\n")
        assert friend.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        friend.sendall(b"x" * 200_000)
        until(lambda: [path for path in uploads(narrow) if path.stat().st_size == 200_000], "the body is kept")
        friend.close()
    until(lambda: not uploads(narrow), "the body of a client that has hung up is deleted")


def test_a_second_server_on_a_folder_deletes_what_is_left_and_not_what_comes(narrow: Server, settings: Any) -> None:
    row = b'{"embedding": [1, 2]}\n'
    half = row * 5_000
    head = b"POST /api/v1/libraries/mine/import?format=jsonl HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    key = "".join(f"{name}: {value}\r\n" for name, value in narrow.authorization.items()).encode()
    with narrow.client() as client, ExitStack() as stack:
        client.post("/libraries", json={"id": "mine", "name": "M"}).raise_for_status()
        friend = connect(narrow, stack, head % (2 * len(half)) + key + b"\r\n" + half)
        until(lambda: [path for path in uploads(narrow) if path.stat().st_size == len(half)], "the body is kept")
        (coming,), left = uploads(narrow), narrow.folder / "uploads" / "left"
        left.touch()
        settings.DATA_DIR = narrow.folder
        delete_uploads()
        assert uploads(narrow) == [coming]
        friend.sendall(half)
        assert read_response(friend).status_code == 202


@pytest.mark.sqlite
def test_who_cannot_be_let_in_now_is_told_so_at_once(narrow: Server, tmp_path: Path) -> None:
    head = b"POST /api/v1/libraries/a/import?format=jsonl HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n"
    key = "".join(f"{name}: {value}\r\n" for name, value in narrow.authorization.items()).encode()
    narrow.folder.rename(tmp_path / "elsewhere")
    try:
        with ExitStack() as stack:
            refused = read_response(connect(narrow, stack, head + key + b"\r\n"))
            assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    finally:
        (tmp_path / "elsewhere").rename(narrow.folder)


@pytest.mark.sqlite
@pytest.mark.parametrize("format", ["jsonl", "zip", "parquet"])
def test_an_import_that_is_killed_loses_nothing_and_stores_nothing_twice(narrow: Server, format: str) -> None:
    rows = file_without_ids(format, 20_000)
    path, seen = f"/libraries/killed-{format}/import?format={format}&create=true", []
    key = {"Idempotency-Key": path}
    with narrow.client() as client:
        first = client.post(path, content=rows, headers=key).raise_for_status()
    job = first.json()
    while job["state"] == "running":
        with narrow.client() as client:
            moved = client.get(f"/jobs/{job['id']}").raise_for_status().json()
        if moved["done"] > job["done"] and moved["state"] == "running" and len(seen) < 4:
            seen.append(moved["done"])
            narrow.kill()
            narrow.start()
        job = moved
    assert (job["state"], job["result"]["created"], job["result"]["refused"]) == ("done", 20_000, 0)
    assert job["done"] == job["total"]
    assert seen, "it was not killed in the middle"
    with narrow.client() as client:
        again = client.post(path, content=rows, headers=key)
        assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
        assert client.post(path, content=file_without_ids(format, 3), headers=key).status_code == 409
        made = client.get(f"/jobs?library=killed-{format}").raise_for_status().json()["items"]
        assert [one["id"] for one in made] == [job["id"]]
    with closing(sqlite3.connect(narrow.folder / "vectordb.sqlite3")) as database:
        count = (
            "SELECT count(*), count(DISTINCT text) FROM vectordb_chunk"
            " WHERE library_id = (SELECT id FROM vectordb_library WHERE public_id = ?)"
        )
        assert database.execute(count, [f"killed-{format}"]).fetchone() == (20_000, 20_000)
