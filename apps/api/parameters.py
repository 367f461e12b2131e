"""Query parameters as typed objects, and keyset pagination by `?limit=` and `?cursor=`."""

from typing import Annotated, Any, ClassVar, TypeVar

from django.http import QueryDict
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import from_json

from apps.api.cursors import encode_cursor, parse_cursor
from apps.libraries.chunk_fields import ABOUT_INCLUDE, DEFAULT_INCLUDE, Include, Shown, Vectors
from apps.libraries.errors import Fault, Invalid, pointer
from apps.libraries.fields import NotNull, validation_error
from apps.libraries.selectors import Page, PageKey
from apps.search.query.spec import Filter

DEFAULT_LIMIT = 50
MAX_LIMIT = 500


class Parameters(BaseModel):
    """The query parameters of an endpoint; these are none. Those that are `repeated` are lists."""

    repeated: ClassVar[frozenset[str]] = frozenset()


_P = TypeVar("_P", bound=Parameters)


def parse_parameters(query: QueryDict, model: type[_P]) -> _P:
    """The parameters of a request; `format`, which chooses the renderer where it is none of them, is known everywhere.
    Raises Invalid, or pydantic's ValidationError."""
    given = {name: values for name, values in query.lists() if name != "format" or name in model.model_fields}
    unknown = [name for name in given if name not in model.model_fields]
    known = f"there are: {', '.join(model.model_fields)}" if model.model_fields else "there are none"
    faults = [Fault(pointer([name]), f"is not a query parameter here; {known}") for name in unknown]
    faults += [
        Fault(pointer([name]), "must be given once")
        for name, values in given.items()
        if len(values) > 1 and name not in model.repeated
    ]
    if faults:
        raise Invalid("A query parameter is not known, or comes twice.", faults)
    return model.model_validate(
        {name: values if name in model.repeated else values[0] for name, values in given.items()}
    )


def page_data(page: Page) -> dict[str, Any]:
    """A page as the API shows it."""
    return {"items": page.items, "next_cursor": None if page.next_key is None else encode_cursor(page.next_key)}


def _parse_limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MAX_LIMIT):
        raise validation_error(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _parse_json(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        raise validation_error('must be a filter as URL-encoded JSON, for example {"topic": "noun.animal"}') from None


class PageParameters(Parameters):
    """A page of a list: at most `limit` items after the key `cursor`."""

    limit: Annotated[
        int,
        BeforeValidator(_parse_limit),
        WithJsonSchema(
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "description": "The most items to return."}
        ),
    ] = DEFAULT_LIMIT
    cursor: Annotated[
        PageKey,
        BeforeValidator(parse_cursor),
        WithJsonSchema({"type": "string", "description": "The `next_cursor` of the page before."}),
        Field(default_factory=tuple),
    ]


class DocumentPageParameters(PageParameters):
    """A page of a library's documents."""

    filter: Annotated[
        Filter,
        BeforeValidator(_parse_json),
        WithJsonSchema(
            {
                "type": "string",
                "description": "Only the documents whose own metadata match this filter (docs/filters.md), as JSON. A "
                "page may then have fewer items than the limit, and others follow.",
            }
        ),
    ]


class ChunkParameters(Parameters):
    """What to show of a chunk."""

    repeated = frozenset(["include"])

    include: Annotated[
        Include,
        # Without a name nothing is included.
        BeforeValidator(lambda names: [] if names == [""] else names),
        Field(description=f"{ABOUT_INCLUDE} Given once for each; empty for none of them."),
    ] = DEFAULT_INCLUDE
    vectors: Vectors = "array"

    @property
    def shown(self) -> Shown:
        """What a chunk shows."""
        return Shown.of(self.include, self.vectors, is_item=True)


class ChunkPageParameters(PageParameters, ChunkParameters):
    """A page of a library's chunks."""

    document_id: Annotated[str | None, NotNull()] = Field(
        None, description="Only the chunks of this document, by position."
    )
    filter: Annotated[
        Filter,
        BeforeValidator(_parse_json),
        WithJsonSchema(
            {"type": "string", "description": "Only the chunks that match this filter (docs/filters.md), as JSON."}
        ),
    ]
