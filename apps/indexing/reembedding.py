"""Moves libraries to other embedding models, beside the queries: what `maintain` does for /reembed.

The texts of chunks that lack a vector of the new model are embedded page by page, outside of any transaction, and each
page is stored in a short one of its own. So a process that is killed at any point leaves whole pages, and the next one
goes on with what is missing. When nothing is, the library is switched over in one transaction; then the old vectors are
deleted in small steps.

While texts are written all the time, a few would always be missing. After some attempts these are embedded within the
transaction of the switch: the library's writers wait, some two seconds at most.

Costs a walk over the library's keys for each attempt to switch, and memory for the texts and vectors of one page.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from time import monotonic

from django.db import Error, connection, connections, transaction
from django.utils import timezone

from apps.embeddings.config import Config, config
from apps.embeddings.errors import EmbeddingError, ProviderFailed, TextRefused
from apps.embeddings.registry import provider
from apps.embeddings.services import embed_with
from apps.engine.vectors import Float32
from apps.libraries.dialects import dialect_of
from apps.libraries.inputs import Reembed
from apps.libraries.models import Reembedding
from apps.libraries.services import reembedding as services
from apps.libraries.services.embedding import dimension_fault, known_model
from apps.libraries.services.reembedding import Lacking, State

logger = logging.getLogger(__name__)

_CHUNKS_PER_PAGE, _LEAST_PER_PAGE = 256, 16
_CHUNKS_PER_SWEEP = 1000
_SECONDS_AFTER_FAILURE = 60.0
# While another host works on the library, or the database is busy.
_SECONDS_WHEN_HELD_UP = 5.0
# From the third attempt to switch on, so few chunks are embedded within it, in so many seconds.
_ATTEMPTS_WITHOUT, _FEW, _SECONDS_FOR_FEW = 2, 16, 2.0


def reembed(*, library_id: str, reembed: Reembed) -> Reembedding:
    """Have a library moved to another model, which maintenance does.

    Raises NotFound, Conflict, and Invalid for a model that there is not and for chunks without text.
    """
    model, _ = known_model(reembed.embedding.key, "/embedding")
    return services.ask(library_id=library_id, model=model)


class Reembedder:
    """Moves all libraries that are to be moved, one after the other; there must be one at a time for a data folder."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        # How many chunks a page has at most, by library, where a provider did not manage as many as usual.
        self._sizes: dict[int, int] = {}

    def round(self) -> None:
        """Begin, in a thread, whatever is due, unless that is being done."""
        if (self._thread is not None and self._thread.is_alive()) or monotonic() < self._not_before:
            return
        if services.due():
            # A daemon: the process does not wait for it when it ends, and what it has not stored is made again.
            self._thread = threading.Thread(target=self._run, name="reembedding", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self.work()
        except Error as error:
            logger.warning("re-embedding is put off: %s", error)
            self._held_up()
        finally:
            connections.close_all()

    def work(self, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do all that is due, or until `is_stopped`; answers whether every move that was asked for is done."""
        for key in services.due():
            for _ in self.steps(key):
                if is_stopped():
                    return False
        return not Reembedding.objects.exists()

    def steps(self, library_key: int) -> Iterator[None]:
        """Do what is due for one library, step by step, unless another host does it. Raises the database's errors."""
        dialect = dialect_of(connection)
        if not dialect.try_lock(connection, library_key):
            self._held_up()
            return
        move = _Move(library_key, self._sizes.pop(library_key, _CHUNKS_PER_PAGE))
        try:
            while move.step():
                yield
        finally:
            if move.most < _CHUNKS_PER_PAGE:
                self._sizes[library_key] = move.most
            dialect.unlock(connection, library_key)

    def _held_up(self) -> None:
        self._not_before = monotonic() + _SECONDS_WHEN_HELD_UP


class _CannotGoOn(Exception):
    """A vector or a text stands in the way; says which and why."""


class _Move:
    """One library's move, until nothing is left to do or something fails. A page has at most `most` chunks."""

    def __init__(self, key: int, most: int) -> None:
        self.most = self._size = most
        self._key = key
        self._attempts = 0
        # What is being done, the key of the last chunk that this was done to, and whether there were no more then.
        self._doing: tuple[int, str] | None = None
        self._after = 0
        self._at_end = False

    def step(self) -> bool:
        """Do one step; answers whether there may be another. Raises the database's errors."""
        asked = Reembedding.objects.select_related("library").filter(pk=self._key).first()
        if asked is None or asked.state == State.FAILED or (asked.retry_at and asked.retry_at > timezone.now()):
            return False
        if asked.state == State.WAITING:
            services.resume(asked)
        if self._doing != (asked.generation, asked.state):
            self._doing, self._after, self._at_end = (asked.generation, asked.state), 0, False
        try:
            if asked.state == State.SWEEPING:
                return self._sweep(asked)
            # Those that were written since the last page must not make a pass endless.
            page = [] if self._at_end else services.missing(asked, after=self._after, limit=self._size)
            return self._embed(asked, page) if page else self._switch(asked)
        except Error:
            raise
        except (EmbeddingError, _CannotGoOn) as error:
            return _put_off(asked, error)
        except Exception as error:
            logger.exception("re-embedding of library %s", asked.library)
            return _put_off(asked, _CannotGoOn(f"The server made a mistake; its log says which: {error!r}."))

    def _embed(self, asked: Reembedding, page: Sequence[Lacking]) -> bool:
        try:
            vectors = _vectors(asked, page, config())
        except TextRefused as error:
            if len(page) == 1:
                raise _CannotGoOn(f"The text of chunk {page[0].public_id!r} is refused. {error}") from error
            # Smaller pages tell which text it is.
            self._size = len(page) // 2
            return True
        except ProviderFailed:
            # One that is slow may manage fewer in its time.
            self.most = min(self.most, max(_LEAST_PER_PAGE, len(page) // 2))
            raise
        with transaction.atomic():
            library = services.locked(asked)
            if library is not None:
                services.store(library, asked, page, vectors)
        self._after, self._at_end = page[-1].key, len(page) < self._size
        self._size = min(2 * self._size, self.most)
        return True

    def _switch(self, asked: Reembedding) -> bool:
        """Switch if nothing is missing; else there is another pass."""
        self._attempts, self._after, self._at_end = self._attempts + 1, 0, False
        with transaction.atomic():
            library = services.locked(asked)
            if library is None:
                return True
            few = services.missing(asked, after=0, limit=_FEW + 1)
            if few:
                if self._attempts <= _ATTEMPTS_WITHOUT or len(few) > _FEW:
                    return True
                hurry = replace(config(), timeout=min(_SECONDS_FOR_FEW, config().timeout), retries=0)
                try:
                    services.store(library, asked, few, _vectors(asked, few, hurry))
                except (EmbeddingError, _CannotGoOn):
                    # With more time it may succeed, or else say why not.
                    self._attempts = 0
                    return True
            dimension = asked.dimension or provider(*asked.embedding).dimension
            services.switch(library, asked, dimension=dimension)
        logger.info("library %s has the embedding model %s %s now", library, *asked.embedding)
        return True

    def _sweep(self, asked: Reembedding) -> bool:
        with transaction.atomic():
            library = services.locked(asked)
            if library is None:
                return True
            last = services.sweep(library, asked, after=self._after, limit=_CHUNKS_PER_SWEEP)
        self._after = last or 0
        return last is not None


def _vectors(asked: Reembedding, chunks: Sequence[Lacking], how: Config) -> Float32:
    """The vectors [n, dimension] of the texts of n >= 1 chunks, each different text embedded once."""
    for chunk in chunks:
        if not chunk.text.strip():
            raise _CannotGoOn(f"Chunk {chunk.public_id!r} has no text: give it one, or delete it, and ask again.")
    texts = {text: i for i, text in enumerate(dict.fromkeys(chunk.text for chunk in chunks))}
    vectors = embed_with(provider(*asked.embedding), list(texts), "document", how)
    dimension = vectors.shape[1]
    if asked.dimension not in (None, dimension):
        raise _CannotGoOn(
            f"The model's vectors have {dimension} components now, and had {asked.dimension} before: call this off, "
            "then ask again."
        )
    if reason := dimension_fault(dimension):
        raise _CannotGoOn(f"The model {reason}.")
    return vectors[[texts[chunk.text] for chunk in chunks]]


def _put_off(asked: Reembedding, error: Exception) -> bool:
    """Note what went wrong: what may pass is tried again by itself, the rest when it is asked for again."""
    until = None
    if isinstance(error, ProviderFailed) and error.transient:
        until = timezone.now() + timedelta(seconds=max(_SECONDS_AFTER_FAILURE, error.retry_after or 0))
    logger.warning("re-embedding of library %s %s: %s", asked.library, "waits" if until else "failed", error)
    services.put_off(asked, str(error), until=until)
    return False
