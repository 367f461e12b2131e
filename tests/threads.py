"""Work in several threads at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

Answer = TypeVar("Answer")


def in_threads(*works: Callable[[], Answer]) -> list[Answer]:
    """What the functions answer when they run at once, each in a thread with connections of its own."""
    together = threading.Barrier(len(works))

    def run(work: Callable[[], Answer]) -> Answer:
        try:
            together.wait()
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))
