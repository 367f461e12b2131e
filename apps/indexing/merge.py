"""A job makes one segment of others, in a thread: seconds for most types of index, minutes for a graph.

It reads files only, and tells nobody: who began it takes the result. A job whose result nobody wishes for any more is
*abandoned*. Its thread ends at the next checkpoint of the build; where the type has none it runs to the end of that,
and what comes of it is dropped.
"""

import threading
from collections.abc import Callable, Sequence

from apps.engine.indexes.base import NO_PARAMS, Params
from apps.engine.indexes.registry import AUTO, chosen_kind, index_type
from apps.engine.storage.manifest import SegmentRecord
from apps.engine.storage.segment import Segment
from apps.search import loading
from apps.search.snapshots import LibraryState

# Fewer rows than this are built in seconds, whatever the type.
_SLOW_ROWS = 4096


class _Abandoned(Exception):
    """Nobody wishes for the result any more."""


class Job:
    """Makes one segment of `inputs`, segments of the library that have files; then calls `on_end`, in its thread."""

    def __init__(self, state: LibraryState, inputs: Sequence[Segment], on_end: Callable[[], None]) -> None:
        self.state, self.inputs = state, tuple(inputs)
        self._rows = sum(segment.live for segment in inputs)
        self._target = self._wished_of(state)
        kind, _ = self._target
        self.is_slow = index_type(kind).slow_to_build and self._rows >= _SLOW_ROWS
        self.is_abandoned = False
        # Its result could not be published, which is tried again then.
        self.not_before = 0.0
        self._on_end = on_end
        self._ended = threading.Event()
        self._done: tuple[Segment, SegmentRecord] | None = None
        self._error: BaseException | None = None
        # A daemon: the process does not wait for it when it ends; what it has written then is swept some day.
        self._thread = threading.Thread(target=self._run, name="index job", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_wished(self, state: LibraryState) -> bool:
        """Whether the library, which is in `state` now, wishes for what this makes."""
        is_same = (state.vector_identity, state.rebuild) == (self.state.vector_identity, self.state.rebuild)
        return is_same and self._wished_of(state) == self._target

    def abandon(self) -> None:
        """Let the thread end as soon as it can; there will be no result."""
        self.is_abandoned = True

    def is_running(self) -> bool:
        return not self._ended.is_set()

    def is_made(self) -> bool:
        """Whether the thread has ended, and there is a result."""
        return self._done is not None

    def wait(self, seconds: float | None = None) -> None:
        """Until the thread has ended, or for so long."""
        self._ended.wait(seconds)

    def result(self) -> tuple[Segment, SegmentRecord]:
        """The segment, which has its files, and its record; raises what went wrong."""
        if self._error is not None:
            raise self._error
        assert self._done is not None
        return self._done

    def _wished_of(self, state: LibraryState) -> tuple[str, Params]:
        """The type and the parameters that a library in `state` wishes for so many rows."""
        kind = chosen_kind(state.index_type, self._rows, self.inputs[0].matrix.dimension)
        return kind, NO_PARAMS if state.index_type == AUTO else state.params

    def _checkpoint(self) -> None:
        if self.is_abandoned:
            raise _Abandoned

    def _run(self) -> None:
        try:
            kind, params = self._target
            segment = Segment.merge(self.inputs, kind=kind, params=params, checkpoint=self._checkpoint)
            self._checkpoint()
            self._done = loading.index_folder(self.state.uid).save(segment)
        except BaseException as error:
            self._error = error
        self._ended.set()
        self._on_end()
