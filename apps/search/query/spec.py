"""What a query may say: one strict model, parsed once from the request."""

import sys
import time
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from django.conf import settings
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from apps.engine.errors import InvalidFilter
from apps.engine.indexes.registry import AUTO, search_parameters
from apps.engine.metadata import filters, paths
from apps.engine.metadata.instants import NANOSECONDS, instant_of
from apps.libraries.chunk_fields import ShowingInput
from apps.libraries.fields import BoundedInt, Identifier, Input, NotNull, Text, Vector, bounded_list, validation_error
from apps.libraries.inputs import NamedModel, Profiled

Mode = Literal["vector", "lexical", "hybrid"]

MAX_BOOSTS = 16
MAX_WEIGHT = 100_000
MAX_ORIGIN = sys.float_info.max


def parse_filter(value: Any) -> filters.Filter:
    """The filter of a request; faults carry the path into it."""
    try:
        return filters.parse_filter(value)
    except InvalidFilter as error:
        raise validation_error(error.reason, path=error.path) from None


EVERYTHING = filters.parse_filter({})
# Conditions on metadata (docs/filters.md); left out, all chunks match.
Filter = Annotated[
    Any,
    BeforeValidator(parse_filter),
    # A factory, since a default would be copied, whole, for every query.
    Field(default_factory=lambda: EVERYTHING),
    WithJsonSchema(
        {
            "type": "object",
            "description": "Conditions on metadata (docs/filters.md) that chunks must match; left out, all do.",
            "additionalProperties": True,
            "examples": [{"topic": "noun.animal", "synonyms": {"$gte": 4}}],
        }
    ),
]


@lru_cache(maxsize=1024)
def parse_field(value: str) -> str:
    """The name of a field whose values can be counted, from its path as filters have it."""
    if value in paths.TIMES:
        raise validation_error("is not counted and makes no groups; filter or order chunks by it instead")
    if value == paths.TEXT:
        raise validation_error("has no values to count, to group or to order by; filter by it instead")
    try:
        filters.parse_filter({value: {"$exists": True}})
    except InvalidFilter:
        own = f"{paths.ID} or {paths.DOCUMENT_ID}"
        raise validation_error(
            f"must be the path of a field of metadata, such as topic or author.name, or of the document's, such as "
            f"{paths.DOCUMENT}topic, or {own}"
        ) from None
    return paths.field_name(value)


def parse_order_field(value: str) -> str:
    """The name of a field that chunks can be ordered by."""
    return value if value in paths.TIMES else parse_field(value)


def _parse_decay_field(value: str) -> str:
    """The name of a field that holds numbers or times."""
    if value in (paths.ID, paths.DOCUMENT_ID, paths.TEXT):
        raise validation_error("is no number and no time; use a boost with a filter on it")
    return parse_order_field(value)


def _parse_group_by(value: str) -> str:
    """The name of the field; `document` means the document's id, and `\\document` a field of that name."""
    return paths.DOCUMENT_ID if value == "document" else parse_field(value)


class Hybrid(Input):
    """How ranks by vector and by words are fused: each hit scores weight / (rrf_k + rank), summed over both."""

    rrf_k: Annotated[int, BoundedInt(1, 10_000, "of reciprocal rank fusion")] = Field(
        60, description="A larger one favours chunks found by both, a smaller one the first ranks of either."
    )
    vector_weight: float = Field(1.0, ge=0, le=1000, description="The weight of ranks by vector; 0 leaves them out.")
    lexical_weight: float = Field(1.0, ge=0, le=1000, description="The weight of ranks by words; 0 leaves them out.")


_EVENLY = Hybrid()


class Mmr(Input):
    """Maximal marginal relevance: of the `fetch_k` nearest, each result is chosen for being near the query (`lambda`)
    and unlike those chosen before (1 - `lambda`)."""

    lambda_: Annotated[
        float, Field(ge=0, le=1, alias="lambda", description="1 looks at nearness only, 0 at unlikeness only.")
    ] = 0.5
    fetch_k: Annotated[int, BoundedInt(1, settings.LIMITS.k, "VECTORDB_MAX_K")] = Field(
        50, description="How many nearest chunks to choose from; `k` if that is more. Others follow by nearness."
    )


class Instant(NamedTuple):
    """A time, in seconds since the epoch."""

    seconds: float


def _parse_origin(value: Any) -> float | Instant:
    if isinstance(value, str) and (instant := instant_of(value)) is not None:
        return Instant(instant / NANOSECONDS)
    if isinstance(value, int | float) and not isinstance(value, bool) and -MAX_ORIGIN <= value <= MAX_ORIGIN:
        return float(value)
    raise validation_error('must be a finite number, or an RFC 3339 date or time, such as "2026-01-31T12:00:00Z"')


class Decay(Input):
    """What a field adds to the score: 2^(-distance / `half_life`), so 1 at the origin and a half at one half-life from
    it, on both sides; 0 where the field is missing or of another type than the origin."""

    half_life: float = Field(gt=0, description="The distance that leaves a half; of times, in seconds.")
    origin: Annotated[
        float | Instant,
        BeforeValidator(_parse_origin),
        Field(default_factory=lambda: Instant(time.time())),
        WithJsonSchema(
            {
                "anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}],
                "description": "Where the distance is 0: a number for numbers, a time for times; left out, now.",
            }
        ),
    ]


