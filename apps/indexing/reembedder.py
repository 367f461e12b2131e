"""Moves libraries to other embedding models, by the steps of `apps.libraries.services.reembedding`."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic

from django.db import Error, connection, connections

from apps.embeddings.config import config
from apps.embeddings.errors import EmbeddingError, ProviderFailed, TextRefused
from apps.libraries.dialects import dialect_of
from apps.libraries.models import Reembedding
from apps.libraries.services import reembedding as services
from apps.libraries.services.reembedding import ReembeddingFailed, State

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReembeddingPolicy:
    """How much is done in one step, and how long to wait.

    Attributes:
        page_size: how many texts are embedded and stored at once.
        min_page_size: how many at least, for a provider that does not manage as many.
        sweep_size: of how many chunks old vectors are deleted at once.
        passes: passes over the missing texts before the last ones are embedded within the switch.
        switch_size, switch_seconds: how many these may be, and how long that may take; writers wait meanwhile.
        retry_seconds: the wait after a failure that may pass.
        held_up_seconds: the wait while another host works on the library, or the database is busy.
    """

    page_size: int = 256
    min_page_size: int = 16
    sweep_size: int = 1000
    passes: int = 2
    switch_size: int = 16
    switch_seconds: float = 2.0
    retry_seconds: float = 60.0
    held_up_seconds: float = 5.0


class Reembedder:
    """Moves all libraries that are to be moved, one after the other; there must be one at a time for a data folder."""

    def __init__(self, policy: ReembeddingPolicy | None = None) -> None:
        self._policy = policy or ReembeddingPolicy()
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        # The size of a page, by library, where a provider did not manage as many as usual.
        self._page_sizes: dict[int, int] = {}

    def tick(self) -> None:
        """Start a thread for the work that is due, unless one runs."""
        if (self._thread is not None and self._thread.is_alive()) or monotonic() < self._not_before:
            return
        if services.due_libraries():
            # A daemon: the process does not wait for it when it ends, and what it has not stored is made again.
            self._thread = threading.Thread(target=self._run_thread, name="reembedding", daemon=True)
            self._thread.start()

    def _run_thread(self) -> None:
        try:
            self.run()
        except Error as error:
            logger.warning("re-embedding is put off: %s", error)
            self._hold_off()
        finally:
            connections.close_all()

    def run(self, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do all that is due, or until `is_stopped`; return True if no move is left."""
        for key in services.due_libraries():
            for _ in self.steps(key):
                if is_stopped():
                    return False
        return not Reembedding.objects.exists()

    def steps(self, library_key: int) -> Iterator[None]:
        """Do what is due for one library, step by step, unless another host does it. Raises the database's errors."""
        dialect = dialect_of(connection)
        if not dialect.try_lock(connection, library_key):
            self._hold_off()
            return
        passes = 0
        try:
            while (move := services.due_move(library_key)) is not None:
                try:
                    if move.state == State.SWEEPING:
                        yield from self._sweep(move)
                    else:
                        yield from self._embed(move)
                        passes = passes + 1 if self._switch(move, passes) else 0
                        yield
                except Error:
                    raise
                except Exception as error:
                    if not isinstance(error, EmbeddingError | ReembeddingFailed):
                        logger.exception("re-embedding of library %s", move.library)
                        error = ReembeddingFailed(f"The server made a mistake; its log says which: {error!r}.")
                    return services.postpone(move, error, retry_seconds=self._policy.retry_seconds)
        finally:
            dialect.unlock(connection, library_key)

    def _embed(self, move: Reembedding) -> Iterator[None]:
        """Embed the texts that are missing, once through the library."""
        full_size = self._page_sizes.get(move.pk, self._policy.page_size)
        after, size = 0, full_size
        while page := services.pending_chunks(move, after=after, limit=size):
            try:
                services.embed_page(move, page)
            except TextRefused as error:
                if len(page) == 1:
                    message = f"The text of chunk {page[0].public_id!r} is refused. {error}"
                    raise ReembeddingFailed(message) from error
                # Smaller pages tell which text it is.
                size = len(page) // 2
                yield
                continue
            except ProviderFailed:
                # One that is slow may manage fewer in its time.
                smaller = max(self._policy.min_page_size, len(page) // 2)
                self._page_sizes[move.pk] = min(full_size, smaller)
                raise
            yield
            # Texts written since the page was read must not make the pass endless.
            if len(page) < size or not services.is_current(move):
                return
            after, size = page[-1].pk, min(2 * size, full_size)

    def _switch(self, move: Reembedding, passes: int) -> bool:
        """Switch if nothing is missing, or little after some passes; return False if that could not be embedded."""
        policy = self._policy
        settings = replace(config(), timeout=min(policy.switch_seconds, config().timeout), retries=0)
        embed_at_most = policy.switch_size if passes >= policy.passes else 0
        try:
            services.switch_model(move, embed_at_most=embed_at_most, settings=settings)
        except (EmbeddingError, ReembeddingFailed):
            # With more time it may succeed in another pass, which else says why not.
            return False
        if move.state == State.SWEEPING:
            self._page_sizes.pop(move.pk, None)
            logger.info("library %s has the embedding model %s %s now", move.library, *move.embedding)
        return True

    def _sweep(self, move: Reembedding) -> Iterator[None]:
        after = 0
        while (last := services.sweep_embeddings(move, after=after, limit=self._policy.sweep_size)) is not None:
            yield
            after = last

    def _hold_off(self) -> None:
        self._not_before = monotonic() + self._policy.held_up_seconds
