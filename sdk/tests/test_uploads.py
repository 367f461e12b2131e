"""Uploads that are disturbed."""

from __future__ import annotations

import asyncio
import json
import threading
from array import array
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from blocking import Blocking
from fake_server import Reply, answering
from test_retries import QUICK, WRITTEN, problem
from tests.server import Server

from vectordb_client import AsyncClient, Client, InvalidArgument, Library, UploadFailed
from vectordb_client import _upload as uploads


def test_a_server_that_is_killed_and_restarted_loses_and_doubles_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", VECTORDB_WORKERS=1).start()
    try:
        key = (server.folder / "admin_key").read_text().strip()
        with Client(server.url, key) as client:
            library = client.libraries.create("rows", dimension=3)
            killed = threading.Event()

            def kill() -> None:
                server.kill()
                server.launch()
                killed.set()

            def rows() -> Iterator[dict[str, Any]]:
                for number in range(12_000):
                    if number == 6_000:
                        threading.Thread(target=kill).start()
                    # Without ids: what is sent twice must be known to be the same by those made here.
                    yield {"vector": [number, 1, 2], "metadata": {"n": number}}

            report = library.upload(rows(), batch_size=500)
            assert killed.wait(60)
            assert (report.rows, report.created + report.updated, report.errors) == (12_000, 12_000, ())
            assert library.count() == 12_000
            assert library.fields(["n"])[0].distinct == 12_000
    finally:
        if server.process is not None:
            server.stop()


def test_a_generator_that_raises_ends_it_with_what_was_read_before(library: Library) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for number in range(250):
            yield {"id": str(number), "vector": [number, 1, 2]}
        raise LookupError("the source is broken")

    before = threading.active_count()
    with pytest.raises(LookupError, match="the source is broken"):
        library.upload(rows(), batch_size=100)
    assert library.count() == 200
    assert threading.active_count() == before


def test_async_uploads_end_as_their_source_does_and_leave_no_task(server: Server, key: str, library: Library) -> None:
    started = asyncio.Event()

    async def rows(count: int, error: Exception | None = None) -> AsyncIterator[dict[str, Any]]:
        for number in range(count):
            yield {"id": str(number), "vector": [number, 1, 2]}
            if number == 1000:
                started.set()
        if error is not None:
            raise error

    async def upload() -> set[Any]:
        async with AsyncClient(server.url, key) as client:
            target = client.library(library.id)
            with pytest.raises(LookupError, match="the source is broken"):
                await target.upload(rows(250, LookupError("the source is broken")), batch_size=100)
            assert (await target.upload(rows(250), batch_size=100)).created == 50
            found = await asyncio.gather(*(target.query([number, 1, 2], k=1) for number in range(100)))
            assert len({hits.ids[0] for hits in found}) > 50
            task = asyncio.create_task(target.upload(rows(10**9), batch_size=100))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(upload()) == set()


def test_what_the_server_refuses_for_good_ends_it_with_a_report() -> None:
    with answering(WRITTEN, WRITTEN, problem(403, "forbidden")) as server:
        with Client(server.url, retry=QUICK) as client, pytest.raises(UploadFailed, match="It is forbidden") as caught:
            client.library("a").upload([{"id": str(n), "vector": [1]} for n in range(50)], batch_size=1, parallel=1)
        assert (caught.value.status, caught.value.report.created) == (403, 2)
        assert len(server.received) <= 6


def test_a_row_that_cannot_be_sent_ends_it_with_a_report_of_what_was() -> None:
    rows = [{"id": str(n), "vector": [1]} for n in range(50)]
    with answering(WRITTEN) as server:
        for client in (Client(server.url), Blocking(AsyncClient(server.url))):
            with client, pytest.raises(UploadFailed, match="row 50: a row is a dict") as caught:
                client.library("a").upload([*rows, 5], batch_size=10, parallel=1, on_error="raise")
            assert caught.value.report.batches > 0
            assert isinstance(caught.value.__cause__, InvalidArgument)
        assert server.received


def test_batches_are_cut_by_bytes_too() -> None:
    text = "x" * (3 << 20)
    rows = [{"id": str(n), "text": text, "vector": [1.0]} for n in range(5)]
    rows.append({"id": "huge", "text": text * 4, "vector": [1.0]})
    with answering(WRITTEN) as server:
        for client in (Client(server.url), Blocking(AsyncClient(server.url))):
            with client:
                client.library("a").upload(rows, parallel=1)
        sizes = [len(one.body) >> 20 for one in server.received]
        assert sizes == [6, 6, 3, 12] * 2


