"""Counters, histograms and gauges of one process: numbers in memory, which `slots` shares with the other processes.

To count costs half a microsecond, which a file mapped by all processes would not. Each instrument has a list of numbers
for each combination of its labels' values, so that those of several processes are added up number by number.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, TypeAlias

Labels: TypeAlias = tuple[str, ...]
Series: TypeAlias = dict[Labels, list[float]]

# Seconds; the last number of times of a histogram is of what took longer.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Of work that takes longer.
LONG_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

_lock = threading.Lock()


class Instrument:
    """What has a name, a meaning for people, and numbers by the values of its `labels`."""

    kind: ClassVar[str]
    is_shared = True
    by_name: ClassVar[dict[str, "Instrument"]] = {}

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name, self.meaning, self.labels = name, meaning, labels
        self.series: Series = {}
        Instrument.by_name[name] = self

    @property
    def size(self) -> int:
        """The length of a list of numbers."""
        return 1


class Counter(Instrument):
    """What only grows."""

    kind = "counter"

    def add(self, amount: float = 1, *labels: str) -> None:
        """Add `amount`, which is not negative."""
        with _lock:
            if (found := self.series.get(labels)) is None:
                found = self.series[labels] = [0.0]
            found[0] += amount


class Histogram(Instrument):
    """How long something takes: how often up to each of `bounds`, in seconds, how often longer, and the sum."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, *labels: str, bounds: tuple[float, ...] = BOUNDS) -> None:
        super().__init__(name, meaning, *labels)
        self.bounds = bounds

    @property
    def size(self) -> int:
        return len(self.bounds) + 2

    def observe(self, seconds: float, *labels: str) -> None:
        """Count something that took `seconds`."""
        self._observe_all([(labels, seconds)])

    def observe_all(self, seconds: Mapping[str, float]) -> None:
        """Count one thing for each value of the only label; with one lock for all."""
        self._observe_all([((label,), taken) for label, taken in seconds.items()])

    def _observe_all(self, times: Sequence[tuple[Labels, float]]) -> None:
        with _lock:
            series, bounds = self.series, self.bounds
            for labels, seconds in times:
                if (found := series.get(labels)) is None:
                    found = series[labels] = [0.0] * self.size
                found[bisect_left(bounds, seconds)] += 1
                found[-1] += seconds

    @contextmanager
    def time(self, *labels: str) -> Iterator[None]:
        """Count the block, also where it raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - began, *labels)


class Gauge(Instrument):
    """What is so now. Of a process that has ended, nothing is left. With the label `process`, which is the first, each
    process has its own, and sets it without that label; others are added up. One that is not `is_shared` is set, by
    whoever asks, when the metrics are asked for."""

    kind = "gauge"

    def __init__(self, name: str, meaning: str, *labels: str, is_shared: bool = True) -> None:
        super().__init__(name, meaning, *labels)
        self.is_shared = is_shared

    def set(self, value: float, *labels: str) -> None:
        """Set the number of these labels."""
        with _lock:
            self.series[labels] = [value]

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Set the numbers of all labels; those that are not named are no more."""
        with _lock:
            self.series = {labels: [value] for labels, value in values.items()}


def numbers() -> dict[str, list[tuple[Labels, list[float]]]]:
    """All numbers of this process that are shared, by the names of instruments."""
    with _lock:
        return {
            name: [(labels, found.copy()) for labels, found in one.series.items()]
            for name, one in Instrument.by_name.items()
            if one.series and one.is_shared
        }


def begin_with(before: Mapping[str, Series]) -> None:
    """Forget what was counted, as by the process that this one is a fork of, and go on from other numbers."""
    with _lock:
        for name, one in Instrument.by_name.items():
            one.series = {} if one.kind == "gauge" else dict(before.get(name, {}))
