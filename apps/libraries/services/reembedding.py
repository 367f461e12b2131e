"""The rows of a move to another embedding model: asking for it, calling it off, and the steps of whoever does it.

A second generation of embeddings is made beside the library's current one, and becomes the current one in the
transaction of `switch`. What always holds: an embedding of the new generation is the new model's vector of the text
that its chunk has. `store` compares texts under the library's lock, and a trigger deletes what was made of a text when
it changes. So all that is left to do is, at any time, the chunks without such an embedding.

`ask` and `cancel` own their transactions. The rest runs inside its caller's, after `locked`; only `missing`, `due` and
`put_off` may also run outside of one.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from django.db import connection, transaction
from django.db.models import Max, Q
from django.utils import timezone

from apps.engine.vectors import Float32
from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, Invalid, NotFound
from apps.libraries.models import Embedding, EmbeddingModel, Library, Reembedding
from apps.libraries.services import sql

State = Reembedding.State

# What Python's str.strip takes away: a text of nothing else is blank.
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class Lacking(NamedTuple):
    """A chunk that has no embedding in the new generation."""

    key: int
    public_id: str
    text: str


def ask(*, library_id: str, model: EmbeddingModel) -> Reembedding:
    """Have the library moved to `model`; what failed or waits goes on at once, from where it stood.

    Raises NotFound, Conflict where it is on its way to another model, Invalid where a chunk's text is blank.
    """
    _refuse_blank_texts(selectors.library_row(library_id))
    with transaction.atomic():
        library = sql.lock_library(library_id)
        asked = Reembedding.objects.filter(pk=library.pk).first()
        if asked is None or asked.state == State.SWEEPING:
            # Above all that are there, whoever wrote them: what is left over of another model must not pass as new.
            newest = Embedding.objects.filter(chunk__library=library).aggregate(newest=Max("generation"))["newest"]
            generation = max(library.generation, newest or 0, asked.generation if asked else 0) + 1
            asked = Reembedding(library=library, generation=generation, provider=model.provider, model=model.model)
            asked.save()
        elif asked.embedding != model:
            detail = f"The library is being moved to {asked.provider} {asked.model}; DELETE that first."
            raise Conflict(detail, [Fault("/embedding", "is not the model that the library is being moved to")])
        else:
            resume(asked)
    return asked


def cancel(*, library_id: str) -> None:
    """Call the move off; what was made for it is swept. Raises NotFound, also where there is none."""
    with transaction.atomic():
        library = sql.lock_library(library_id)
        found = Reembedding.objects.filter(pk=library.pk).exclude(state=State.SWEEPING)
        if not found.update(state=State.SWEEPING, error="", retry_at=None):
            raise selectors.no_reembedding(library_id)


def due() -> list[int]:
    """The keys of the libraries for which there is something to do, in the order in which it was asked for."""
    is_due = Q(state__in=[State.RUNNING, State.SWEEPING]) | Q(state=State.WAITING, retry_at__lte=timezone.now())
    return list(Reembedding.objects.filter(is_due).order_by("created_at").values_list("pk", flat=True))


def resume(asked: Reembedding) -> None:
    """Let it run, whatever it waited for."""
    asked.state, asked.error, asked.retry_at = State.RUNNING, "", None
    _note(asked, State.RUNNING, "", None)


def put_off(asked: Reembedding, error: str, *, until: datetime | None) -> None:
    """Note why it cannot go on: until a time, or until it is asked for again."""
    _note(asked, State.WAITING if until else State.FAILED, error, until)


def _note(asked: Reembedding, state: State, error: str, retry_at: datetime | None) -> None:
    # Not what was called off, or begun anew, meanwhile.
    found = Reembedding.objects.filter(pk=asked.pk, generation=asked.generation).exclude(state=State.SWEEPING)
    found.update(state=state, error=error, retry_at=retry_at)


def locked(asked: Reembedding) -> Library | None:
    """The library, locked; None where it is gone, or `asked` is not in the state any more that the caller knows."""
    public_id = Library.objects.filter(pk=asked.pk).values_list("public_id", flat=True).first()
    try:
        library = sql.lock_library(public_id or "")
    except NotFound:
        return None
    found = Reembedding.objects.filter(pk=library.pk, generation=asked.generation, state=asked.state)
    return library if library.pk == asked.pk and found.exists() else None


def missing(asked: Reembedding, *, after: int, limit: int) -> list[Lacking]:
    """The first chunks past the key `after` that have no embedding in the new generation."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT chunk.id, chunk.public_id, chunk.text FROM chunk LEFT JOIN embedding"
            " ON embedding.chunk_id = chunk.id AND embedding.generation = %s"
            " WHERE chunk.library_id = %s AND chunk.id > %s AND embedding.chunk_id IS NULL ORDER BY chunk.id LIMIT %s",
            [asked.generation, asked.pk, after, limit],
        )
        return [Lacking(*row) for row in cursor.fetchall()]


def store(library: Library, asked: Reembedding, chunks: Sequence[Lacking], vectors: Float32) -> None:
    """Store `vectors` [n, dimension] of the texts of `chunks` [n], except for those that have another text by now."""
    texts = sql.texts_of(library, [chunk.key for chunk in chunks])
    same = np.array([texts.get(chunk.key) == chunk.text for chunk in chunks], np.bool_)
    keys = np.array([chunk.key for chunk in chunks], np.int64)
    sql.put_vectors(library, keys[same].tolist(), vectors[same], generation=asked.generation)
    if asked.dimension is None:
        asked.dimension = vectors.shape[1]
        asked.save(update_fields=["dimension"])


def switch(library: Library, asked: Reembedding, *, dimension: int | None) -> None:
    """Make the new generation, which must lack nothing, the library's current one; the old one is left to `sweep`."""
    library.generation, library.dimension = asked.generation, dimension
    library.embedding_provider, library.embedding_model = asked.embedding
    library.save(
        update_fields=["generation", "dimension", "embedding_provider", "embedding_model", "updated_at"],
    )
    asked.state = State.SWEEPING
    asked.save(update_fields=["state"])


def sweep(library: Library, asked: Reembedding, *, after: int, limit: int) -> int | None:
    """Delete what the first `limit` chunks past the key `after` have of other generations than the current one; answers
    the last of their keys, or None when nothing was left, and then `asked` is gone too."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT chunk.id FROM chunk JOIN embedding ON embedding.chunk_id = chunk.id"
            " WHERE chunk.library_id = %s AND chunk.id > %s AND embedding.generation <> %s ORDER BY chunk.id LIMIT %s",
            [library.pk, after, library.generation, limit],
        )
        keys: list[int] = [key for (key,) in cursor.fetchall()]
    if not keys:
        asked.delete()
        return None
    sql.delete_other_vectors(library, keys)
    return keys[-1]


def _refuse_blank_texts(library: Library) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), min(public_id) FROM chunk WHERE library_id = %s AND ltrim(text, %s) = ''",
            [library.pk, WHITE_SPACE],
        )
        count, example = cursor.fetchone()
    if count:
        chunks = "1 chunk has" if count == 1 else f"{count:,} chunks have"
        detail = f"cannot make vectors: {chunks} no text, for example {example!r}; give them one, or delete them"
        raise Invalid.at("/embedding", detail)