class Boost(Input):
    """What is added to the score of some chunks: `weight` for those that match a `filter`, or `weight` times the
    `decay` of a `field`."""

    filter: Filter
    field: Annotated[str, AfterValidator(_parse_decay_field)] = Field(
        default_factory=str,
        description="The field of the decay: a path as filters have it, `@created_at` or `@expires_at`.",
    )
    decay: Annotated[Decay | None, NotNull()] = Field(None, description="How the field's nearness to an origin counts.")
    weight: float = Field(
        ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="The most that is added; a negative one lowers the score."
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> "Boost":
        if self.is_set("filter") == self.is_set("field"):
            raise validation_error("needs either a filter, or a field with a decay")
        if self.is_set("filter"):
            if self.decay is not None:
                raise validation_error("is for a field; a filter counts 1 or 0", path=("decay",))
        elif self.decay is None:
            raise validation_error('is required with a field, such as {"half_life": 604800}', path=("decay",))
        elif self.field in paths.TIMES and not isinstance(self.decay.origin, Instant):
            raise validation_error(f"must be a time for {self.field}; left out, it is now", path=("decay", "origin"))
        return self


def _show_search_parameters(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False
    schema["properties"] = {
        name: {
            "type": "integer" if one.whole else "number",
            "minimum": one.low,
            "maximum": one.high,
            "description": f"{one.meaning}. Default: {one.default}.",
        }
        for name, one in search_parameters(AUTO).items()
    }


class QuerySpec(ShowingInput):
    """One query: by `vector`, `text` or `chunk_id`, how many results, and what to show of them."""

    vector_key = "vector"

    vector: Vector = Field("", description="Find the chunks nearest to this vector, of the library's dimension.")
    text: Text = Field("", description="Find by this text: by its vector, by its words, or by both, as `mode` says.")
    chunk_id: Identifier = Field("", description="Find the chunks that are like this one, which is left out itself.")
    k: Annotated[int, BoundedInt(1, settings.LIMITS.k, "VECTORDB_MAX_K")] = Field(
        10, description="How many results to return."
    )
    offset: Annotated[int, BoundedInt(0, settings.LIMITS.window, "VECTORDB_MAX_WINDOW")] = Field(
        0, description="How many results to pass over, for the next page."
    )
    score_threshold: float | None = Field(None, description="The lowest score of a result; null for any.")
    filter: Filter
    filter_mode: Literal["auto", "pre", "post"] = Field(
        "auto", description="`pre` scans all that match, `post` looks among the k nearest only, `auto` chooses."
    )
    mode: Mode = Field(
        "vector", description="Find by vectors, by words (`lexical`), or by both (`hybrid`), fused by rank."
    )
    hybrid: Annotated[Hybrid, Field(default_factory=lambda: _EVENLY, description="How mode hybrid weighs both sides.")]
    group_by: Annotated[str, AfterValidator(_parse_group_by)] | None = Field(
        None,
        description="The path of a field: find the k best of its values, such as the k best documents by `document`; "
        "null does not group.",
    )
    group_size: Annotated[int, BoundedInt(1, 100, "of chunks in a group")] = Field(
        1, description="The most chunks shown of a group, with `group_by`."
    )
    boost: Annotated[
        list[Boost],
        Field(
            default_factory=list,
            max_length=MAX_BOOSTS,
            description="What is added to the scores of the best `depth` chunks, which are then put in order.",
        ),
    ]
    depth: Annotated[int, BoundedInt(1, settings.LIMITS.window, "VECTORDB_MAX_WINDOW")] = Field(
        200, description="How many of the best chunks `boost` puts in a new order; at least offset + k."
    )
    mmr: Mmr | None = Field(None, description="Choose results that are unlike each other; null does not.")
    embedding: NamedModel = None
    profile: Profiled = False
    exact: bool = Field(False, description="Whether to give the exact answer, whatever the index.")
    search_params: Annotated[
        dict[str, Any],
        Field(
            default_factory=dict,
            description="Parameters of the index for this query, of those that its type takes.",
            json_schema_extra=_show_search_parameters,
        ),
    ]

    @model_validator(mode="after")
    def _check_consistency(self) -> "QuerySpec":
        given = [name for name in ("vector", "text", "chunk_id") if self.is_set(name)]
        if len(given) != 1 and not (self.mode == "hybrid" and given == ["vector", "text"]):
            raise validation_error(
                "needs exactly one of vector, text and chunk_id; hybrid takes text with a vector too"
            )
        if self.is_set("text") and not self.text.strip():
            raise validation_error("must not be blank", path=("text",))
        if self.mode != "vector" and given == ["vector"]:
            raise validation_error(f"is required in mode {self.mode}, or a chunk_id", path=("text",))
        if self.offset + self.k > settings.LIMITS.window:
            limit = settings.LIMITS.window
            raise validation_error(
                f"and k must be at most {limit} together (limit VECTORDB_MAX_WINDOW)", path=("offset",)
            )
        if self.mmr is not None and self.mode == "lexical":
            raise validation_error("needs vectors; use mode vector or hybrid", path=("mmr",))
        if self.mmr is not None and self.group_by is not None:
            raise validation_error("cannot be used together with group_by; leave one of them out", path=("mmr",))
        if self.boost and self.mmr is not None:
            raise validation_error("cannot be used together with mmr; leave one of them out", path=("boost",))
        if self.boost and self.depth < self.offset + self.k:
            raise validation_error(
                "must be at least offset + k, so that all pages are of one ranking; send a larger one", path=("depth",)
            )
        return self

    @property
    def mmr_ranks(self) -> int | None:
        """The number of first ranks that `mmr` puts in another order, the same for every page; None without it."""
        return None if self.mmr is None else max(self.mmr.fetch_k, self.k)


class QueryBatch(Input):
    """Queries to answer from one state of the library."""

    vector_key = "vector"

    queries: Annotated[list[QuerySpec], bounded_list(settings.LIMITS.queries_per_batch)] = Field(
        description="The queries; one that is refused refuses all."
    )
