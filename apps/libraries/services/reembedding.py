"""A library's move to another embedding model: requesting it, calling it off, and the steps that do it.

A second generation of embeddings is made beside the current one, page by page, each embedded outside of any
transaction, and becomes the current one in the transaction of `switch_model`. What always holds: an embedding of the
new generation is the new model's vector of the text that its chunk has. Texts are compared under the library's lock
before a vector is stored, and a trigger deletes the vector when its text changes. So the chunks without one are the
work that is left, whenever a process was killed. A blank text makes no vector: its chunk has none after the switch.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, Func, Max, OuterRef, Q, QuerySet, TextField, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact
from django.utils import timezone

from apps.access.audit import record_change
from apps.embeddings.config import Config, config
from apps.embeddings.errors import ProviderFailed
from apps.embeddings.registry import provider
from apps.embeddings.services import embed_with
from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, NotFound
from apps.libraries.expiry import live_chunks
from apps.libraries.inputs import Reembed
from apps.libraries.models import Chunk, Embedding, Library, Reembedding, text_to_embed
from apps.libraries.services import sql
from apps.libraries.services.embedding import dimension_fault, known_model

logger = logging.getLogger(__name__)

State = Reembedding.State

# What Python's str.strip removes: a text of nothing else is blank.
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class ReembeddingFailed(Exception):
    """A text or a vector does not allow the move; the message says which, and what to do."""


def request_reembedding(*, library_id: str, reembed: Reembed) -> Reembedding:
    """Request the move of the library to a model; one that failed or waits continues at once.

    Raises NotFound, Conflict if it is being moved to another model, Invalid for a model that cannot be used.
    """
    model, _ = known_model(reembed.embedding.key, "/embedding")
    with sql.write_transaction():
        library = sql.lock_library(library_id)
        move = Reembedding.objects.filter(pk=library.pk).first()
        if move is None or move.state == State.SWEEPING:
            # Above all that are there, whoever wrote them: what is left of another model must not pass as new.
            newest = Embedding.objects.filter(chunk__library=library).aggregate(newest=Max("generation"))["newest"]
            generation = max(library.generation, newest or 0, move.generation if move else 0) + 1
            move = Reembedding(library=library, generation=generation, provider=model.provider, model=model.model)
            move.save()
        elif move.embedding != model:
            detail = f"The library is being moved to {move.provider} {move.model}; DELETE that first."
            raise Conflict(detail, [Fault("/embedding", "is not the model that the library is being moved to")])
        else:
            _set_state(move, State.RUNNING)
        record_change("reembed_library", library=library_id, target=" ".join(model))
    return move


def cancel_reembedding(*, library_id: str) -> None:
    """Call the move off; what was made for it is deleted later. Raises NotFound, also if there is no move."""
    with sql.write_transaction():
        library = sql.lock_library(library_id)
        found = Reembedding.objects.filter(pk=library.pk).exclude(state=State.SWEEPING)
        if not found.update(state=State.SWEEPING, error="", retry_at=None):
            raise selectors.no_reembedding(library_id)
        record_change("cancel_reembedding", library=library_id)


def due_libraries() -> list[int]:
    """The keys of the libraries whose move has work to do now, in the order of the requests."""
    return list(_due_moves().order_by("created_at").values_list("pk", flat=True))


def due_move(library_key: int) -> Reembedding | None:
    """The library's move, if it has work to do now."""
    move = _due_moves().select_related("library").filter(pk=library_key).first()
    if move is not None and move.state == State.WAITING:
        _set_state(move, State.RUNNING)
    return move


def is_current(move: Reembedding) -> bool:
    """Whether `move` still is in the state that the caller knows."""
    return Reembedding.objects.filter(pk=move.pk, generation=move.generation, state=move.state).exists()


def pending_chunks(move: Reembedding, *, after: int, limit: int) -> list[Chunk]:
    """The first chunks past the key `after` that have a text, and no embedding in the new generation."""
    made = Embedding.objects.filter(chunk=OuterRef("pk"), generation=move.generation)
    rest = Func(Coalesce("embed_text", "text"), Value(WHITE_SPACE), function="ltrim", output_field=TextField())
    chunks = live_chunks(Chunk.objects.filter(~Exists(made), library=move.pk, pk__gt=after))
    chunks = chunks.exclude(Exact(rest, Value("")))
    return list(chunks.order_by("pk").only("public_id", "text", "embed_text")[:limit])


def embed_page(move: Reembedding, page: Sequence[Chunk]) -> None:
    """Embed and store the texts of `page`, except for those that change meanwhile; nothing if the move is over.

    Raises ReembeddingFailed, and what the provider raises.
    """
    vectors = _embed(move, page, config())
    with transaction.atomic():
        library = _lock_library(move)
        if library is not None:
            _store(library, move, page, vectors)