@pytest.mark.parametrize("size", [1, 10, 33, 100, 1000])
def test_batches_are_cut_by_number_and_keep_the_order(size: int) -> None:
    rows = [{"id": str(n), "vector": [n]} for n in range(250)]
    with answering(WRITTEN) as server, Client(server.url) as client:
        client.library("a").upload(rows, batch_size=size, parallel=1)
        sent = [[one["id"] for one in json.loads(one.body)["chunks"]] for one in server.received]
        assert sent == [[row["id"] for row in rows[start : start + size]] for start in range(0, 250, size)]


def test_batches_of_texts_to_embed_are_smaller() -> None:
    rows: list[dict[str, Any]] = [
        {"id": str(n), "text": "x", "vector": [n]} if n < 1000 else {"id": str(n), "text": "x"} for n in range(2000)
    ]
    with answering(WRITTEN) as server, Client(server.url) as client:
        client.library("a").upload(rows, parallel=1)
        assert [one.body.count(b'"id"') for one in server.received] == [1000, 500, 500]


def test_a_batch_that_is_too_large_for_the_server_is_halved() -> None:
    refusal = problem(413, "body_too_large")
    with answering(refusal, refusal, WRITTEN, refusal, WRITTEN) as server, Client(server.url) as client:
        report = client.library("a").upload([{"id": str(n), "vector": [1]} for n in range(4)], parallel=1)
        # 4, 2, 1 and 1, 2
        assert [one.body.count(b'"id"') for one in server.received] == [4, 2, 1, 1, 2]
        assert [(error.row, error.id) for error in report.errors] == [(1, "1")]


def test_an_answer_that_the_server_lost_counts_as_written() -> None:
    with answering(problem(409, "idempotency_answer_lost")) as server, Client(server.url) as client:
        report = client.library("a").upload([{"id": "a", "vector": [1]}])
        assert (report.rows, report.updated, len(server.received)) == (1, 1, 1)


def test_rows_that_cannot_be_sent_are_named_among_many_that_can() -> None:
    rows: list[Any] = [{"id": str(n), "text": '","', "vector": [n]} for n in range(100)]
    rows[40], rows[41], rows[99] = 5, {"id": "41", "metadata": {"n": object()}}, {"id": "99", "vector": ["x"]}
    with answering(WRITTEN) as server, Client(server.url) as client:
        report = client.library("a").upload(rows)
        assert report.rows == 100
        assert [(error.row, error.id) for error in report.errors] == [(40, None), (41, "41"), (99, "99")]
        sent = json.loads(server.received[0].body)["chunks"]
        assert [(one["id"], one["text"]) for one in sent] == [(str(n), '","') for n in range(99) if n not in (40, 41)]
        with pytest.raises(InvalidArgument, match="row 40: a row is a dict"):
            client.library("a").upload(rows, on_error="raise")


def test_a_generator_may_change_what_it_has_yielded() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"metadata": {}, "vector": array("f", [0])}
        for number in range(100):
            row["id"] = str(number)
            row["metadata"]["n"] = row["vector"][0] = number
            yield row

    with answering(WRITTEN) as server, Client(server.url) as client:
        client.library("a").upload(rows())
        sent = json.loads(server.received[0].body)["chunks"]
    assert [(one["id"], one["metadata"]["n"]) for one in sent] == [(str(n), n) for n in range(100)]
    assert [array("f", b64decode(one["embedding"]))[0] for one in sent] == list(range(100))


class Frame:
    """What an upload asks of a DataFrame of pandas, which the tests do not have."""

    columns = ("id", "vector", "year", "topic")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> list[Any]:
        nan = float("nan")
        return {"id": ["a", "b"], "vector": [[1, 2, 3]] * 2, "year": [1900, nan], "topic": [None, "x"]}[name]

    def itertuples(self) -> None:
        raise NotImplementedError


def test_columns_of_a_frame_are_metadata(library: Library) -> None:
    assert library.upload(Frame()).created == 2
    assert [chunk.metadata for chunk in library.get(["a", "b"])] == [{"year": 1900}, {"topic": "x"}]


def test_sources_are_read_no_faster_than_they_are_sent() -> None:
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        for read in range(100_000):
            yield {"id": str(read), "vector": [1]}

    with answering(Reply(403)) as server, Client(server.url) as client, pytest.raises(UploadFailed):
        client.library("a").upload(rows(), parallel=2)
    assert read <= 5 * uploads._ROWS
