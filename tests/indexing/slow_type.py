"""An index type whose index is built when the test says so."""

import threading
import time
from typing import ClassVar

from apps.engine.indexes.base import NO_PARAMS, Checkpoint, Params, no_checkpoint
from apps.engine.indexes.brute_force import BruteForce
from apps.engine.indexes.matrix import Matrix
from apps.indexing.indexer import Indexer
from tests.indexing.maintained import tick_until, write


class Slow(BruteForce):
    """A type whose index is built when `may_end` is set, and which then raises `error`, if there is one."""

    kind = "slow"
    slow_to_build = True
    may_end: ClassVar[threading.Event]
    # Whether a build has checkpoints, and what became of those that were begun.
    has_checkpoints: ClassVar[bool]
    builds: ClassVar[int]
    cancelled: ClassVar[int]
    error: ClassVar[BaseException | None]

    @classmethod
    def build(
        cls,
        matrix: Matrix,
        params: Params = NO_PARAMS,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> "Slow":
        Slow.builds += 1
        deadline = time.perf_counter() + 120
        while not Slow.may_end.wait(0.005):
            assert time.perf_counter() < deadline
            if Slow.has_checkpoints:
                try:
                    checkpoint()
                except BaseException:
                    Slow.cancelled += 1
                    raise
        if Slow.error is not None:
            raise Slow.error
        built = super().build(matrix)
        assert isinstance(built, Slow)
        return built


def begin_slow_merge(indexer: Indexer) -> None:
    """Let maintenance begin a merge of library a that goes on until the test ends it."""
    write(0)
    tick_until(indexer, lambda: Slow.builds, "a build has begun")
