"""Rows as an import brings them: what a client writes, and what the server had noted where they come from."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from apps.libraries.errors import Fault
from apps.libraries.fields import BoundedInt, Expiry, Input, Metadata, NewIdentifier, check_time
from apps.libraries.inputs import ChunkInput, Source, Title
from apps.libraries.validation import fault_of

# What becomes of rows whose ids are in use: they replace those, are refused, or are left out.
Mode: TypeAlias = Literal["upsert", "insert", "skip"]

_MOST_FAULTS_OF_A_ROW: Final = 5
_Row = TypeVar("_Row", bound=Input)


@lru_cache(maxsize=4096)
def _parse_time(value: str) -> datetime:
    return check_time(value)


def _check_past(value: Any) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    return _parse_time(value) if isinstance(value, str) else check_time(value)


_Time = Annotated[datetime | None, BeforeValidator(_check_past)]
_Position = Annotated[int, BoundedInt(0, 2**31 - 1, "of positions")]


class ChunkImport(ChunkInput):
    """A chunk with its place in its document, and when it was made; a change of it is always made now."""

    position: _Position | None = None
    created_at: _Time = None
    updated_at: _Time = None


class DocumentImport(Input):
    """A document without its chunks, and when it was made."""

    id: NewIdentifier
    title: Title = ""
    source: Source = ""
    metadata: Metadata = Field({})
    expires_at: Expiry = None
    created_at: _Time = None
    updated_at: _Time = None


_CHUNKS: Final = TypeAdapter(list[ChunkImport])
_DOCUMENTS: Final = TypeAdapter(list[DocumentImport])


def parse_chunks(rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, ChunkImport], dict[str, list[Fault]]]:
    """Chunks by the places of their rows, and what is wrong with the others."""
    return _parse(_CHUNKS, rows)


def parse_documents(rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, DocumentImport], dict[str, list[Fault]]]:
    """Documents by the places of their rows, and what is wrong with the others."""
    return _parse(_DOCUMENTS, rows)


def _parse(
    adapter: TypeAdapter[list[_Row]], rows: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, _Row], dict[str, list[Fault]]]:
    faults: defaultdict[str, list[Fault]] = defaultdict(list)
    try:
        return dict(zip(rows, adapter.validate_python(list(rows.values())), strict=True)), faults
    except ValidationError as error:
        places = list(rows)
        for item in error.errors(include_url=False, include_input=False):
            of_row = faults[places[int(item["loc"][0])]]
            if len(of_row) < _MOST_FAULTS_OF_A_ROW:
                of_row.append(fault_of({**item, "loc": item["loc"][1:]}))
    # Whole again without these, which takes a second pass only where there are some.
    fine = {at: row for at, row in rows.items() if at not in faults}
    return dict(zip(fine, adapter.validate_python(list(fine.values())), strict=True)), faults
