"""How long the stages of a request take, where the request asks for it.

Code names its stages: `with stage("embed"): ...`. That does nothing unless a `record` is under way in this thread.
Time counts for the innermost stage alone, so the stages of a record add up to its whole time; what is in none is
`other`.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar


class Profile:
    """The seconds of each stage so far. A request that is known once it is parsed was parsed from `parsed_since` on, by
    `time.perf_counter`."""

    def __init__(self, parsed_since: float | None) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._stages = ["other"]
        self._since = time.perf_counter()
        if parsed_since is not None:
            self._seconds["parse"] = self._since - parsed_since

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The time of the block, but for that of stages within, is that of `name`."""
        self._count()
        self._stages.append(name)
        try:
            yield
        finally:
            self._count()
            self._stages.pop()

    def milliseconds(self) -> dict[str, float]:
        """The milliseconds of each stage, in the order in which they ended first."""
        self._count()
        return {name: round(seconds * 1000, 3) for name, seconds in self._seconds.items()}

    def _count(self) -> None:
        now = time.perf_counter()
        self._seconds[self._stages[-1]] += now - self._since
        self._since = now


_current: ContextVar[Profile | None] = ContextVar("profile", default=None)
_NOTHING = nullcontext()


def stage(name: str) -> AbstractContextManager[None]:
    """A stage of the record that is under way, for a `with` block; nothing where there is none."""
    profile = _current.get()
    return _NOTHING if profile is None else profile.stage(name)


@contextmanager
def record(wanted: bool, parsed_since: float | None = None) -> Iterator[Profile | None]:
    """Record the stages of the block, `Profile` says how; None unless that is `wanted`."""
    profile = Profile(parsed_since) if wanted else None
    token = _current.set(profile)
    try:
        yield profile
    finally:
        _current.reset(token)
