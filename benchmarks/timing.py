"""Stopwatch, quantiles, and a progress bar."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

Item = TypeVar("Item")

# OpenBLAS's helper threads spin for some ten milliseconds after a product; whoever is timed next should not share a
# core with them.
SETTLE_SECONDS = 0.1


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def milliseconds_each(function: Callable[[Item], Any], items: Iterable[Item]) -> list[float]:
    """How long each of the calls takes, once the processor has settled."""
    time.sleep(SETTLE_SECONDS)
    return [seconds(function, item) * 1000 for item in items]


def quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))


def middle_round(values: Sequence[float], references: Sequence[float]) -> tuple[float, float]:
    """Value and reference of the round with the median ratio: a machine that drifts changes both sides of a round."""
    rounds = sorted(zip(values, references, strict=True), key=lambda pair: pair[0] / pair[1])
    return rounds[len(rounds) // 2]


def progress(items: Sequence[Item], what: str) -> Iterable[Item]:
    """`items`, with a progress bar in a terminal if it takes longer than two seconds."""
    bar: Iterable[Item] = tqdm(items, desc=what, delay=2, disable=None, leave=False)
    return bar