def switch_model(move: Reembedding, *, embed_at_most: int, settings: Config) -> None:
    """Make the new generation the library's current one, if it lacks nothing or the move is over.

    While texts are written all the time, a few would always be missing: at most `embed_at_most` are embedded within
    the transaction, as `settings` say, and the library's writers wait. Raises as `embed_page`.
    """
    with transaction.atomic():
        library = _lock_library(move)
        if library is None:
            return
        pending = pending_chunks(move, after=0, limit=embed_at_most + 1)
        if len(pending) > embed_at_most:
            return
        if pending:
            _store(library, move, pending, _embed(move, pending, settings))
        library.generation = move.generation
        library.dimension = move.dimension or provider(*move.embedding).dimension
        library.embedding_provider, library.embedding_model = move.embedding
        library.save()
        move.state = State.SWEEPING
        move.save(update_fields=["state"])


def sweep_embeddings(move: Reembedding, *, after: int, limit: int) -> int | None:
    """Delete the embeddings of other generations than the current one of the first `limit` chunks past the key `after`.

    Return the last of their keys, or None if none was left: then the move is deleted too, or was over.
    """
    with transaction.atomic():
        library = _lock_library(move)
        if library is None:
            return None
        others = Embedding.objects.exclude(generation=library.generation)
        chunks = Chunk.objects.filter(Exists(others.filter(chunk=OuterRef("pk"))), library=library, pk__gt=after)
        keys = list(chunks.order_by("pk").values_list("pk", flat=True)[:limit])
        if not keys:
            move.delete()
            return None
        others.filter(chunk__in=keys).delete()
    return keys[-1]


def postpone(move: Reembedding, error: Exception, *, retry_seconds: float) -> None:
    """Record why the move cannot go on. A failure that may pass is tried again after `retry_seconds`, or when the
    provider says, others when the move is requested again."""
    until = None
    if isinstance(error, ProviderFailed) and error.transient:
        until = timezone.now() + timedelta(seconds=max(retry_seconds, error.retry_after or 0))
    logger.warning("re-embedding of library %s %s: %s", move.library, "waits" if until else "failed", error)
    _set_state(move, State.WAITING if until else State.FAILED, str(error), until)


def _due_moves() -> QuerySet[Reembedding]:
    return Reembedding.objects.filter(
        Q(state__in=[State.RUNNING, State.SWEEPING]) | Q(state=State.WAITING, retry_at__lte=timezone.now())
    )


def _set_state(move: Reembedding, state: State, error: str = "", retry_at: datetime | None = None) -> None:
    """Set the state of `move`, unless it was called off or replaced meanwhile."""
    move.state, move.error, move.retry_at = state, error, retry_at
    stored = Reembedding.objects.filter(pk=move.pk, generation=move.generation).exclude(state=State.SWEEPING)
    stored.update(state=state, error=error, retry_at=retry_at)


def _lock_library(move: Reembedding) -> Library | None:
    """Lock the library; return None if it is gone, or if `move` is not in the state any more that the caller knows."""
    try:
        library = sql.lock_library(key=move.pk)
    except NotFound:
        return None
    return library if is_current(move) else None


def _embed(move: Reembedding, chunks: Sequence[Chunk], settings: Config) -> Float32:
    """The vectors [n, dimension] of the texts of n >= 1 chunks, each different text embedded once."""
    given = [text_to_embed(chunk.text, chunk.embed_text) for chunk in chunks]
    texts = {text: i for i, text in enumerate(dict.fromkeys(given))}
    vectors = embed_with(provider(*move.embedding), list(texts), "document", settings)
    dimension = vectors.shape[1]
    if move.dimension not in (None, dimension):
        raise ReembeddingFailed(
            f"The model's vectors have {dimension} components now, and had {move.dimension} before: call this off, "
            "then ask again."
        )
    if fault := dimension_fault(dimension):
        raise ReembeddingFailed(f"The model {fault}.")
    return vectors[[texts[text] for text in given]]


def _store(library: Library, move: Reembedding, chunks: Sequence[Chunk], vectors: Float32) -> None:
    """Store `vectors` [n, dimension] of the texts of `chunks` [n], except for those whose text has changed."""
    texts = sql.texts_to_embed(library, [chunk.pk for chunk in chunks])
    same = [i for i, chunk in enumerate(chunks) if texts.get(chunk.pk) == text_to_embed(chunk.text, chunk.embed_text)]
    sql.put_vectors(library, [chunks[i].pk for i in same], [vectors[i] for i in same], generation=move.generation)
    if move.dimension is None:
        move.dimension = vectors.shape[1]
        move.save(update_fields=["dimension"])
