"""What a query found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vectordb_client.types.chunks import DocumentRef
from vectordb_client.types.parsing import parse
from vectordb_client.types.tables import Table, short_repr
from vectordb_client.vectors import decode

if TYPE_CHECKING:
    from vectordb_client.vectors import Vector


@dataclass(frozen=True, slots=True)
class Hit:
    """A result of a query. What `include` did not name is None.

    A higher `score` and a lower `distance` is better. `base_score` is the score without boosts; the ranks are those of
    the two sides of a hybrid query.
    """

    id: str
    document_id: str | None
    score: float
    distance: float
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    embedding: Vector | None = field(default=None, compare=False, repr=False)
    embed_text: str | None = None
    document: DocumentRef | None = None
    base_score: float | None = None
    group: Any = None
    vector_rank: int | None = None
    lexical_rank: int | None = None

    def __repr__(self) -> str:
        return short_repr(self, ("score", "document_id", "text", "metadata"))


@dataclass(frozen=True, slots=True)
class QueryMeta:
    """How a query was answered: the state that was searched, the index, whether the answer provably is the exact top
    k."""

    revision: int
    index: str
    exact: bool
    plan: str
    scanned: int
    took_ms: float
    profile: Mapping[str, float] | None = None
    incomplete: bool | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Hits(Table[Hit]):
    """The results of a query, the best first."""

    items: tuple[Hit, ...]
    meta: QueryMeta

    @property
    def ids(self) -> list[str]:
        """The ids of the results."""
        return [hit.id for hit in self.items]

    @property
    def scores(self) -> list[float]:
        """The scores of the results."""
        return [hit.score for hit in self.items]

    def _items(self) -> Sequence[Hit]:
        return self.items

    def _caption(self) -> str:
        return f"{len(self.items)} hits in {self.meta.took_ms:.1f} ms, {self.meta.plan}"

    def __repr__(self) -> str:
        return f"Hits({list(self.items)!r})"


def parse_hits(answer: dict[str, Any]) -> Hits:
    """The results of one query."""
    return Hits(tuple([_hit(item) for item in answer["results"]]), parse(QueryMeta, answer["meta"]))


def _hit(item: dict[str, Any]) -> Hit:
    get = item.get
    embedding, document = get("embedding"), get("document")
    return Hit(
        item["id"],
        item["document_id"],
        item["score"],
        item["distance"],
        get("text"),
        get("metadata"),
        None if embedding is None else decode(embedding),
        get("embed_text"),
        None if document is None else parse(DocumentRef, document),
        get("base_score"),
        get("group"),
        get("vector_rank"),
        get("lexical_rank"),
    )
