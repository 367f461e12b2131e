"""What a query may say: one strict model, parsed once from the request."""

from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import AfterValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from apps.libraries.values import NOT_SUPPORTED, Identifier, Input, Several, Unbuilt, Vector, Whole, refusal

Include = Literal["text", "metadata", "embedding", "document"]


def _empty_filter(value: dict[str, Any]) -> dict[str, Any]:
    if value:
        raise refusal("is not supported by this version; only {} (all chunks) is", NOT_SUPPORTED)
    return value


def _vector_mode(value: str) -> str:
    if value != "vector":
        raise refusal(f"{value!r} is not supported by this version; only 'vector' is", NOT_SUPPORTED)
    return value


def _auto_filter_mode(value: str) -> str:
    if value != "auto":
        raise refusal(f"{value!r} is not supported by this version, which has no filters", NOT_SUPPORTED)
    return value


def _no_grouping(value: Any) -> Any:
    if value is not None:
        raise refusal("is not supported by this version; leave it out or null", NOT_SUPPORTED)
    return value


Filter = Annotated[
    dict[str, Any], AfterValidator(_empty_filter), Field(json_schema_extra={"maxProperties": 0, "default": {}})
]


class QuerySpec(Input):
    """One query: exactly one of `vector` and `chunk_id`, how many results, and what to show of them."""

    vector_key = "vector"

    vector: Vector = ""
    chunk_id: Identifier = ""
    text: Unbuilt = None
    k: Annotated[int, Whole(1, settings.LIMITS.k, "VECTORDB_MAX_K")] = 10
    offset: Annotated[int, Whole(0, settings.LIMITS.window, "VECTORDB_MAX_WINDOW")] = 0
    score_threshold: float | None = None
    filter: Filter = Field(default_factory=dict, json_schema_extra={"maxProperties": 0, "default": {}})
    filter_mode: Annotated[
        Literal["auto", "pre", "post"],
        AfterValidator(_auto_filter_mode),
        Field(json_schema_extra={"enum": ["auto"]}),
    ] = "auto"
    mode: Annotated[
        Literal["vector", "lexical", "hybrid"],
        AfterValidator(_vector_mode),
        Field(json_schema_extra={"enum": ["vector"]}),
    ] = "vector"
    hybrid: Unbuilt = None
    group_by: SkipJsonSchema[Annotated[Any, AfterValidator(_no_grouping)]] = None
    group_size: Unbuilt = None
    mmr: SkipJsonSchema[Annotated[Any, AfterValidator(_no_grouping)]] = None
    exact: bool = False
    search_params: Annotated[
        dict[str, Any], Field(default_factory=dict, json_schema_extra={"maxProperties": 0, "default": {}})
    ]
    include: tuple[Include, ...] = ("text", "metadata")

    @model_validator(mode="after")
    def _consistent(self) -> "QuerySpec":
        if self.names("vector") == self.names("chunk_id"):
            raise refusal("needs exactly one of vector, text and chunk_id")
        if self.offset + self.k > settings.LIMITS.window:
            limit = settings.LIMITS.window
            raise refusal(f"and k must be at most {limit} together (limit VECTORDB_MAX_WINDOW)", path=("offset",))
        return self


class QueryBatch(Input):
    """Queries to answer from one state of the library."""

    vector_key = "vector"

    queries: Annotated[list[QuerySpec], Several(settings.LIMITS.queries_per_batch, "VECTORDB_MAX_QUERIES_PER_BATCH")]
