"""Columns of tables as fields of chunks: those with a field's name, those that are named for one, and others, which are
metadata."""

from collections.abc import Mapping, Sequence
from typing import Final

from apps.libraries.errors import Invalid
from apps.libraries.fields import validation_error

FIELDS: Final = (
    "id",
    "document_id",
    "position",
    "text",
    "embed_text",
    "metadata",
    "expires_at",
    "created_at",
    "embedding",
)
# What other programs call these, and what is not kept.
_NAMES: Final = {"vector": "embedding", "updated_at": ""}


def parse_columns(text: str) -> dict[str, str]:
    """The names of columns by field that a text such as `text=body,vector=emb` gives. Raises ValueError, as validators
    of fields do."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(field and column for field, _, column in pairs):
        raise validation_error("must be pairs such as text=body,vector=emb")
    return {field: column for field, _, column in pairs}


def fields_of(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The field of each column, by the column's name; of what is metadata `metadata.` and the key; empty for none.
    `given` has the names of columns by field. Raises Invalid for one that is not there."""
    for field, column in given.items():
        if _NAMES.get(field, field) not in FIELDS:
            raise Invalid(f"There is no field {field!r}. There are: {', '.join(FIELDS)}.")
        if column not in columns:
            raise Invalid(f"There is no column {column!r}. There are: {', '.join(columns)[:1000]}.")
    named = {column: _NAMES.get(field, field) for field, column in given.items()}
    taken = set(named.values())
    found = {}
    for column in columns:
        field = _NAMES.get(column, column)
        own = field if (field in FIELDS and field not in taken) or field == "" else f"metadata.{column}"
        found[column] = named.get(column, own)
    return found
