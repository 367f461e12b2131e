"""LangChain's structured filters, as self-querying retrievers make them, as filters of the server."""

from __future__ import annotations

from typing import Any

from langchain_core.structured_query import (
    Comparator,
    Comparison,
    FilterDirective,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)
from vectordb_client.filters import FilterLike

_OPERATORS = {Operator.AND: "$and", Operator.OR: "$or"}
_COMPARATORS = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.CONTAIN: "$contains",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
}


class VectorDBTranslator(Visitor):
    """The `structured_query_translator` of a self-querying retriever."""

    allowed_comparators = tuple(Comparator)
    allowed_operators = tuple(Operator)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """`and`, `or`, and `not` of all that it has."""
        filters = [argument.accept(self) for argument in operation.arguments]
        if operation.operator is Operator.NOT:
            return {"$not": filters[0] if len(filters) == 1 else {"$or": filters}}
        return {_OPERATORS[operation.operator]: filters}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """A field and what it is compared with; `like` takes `part%` and `%part%`."""
        if comparison.comparator is Comparator.LIKE:
            return {comparison.attribute: _like(comparison.value)}
        value = comparison.value
        operand = [_operand(one) for one in value] if isinstance(value, list | tuple) else _operand(value)
        return {comparison.attribute: {_COMPARATORS[comparison.comparator]: operand}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """The query, and the keywords of a search."""
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}


def to_filter(filter: FilterLike | FilterDirective | None) -> FilterLike | None:
    """A filter as the client takes it."""
    if isinstance(filter, FilterDirective):
        translated: dict[str, Any] = filter.accept(VectorDBTranslator())
        return translated
    return filter


def _operand(value: Any) -> Any:
    """A value; dates and times are dicts such as `{"date": "2026-01-31", "type": "date"}`."""
    if isinstance(value, dict) and value.get("type") in ("date", "datetime"):
        return {"$date": value[value["type"]]}
    return value


def _like(pattern: str) -> dict[str, str]:
    text = pattern.strip("%")
    if "%" in text or "_" in text or (pattern.startswith("%") and not pattern.endswith("%")):
        raise ValueError(f"like: takes part% or %part%, not {pattern!r}")
    return {"$contains" if pattern.startswith("%") or not pattern.endswith("%") else "$prefix": text}
