"""LlamaIndex's filters as those of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.ALL: "$all",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$icontains",
}


def to_filter(filters: MetadataFilters | None) -> dict[str, Any]:
    """The filter of nodes that match, all of them where there is none. Keys are paths: dots reach into objects."""
    if filters is None or not filters.filters:
        return {}
    conditions = [to_filter(one) if isinstance(one, MetadataFilters) else _condition(one) for one in filters.filters]
    if filters.condition == FilterCondition.OR:
        return {"$or": conditions}
    if filters.condition == FilterCondition.NOT:
        # None of them matches, as in llama-index-core's own store.
        return {"$not": {"$or": conditions}}
    return {"$and": conditions}


def of_nodes(ids: Sequence[str]) -> dict[str, Any]:
    """The filter of the nodes with these ids."""
    return {"@id": {"$in": list(ids)}}


def of_documents(ids: Sequence[str]) -> dict[str, Any]:
    """The filter of the nodes of documents, be these LlamaIndex's or the server's."""
    return {"$or": [{"ref_doc_id": {"$in": list(ids)}}, {"@document_id": {"$in": list(ids)}}]}


def all_of(*filters: dict[str, Any]) -> dict[str, Any]:
    """The filter of what matches all of these."""
    some = [one for one in filters if one]
    return {"$and": some} if len(some) > 1 else some[0] if some else {}


def _condition(filter: MetadataFilter) -> dict[str, Any]:
    if filter.operator == FilterOperator.IS_EMPTY:
        return {"$or": [{filter.key: {"$empty": True}}, {filter.key: ""}]}
    return {filter.key: {_OPERATORS[filter.operator]: filter.value}}
