"""Counts that processes share hold exactly, whatever dies and whatever clocks do."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from apps.access.redis_counters import RedisCounters
from apps.access.shared_counters import SharedCounters
from tests.access.redis_server import RedisServer
from tests.server import ROOT

pytestmark = pytest.mark.any_database


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(clock: Clock) -> SharedCounters:
    return SharedCounters(4, 4, clock)


def test_no_span_of_a_minute_has_more_than_the_limit(counters: SharedCounters, clock: Clock) -> None:
    random, allowed = Random(5), []
    for _ in range(3000):
        clock.now += random.choice([0, 0, 0.01, 0.3, 1])
        if counters.hit("somebody", 25).is_allowed:
            allowed.append(clock.now)
    for first, beyond in zip(allowed, allowed[25:], strict=False):
        assert beyond - first > 60
    # Nor does anybody get much less.
    assert len(allowed) > 25 * (clock.now - 1000) / 63


def test_a_refusal_tells_when_there_is_room_again(counters: SharedCounters, clock: Clock) -> None:
    for second in (0, 10, 20):
        clock.now = 1000 + second
        assert counters.hit("somebody", 3).remaining == 2 - second // 10
    refused = counters.hit("somebody", 3)
    assert (refused.is_allowed, refused.remaining, refused.wait) == (False, 0, 41)
    clock.now += refused.wait - 1
    assert not counters.hit("somebody", 3).is_allowed
    clock.now += 1
    assert counters.hit("somebody", 3).is_allowed
    assert counters.hit("another", 3).remaining == 2


def test_a_look_counts_nothing(counters: SharedCounters) -> None:
    looks = [counters.hit("somebody", 2, is_counted=False) for _ in range(3)]
    assert [(look.is_allowed, look.remaining) for look in looks] == [(True, 2)] * 3
    assert [counters.hit("somebody", 2).remaining for _ in range(2)] == [1, 0]
    assert counters.hit("somebody", 2, is_counted=False) == counters.hit("somebody", 2)


def test_limits_hold_though_names_are_more_than_there_is_room_for(clock: Clock) -> None:
    counters = SharedCounters(1, 1, clock)
    allowed = sum(counters.hit(f"address {number}", 1).is_allowed for number in [*range(18_000)] * 2)
    # Some share a window with another, and none has a second turn.
    assert 10_000 < allowed <= 18_000


_TOGETHER = """
import os
from apps.access.shared_counters import SharedCounters
counters = SharedCounters(4, 1)
for number in range(4):
    if not os.fork():
        if number == 3:
            # It dies while it has the lock.
            with counters.locked:
                os.kill(os.getpid(), 9)
        os._exit(sum(counters.hit("all", 300).is_allowed for _ in range(200)))
ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)]
print(sum(count for count in ended if count >= 0), counters.hit("all", 300).is_allowed)
"""


def test_processes_count_together_though_one_dies_with_the_lock() -> None:
    done = subprocess.run([sys.executable, "-c", _TOGETHER], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["300", "False"], done.stderr


def test_what_a_dead_process_ran_is_forgotten(counters: SharedCounters) -> None:
    for column in (0, 1, 1):
        counters.column = column
        assert counters.enter("key", 3)
    counters.column = 2
    assert not counters.enter("key", 3)
    assert counters.enter("another key", 3)
    counters.clear(1)
    assert [counters.enter("key", 3) for _ in range(3)] == [True, True, False]
    counters.leave("key")
    assert counters.enter("key", 3)


def test_rows_of_running_requests_are_used_again(counters: SharedCounters) -> None:
    assert counters.enter("stays", 1)
    for number in range(1000):
        assert counters.enter(f"key {number}", 1)
        assert not counters.enter(f"key {number}", 1)
        counters.leave(f"key {number}")
    assert not counters.enter("stays", 1)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as redis:
        yield redis


def test_hosts_count_together_in_redis(redis: RedisServer) -> None:
    hosts = [RedisCounters(redis.url, SharedCounters(1, 1)) for _ in range(2)]
    hits = [hosts[number % 2].hit("somebody", 7) for number in range(12)]
    assert [hit.is_allowed for hit in hits] == [True] * 7 + [False] * 5
    assert [hit.remaining for hit in hits] == [6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0]
    assert all(0 < hit.wait <= 61 for hit in hits[6:])


def test_a_look_counts_nothing_in_redis(redis: RedisServer) -> None:
    counters = RedisCounters(redis.url, SharedCounters(1, 1))
    looks = [counters.hit("somebody", 2, is_counted=False) for _ in range(3)]
    assert [(look.is_allowed, look.remaining) for look in looks] == [(True, 2)] * 3
    assert [counters.hit("somebody", 2).remaining for _ in range(2)] == [1, 0]
    assert not counters.hit("somebody", 2, is_counted=False).is_allowed
    redis.kill()
    assert [counters.hit("another", 1, is_counted=False).is_allowed for _ in range(2)] == [True, True]


def test_a_host_counts_for_itself_while_redis_is_gone(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    counters = RedisCounters(redis.url, SharedCounters(1, 1))
    redis.kill()
    with caplog.at_level(logging.WARNING):
        hits = [counters.hit("somebody", 5) for _ in range(8)]
    assert [hit.is_allowed for hit in hits] == [True] * 5 + [False] * 3
    assert len(caplog.messages) == 1
    assert "this host counts for itself" in caplog.messages[0]
    assert "secret" not in caplog.text


def test_a_redis_that_hangs_is_left_after_a_moment(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    counters = RedisCounters(redis.url, SharedCounters(1, 1))
    assert counters.hit("somebody", 2).remaining == 1
    redis.suspend()
    assert [counters.hit("somebody", 2).is_allowed for _ in range(3)] == [True, True, False]
    assert len(caplog.messages) == 1
