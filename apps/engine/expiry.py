"""When rows expire: times in microseconds since the epoch, UTC. A row is dead from its time on."""

from typing import Final, NamedTuple, Self

import numpy as np

from apps.engine.vectors import Int64

# The time of a row that never expires.
NEVER: Final = 2**63 - 1


class Expiring(NamedTuple):
    """Rows that expire, soonest first: `times` int64 [m] and `places` int64 [m]."""

    times: Int64
    places: Int64

    @classmethod
    def of(cls, times: Int64, places: Int64) -> Self:
        """The rows at `places` [m], which expire at `times` [m]."""
        # Rows mostly lie in the order in which they expire, which a stable sort is quick for.
        order = np.argsort(times, kind="stable")
        return cls(times[order], places[order])

    def by(self, now: int) -> Int64:
        """The places of the rows that have expired by `now`."""
        return self.places[: np.searchsorted(self.times, now, side="right")]

    def span(self, now: int) -> tuple[int, int]:
        """The times of the last row that has expired by `now` and of the first that has not; -NEVER and NEVER where
        there is none."""
        expired = int(np.searchsorted(self.times, now, side="right"))
        since = int(self.times[expired - 1]) if expired else -NEVER
        return since, int(self.times[expired]) if expired < len(self.times) else NEVER


NONE_EXPIRING = Expiring(np.empty(0, np.int64), np.empty(0, np.int64))


def compact(times: Int64) -> Int64:
    """`times` [n] of rows as they are kept: an empty array where no row expires."""
    return times[:0] if (times == NEVER).all() else times
