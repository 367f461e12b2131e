"""A merge makes one segment of others, in a thread: seconds for most index types, minutes for a graph.

It reads files only, and announces nothing: the indexer takes the result. When nobody needs the result any more, the
merge is *cancelled*. Its thread ends at the next checkpoint of the build; an index type without checkpoints runs to its
end, and the result is dropped.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from django.conf import settings

from apps.engine.storage.manifest import SegmentRecord
from apps.engine.storage.segment import Segment
from apps.indexing.merge_policy import target
from apps.indexing.policy import IndexingPolicy
from apps.search import loading
from apps.search.snapshots import LibraryState
from apps.telemetry import metrics


class _Cancelled(Exception):
    """Nobody needs the result any more."""


class Merge:
    """Makes one segment of `inputs`, segments of the library that have files; then calls `on_end`, in its thread.

    `future` has the segment, which has its files, and its record. `is_slow` says whether that takes minutes;
    `not_before` is when to retry a commit that failed.
    """

    def __init__(
        self,
        state: LibraryState,
        inputs: Sequence[Segment],
        policy: IndexingPolicy,
        *,
        is_slow: bool,
        on_end: Callable[[], None],
    ) -> None:
        self.state, self.inputs, self.is_slow, self._policy = state, tuple(inputs), is_slow, policy
        self.is_cancelled = False
        self.not_before = 0.0
        self.future: Future[tuple[Segment, SegmentRecord]] = Future()
        self.future.add_done_callback(lambda _: on_end())
        self._rows, self._dimension = sum(segment.live for segment in inputs), inputs[0].matrix.dimension
        self._target = target(state, self._rows, self._dimension, policy)
        # A daemon: the process does not wait for it when it ends. What it has written by then is swept later.
        threading.Thread(target=self._run, name="merge", daemon=True).start()

    def matches(self, state: LibraryState) -> bool:
        """Whether the library, which is in `state` now, needs what this makes."""
        is_same = (state.vector_identity, state.rebuild) == (self.state.vector_identity, self.state.rebuild)
        return is_same and target(state, self._rows, self._dimension, self._policy) == self._target

    def cancel(self) -> None:
        """Let the thread end as soon as it can; the result is dropped."""
        self.is_cancelled = True

    def _checkpoint(self) -> None:
        if self.is_cancelled:
            raise _Cancelled

    def _run(self) -> None:
        try:
            kind, params = self._target
            with metrics.MERGE_SECONDS.time(kind):
                segment = Segment.merge(
                    self.inputs, kind=kind, params=params, checkpoint=self._checkpoint, scratch=settings.INDEX_DIR
                )
                self._checkpoint()
                saved = loading.index_folder(self.state.uid).save(segment)
            self.future.set_result(saved)
        except BaseException as error:
            self.future.set_exception(error)
