"""The values of metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vectordb_client.types.parsing import parse
from vectordb_client.types.tables import Table


@dataclass(frozen=True, slots=True)
class Facet:
    """A value of a field, and the number of chunks that have it."""

    value: Any
    count: int


@dataclass(frozen=True, slots=True, repr=False)
class Facets(Table[Facet]):
    """Values of a field; `values` is the number of different ones, `chunks` that of the chunks that match the
    filter."""

    items: tuple[Facet, ...]
    values: int
    chunks: int

    def to_dict(self) -> dict[Any, int]:
        """Counts by value."""
        return {facet.value: facet.count for facet in self.items}

    def _items(self) -> Sequence[Facet]:
        return self.items

    def _caption(self) -> str:
        return f"{self.values} values of {self.chunks} chunks"

    def __repr__(self) -> str:
        return f"Facets({self.to_dict()!r}, values={self.values}, chunks={self.chunks})"


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """The values of one type in a field; `min` and `max` of numbers and strings."""

    count: int
    min: Any = None
    max: Any = None


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """The values of a field: in how many chunks, how many different ones, by type."""

    field: str
    count: int
    distinct: int
    types: Mapping[str, TypeSummary]


@dataclass(frozen=True, slots=True, repr=False)
class FieldSummaries(Table[FieldSummary]):
    """What fields there are; `omitted` is the number of those beyond the first 500."""

    items: tuple[FieldSummary, ...]
    omitted: int

    def _items(self) -> Sequence[FieldSummary]:
        return self.items

    def _caption(self) -> str:
        return f"{len(self.items)} fields" + (f", {self.omitted} more" if self.omitted else "")

    def __repr__(self) -> str:
        return f"FieldSummaries({list(self.items)!r}, omitted={self.omitted})"


def parse_fields(answer: dict[str, Any]) -> FieldSummaries:
    """The summaries of fields."""
    return FieldSummaries(
        tuple(
            FieldSummary(
                one["field"],
                one["count"],
                one["distinct"],
                {name: parse(TypeSummary, summary) for name, summary in one["types"].items()},
            )
            for one in answer["fields"]
        ),
        answer["omitted"],
    )
