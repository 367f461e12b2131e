"""How long the stages of a request take: for the metrics, and for whoever asks with `profile: true`.

Code names its stages: `with stage("embed"): ...`. That does nothing unless a `record` is under way in this thread.
Time counts for the innermost stage alone, so the stages of a record add up to its whole time; what is in none is
`other`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from time import perf_counter
from typing import Self

from apps.telemetry.observation import current_observation


class Profile:
    """The seconds of each stage so far. A request that is known once it is parsed was parsed from `parsed_since` on, by
    `time.perf_counter`."""

    __slots__ = ("_since", "_stages", "seconds")

    def __init__(self, parsed_since: float | None) -> None:
        self.seconds: dict[str, float] = {}
        self._stages = ["other"]
        self._since = perf_counter()
        if parsed_since is not None:
            self.seconds["parse"] = self._since - parsed_since

    def begin(self, name: str) -> Self:
        """The time from now on is that of the stage `name`, until the end of a `with` block of what this returns. No
        object of its own: each query has some seven stages."""
        self.count()
        self._stages.append(name)
        return self

    def __enter__(self) -> None:
        """The stage has begun."""

    def __exit__(self, *exception: object) -> None:
        """The time from now on is that of the stage around."""
        self.count()
        self._stages.pop()

    def count(self) -> None:
        """Take the time until now into account."""
        now, name, seconds = perf_counter(), self._stages[-1], self.seconds
        seconds[name] = seconds.get(name, 0.0) + now - self._since
        self._since = now

    def milliseconds(self) -> dict[str, float]:
        """The milliseconds of each stage, in the order in which they ended first."""
        self.count()
        return {name: round(seconds * 1000, 3) for name, seconds in self.seconds.items()}


_current: ContextVar[Profile | None] = ContextVar("profile", default=None)
_NOTHING = nullcontext()


def stage(name: str) -> AbstractContextManager[None]:
    """A stage of the record that is under way, for a `with` block, which is to begin at once; nothing where there is
    none. The time of the block, but for that of stages within, is that of `name`."""
    profile = _current.get()
    return _NOTHING if profile is None else profile.begin(name)


@contextmanager
def record(wanted: bool, parsed_since: float | None = None) -> Iterator[Profile | None]:
    """Record the stages of the block if that is `wanted`, `Profile` says how; else gives None. A request that is
    observed gets them in any case."""
    observation = current_observation.get()
    if observation is None and not wanted:
        yield None
        return
    profile = Profile(parsed_since)
    token = _current.set(profile)
    try:
        yield profile if wanted else None
    finally:
        _current.reset(token)
        if observation is not None:
            profile.count()
            observation.stages = profile.seconds
