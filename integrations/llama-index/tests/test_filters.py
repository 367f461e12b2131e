"""All operators and conditions find what llama-index-core's own evaluator finds."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from llama_index.vector_stores.vectordb import VectorDBVectorStore

METADATA: dict[str, dict[str, Any]] = {
    "a": {"kind": "Fruit", "year": 1900, "price": 1.5, "tags": ["red", "round"]},
    "b": {"kind": "fruit salad", "year": 1950, "price": 2.0, "tags": ["red"]},
    "c": {"kind": "animal", "year": 2000, "tags": [], "note": ""},
    "d": {"kind": None, "year": 1950, "price": -1, "tags": ["blue", "round", "red"]},
    "e": {},
}
CONDITIONS: list[tuple[str, FilterOperator, Any]] = [
    ("kind", FilterOperator.EQ, "animal"),
    ("year", FilterOperator.EQ, 1950),
    ("price", FilterOperator.EQ, 2),
    ("year", FilterOperator.NE, 1950),
    ("kind", FilterOperator.NE, "animal"),
    ("year", FilterOperator.GT, 1950),
    ("year", FilterOperator.GTE, 1950),
    ("price", FilterOperator.LT, 1.75),
    ("price", FilterOperator.LTE, 1.5),
    ("kind", FilterOperator.IN, ["animal", "Fruit"]),
    ("year", FilterOperator.IN, [1900, 2000]),
    ("year", FilterOperator.NIN, [1900, 2000]),
    ("tags", FilterOperator.ANY, ["blue", "green"]),
    ("tags", FilterOperator.ALL, ["red", "round"]),
    ("tags", FilterOperator.CONTAINS, "round"),
    ("kind", FilterOperator.TEXT_MATCH, "fruit"),
    ("kind", FilterOperator.TEXT_MATCH_INSENSITIVE, "FRUIT"),
    ("tags", FilterOperator.IS_EMPTY, None),
    ("note", FilterOperator.IS_EMPTY, None),
]


@pytest.fixture(scope="module")
def store() -> Iterator[VectorDBVectorStore]:
    store = VectorDBVectorStore("llama-index-filters")
    store.add([TextNode(id_=id, text=id, embedding=[1.0, 0.0], metadata=one) for id, one in METADATA.items()])
    yield store
    store._client.libraries.delete(store.library)  # type: ignore[union-attr]
    store.close()


def found(store: VectorDBVectorStore, filters: MetadataFilters) -> set[str]:
    return {node.node_id for node in store.get_nodes(filters=filters)}


def expected(filters: MetadataFilters) -> set[str]:
    matches = build_metadata_filter_fn(METADATA.__getitem__, filters)
    return set(filter(matches, METADATA))


def test_there_is_a_case_for_each_operator() -> None:
    assert {operator for _, operator, _ in CONDITIONS} == set(FilterOperator)


@pytest.mark.parametrize(("key", "operator", "value"), CONDITIONS)
def test_an_operator(store: VectorDBVectorStore, key: str, operator: FilterOperator, value: Any) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])
    assert expected(filters)
    assert found(store, filters) == expected(filters)


@pytest.mark.parametrize("condition", [*FilterCondition, None])
def test_a_condition(store: VectorDBVectorStore, condition: FilterCondition | None) -> None:
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key="year", operator=FilterOperator.GTE, value=1950),
            MetadataFilter(key="tags", operator=FilterOperator.CONTAINS, value="red"),
        ],
        condition=condition,
    )
    assert found(store, filters) == expected(filters)


def test_conditions_within_conditions(store: VectorDBVectorStore) -> None:
    red = MetadataFilter(key="tags", operator=FilterOperator.ANY, value=["red"])
    old = MetadataFilters(filters=[MetadataFilter(key="year", value=1900), red])
    neither = MetadataFilters(filters=[red, MetadataFilter(key="year", value=2000)], condition=FilterCondition.NOT)
    assert found(store, MetadataFilters(filters=[old, neither], condition=FilterCondition.OR)) == {"a", "e"}
    assert found(store, MetadataFilters(filters=[])) == set(METADATA)
