"""Answers that are made while they are sent: they wait for their client, and end with it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context

import pytest

from apps.access.requests import Streamed
from apps.operations.edge.streams import BrokenOff, Streams

pytestmark = pytest.mark.any_database

PART = b"x" * 100


class Parts:
    """A body that counts what is made of it, and knows when it is sent no more and when it is closed."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.made, self.ended, self.closed = parts, 0, threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            self.made += 1
            yield part

    def close(self) -> None:
        self.closed.set()


def send(
    parts: Parts,
    take: Callable[[bytes], Awaitable[None]],
    is_gone: Callable[[], bool] = lambda: False,
    **options: float,
) -> None:
    async def run() -> None:
        streams = Streams(1, **{"timeout": 60.0, **options})
        try:
            await streams.send(Streamed(parts, copy_context()), take, is_gone)
        finally:
            assert not streams.is_full

    try:
        asyncio.run(run())
    finally:
        parts.ended.set()
        assert parts.closed.wait(60)


def endless() -> Iterator[bytes]:
    while True:
        yield PART


async def take(part: bytes) -> None:
    """A client that takes all."""


async def take_nothing(part: bytes) -> None:
    """A client that has stopped."""
    await asyncio.Event().wait()


def test_all_parts_are_sent_in_their_order() -> None:
    taken = []

    async def keep(part: bytes) -> None:
        taken.append(part)

    parts = [b"%d" % i for i in range(100)]
    send(Parts(iter(parts)), keep)
    assert taken == parts


def test_no_more_is_made_than_a_client_takes_and_one_that_stops_is_given_up() -> None:
    parts = Parts(endless())
    with pytest.raises(BrokenOff, match="took too long") as broken:
        send(parts, take_nothing, patience=0.2)
    assert (broken.value.status, parts.made <= 4) == (499, True)


def test_one_whose_client_has_hung_up_ends() -> None:
    with pytest.raises(BrokenOff, match="hung up"):
        send(Parts(endless()), take, lambda: True)


def test_an_error_in_the_middle_is_no_end(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Iterator[bytes]:
        yield PART
        raise OSError("the disk is gone")

    with pytest.raises(BrokenOff, match="could not be made") as broken:
        send(Parts(fail()), take)
    assert broken.value.status == 500
    assert "the disk is gone" in caplog.text


def test_one_that_does_not_go_on_ends() -> None:
    def hang() -> Iterator[bytes]:
        yield PART
        assert parts.ended.wait(60)

    parts = Parts(hang())
    with pytest.raises(BrokenOff, match="next part took longer"):
        send(parts, take, timeout=0.1)
