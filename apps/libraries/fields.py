"""The types of a request's fields: each refuses a value with one sentence, and coerces nothing.

An error inside metadata carries the `path` to it, which the API appends to the pointer.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import orjson
from django.conf import settings
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, ValidationError, core_schema

from apps.engine.errors import InvalidFilter
from apps.engine.metadata.operands import parse_time
from apps.engine.metadata.paths import DOCUMENT, field_name
from apps.engine.vectors import Float32
from apps.libraries.ids import (
    INVISIBLE,
    LIBRARY_PATTERN,
    LIBRARY_RULE,
    NEW_LIBRARY_PATTERN,
    NEW_PATTERN,
    PATTERN,
    RULE,
    is_id,
    is_library_id,
    is_visible,
)
from apps.libraries.models import ID_MAX_LENGTH, NAME_MAX_LENGTH

_LIMITS = settings.LIMITS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Path: TypeAlias = tuple[str | int, ...]


class Input(BaseModel):
    """Base of all request bodies: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    # The name of the fields that hold vectors.
    vector_key: ClassVar[str] = "embedding"

    def is_set(self, field: str) -> bool:
        """Whether the request named `field`, even with the default's value."""
        return field in self.__pydantic_fields_set__


def validation_error(detail: str, path: _Path = ()) -> PydanticCustomError:
    """The error of a value; `detail` completes the sentence that begins with the field."""
    return PydanticCustomError("invalid", "{detail}", {"detail": detail, "path": path})


def _refuse_change(value: Any) -> Any:
    raise validation_error("cannot be changed; make another library and write the chunks to it")


# A field that is fixed for good when a library is created.
Fixed = SkipJsonSchema[Annotated[Any, BeforeValidator(_refuse_change)]]

# A vector as a request brings it: numbers, base64 of little-endian float32, or read already.
AnyVector: TypeAlias = list[float] | str | Float32


@dataclass(frozen=True)
class NotNull:
    """Annotates an optional field that may be left out, but not be null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        value_schema: JsonSchemaValue = handler(schema)["anyOf"][0]
        return value_schema

    @staticmethod
    def _check(value: Any) -> Any:
        if value is None:
            raise validation_error("must not be null; leave it out instead")
        return value


@dataclass(frozen=True)
class BoundedInt:
    """Annotates an integer: from `minimum` to `maximum`, the value of the setting `limit`."""

    minimum: int
    maximum: int
    limit: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"minimum": self.minimum, "maximum": self.maximum}

    def _check(self, value: int) -> int:
        if not self.minimum <= value <= self.maximum:
            raise validation_error(f"must be an integer from {self.minimum} to {self.maximum} (limit {self.limit})")
        return value


def bounded_list(maximum: int) -> Any:
    """Annotates a list: of 1 to `maximum` items. Validation stops at the first item past `maximum`."""
    return Field(min_length=1, max_length=maximum)


def _check_id(value: str) -> str:
    if not is_id(value):
        raise validation_error(RULE)
    return value


def _check_library_id(value: str) -> str:
    if not is_library_id(value):
        raise validation_error(LIBRARY_RULE)
    return value


def _check_new_id(value: str) -> str:
    return _check_visible(_check_id(value))


def _check_visible(value: str) -> str:
    if not is_visible(value):
        raise validation_error(INVISIBLE)
    return value


def _id_schema(pattern: str) -> dict[str, JsonValue]:
    return {"minLength": 1, "maxLength": ID_MAX_LENGTH, "pattern": pattern}


# The id of a document or a chunk that exists, and of one to write; then the same for libraries.
Identifier = Annotated[str, AfterValidator(_check_id), Field(json_schema_extra=_id_schema(PATTERN))]
NewIdentifier = Annotated[str, AfterValidator(_check_new_id), Field(json_schema_extra=_id_schema(NEW_PATTERN))]
LibraryIdentifier = Annotated[
    str, AfterValidator(_check_library_id), Field(json_schema_extra=_id_schema(LIBRARY_PATTERN))
]
NewLibraryIdentifier = Annotated[
    str,
    AfterValidator(_check_library_id),
    AfterValidator(_check_visible),
    Field(json_schema_extra=_id_schema(NEW_LIBRARY_PATTERN)),
]


def _check_no_nul(value: str, path: _Path = ()) -> str:
    if "\0" in value:
        raise validation_error("must not contain the character NUL", path)
    return value


def _check_name(value: str) -> str:
    if not value.strip() or len(value) > NAME_MAX_LENGTH:
        raise validation_error(f"must have 1 to {NAME_MAX_LENGTH} characters and not be blank")
    return _check_no_nul(value)


def _check_text(value: str, max_bytes: int = _LIMITS.text_bytes, limit: str = "VECTORDB_MAX_TEXT_BYTES") -> str:
    # A character takes at most four bytes, so most texts need not be encoded to be measured.
    if len(value) * 4 > max_bytes and len(value.encode()) > max_bytes:
        raise validation_error(f"must have at most {max_bytes} bytes of UTF-8 (limit {limit})")
    return _check_no_nul(value)


def _check_embed_text(value: str) -> str:
    if not value.strip():
        raise validation_error("must not be blank; null stands for the text itself")
    return _check_text(value)


def _check_long_text(value: str) -> str:
    if not value.strip():
        raise validation_error("must not be blank")
    return _check_text(value, _LIMITS.split_bytes, "VECTORDB_MAX_SPLIT_BYTES")


_NO_NUL: dict[str, JsonValue] = {"pattern": r"^[^\x00]*$"}
_NOT_BLANK: dict[str, JsonValue] = {"pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"}
# A text without the character NUL, which PostgreSQL does not store.
PlainText = Annotated[str, AfterValidator(_check_no_nul), Field(json_schema_extra=_NO_NUL)]
Name = Annotated[
    str, AfterValidator(_check_name), Field(json_schema_extra={"maxLength": NAME_MAX_LENGTH, **_NOT_BLANK})
]
Text = Annotated[
    str, AfterValidator(_check_text), Field(json_schema_extra={"maxLength": _LIMITS.text_bytes, **_NO_NUL})
]
# A text that an embedding model is given.
EmbedText = Annotated[
    str, AfterValidator(_check_embed_text), Field(json_schema_extra={"maxLength": _LIMITS.text_bytes, **_NOT_BLANK})
]
# A text that is split before it is stored.
LongText = Annotated[
    str, AfterValidator(_check_long_text), Field(json_schema_extra={"maxLength": _LIMITS.split_bytes, **_NOT_BLANK})
]


def _check_json(value: Any, path: _Path = ()) -> None:
    """Raise the error of the first value inside metadata that cannot be stored."""
    if isinstance(value, str):
        _check_no_nul(value, path)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise validation_error("must be an integer of 64 bits; write a larger one as a string", path)
    elif isinstance(value, float):
        if value - value != 0:
            raise validation_error("must be a finite number", path)
    elif isinstance(value, dict | list):
        if len(path) >= _LIMITS.metadata_depth:
            limit = f"{_LIMITS.metadata_depth} (limit VECTORDB_MAX_METADATA_DEPTH)"
            raise validation_error(f"must not nest deeper than {limit}", path)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str) and "\0" in key:
                raise validation_error("must not have a key that contains the character NUL", path)
            _check_json(item, (*path, key))


def check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a chunk, document or library. Raises PydanticCustomError where it cannot be stored."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = b""
    # The text of most metadata proves it right: no NUL, no infinity (written as null), and too few brackets to be too
    # deep. Only other metadata is checked value by value.
    brackets = text.count(b"{") + text.count(b"[")
    if not text or b"\\u0000" in text or b"null" in text or brackets > _LIMITS.metadata_depth:
        _check_json(value)
    size, limit = len(text), _LIMITS.metadata_bytes
    if size > limit:
        detail = f"must have at most {limit} bytes of JSON, not {size} (limit VECTORDB_MAX_METADATA_BYTES)"
        raise validation_error(detail)
    return value


Metadata = Annotated[dict[str, Any], AfterValidator(check_metadata)]


def check_time(value: Any, otherwise: str = "") -> datetime:
    """Return the time that an RFC 3339 text names. Raises PydanticCustomError, which names what else there may be."""
    try:
        return _EPOCH + timedelta(microseconds=parse_time(value))
    except InvalidFilter as error:
        raise validation_error(f"{error.reason}{otherwise}") from None
    except OverflowError:
        raise validation_error(f"must be within the years 1 to 9999, UTC{otherwise}") from None


def _check_expiry(value: Any) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    return check_time(value, ", or null for never")


# When something expires; None for never.
Expiry = Annotated[
    datetime | None,
    BeforeValidator(_check_expiry),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
    Field(
        description="From then on it is in no answer, as if it were deleted: RFC 3339 with offset; null for never.",
    ),
]

# Paths that one library leaves out of its index.
MAX_UNINDEXED = 50


def _check_metadata_path(value: str) -> str:
    """The name of the field at a path of metadata, of a chunk or its document."""
    try:
        name = field_name(_check_no_nul(value))
    except ValueError as error:
        raise validation_error(f"is no path: {error}") from None
    if name.startswith(("$", "@")) and not name.startswith(DOCUMENT):
        raise validation_error(
            "must be the path of a field of metadata, such as body or author.notes, or @document. and such a path; "
            "a backslash makes @ and $ literal"
        )
    return name


MetadataPath = Annotated[str, Field(max_length=1000, json_schema_extra=_NO_NUL), AfterValidator(_check_metadata_path)]


def check_distinct_paths(paths: list[str]) -> list[str]:
    """Refuse a path that comes twice."""
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise validation_error("names a field that is named before", path=(i,))
    return paths


class LargeBody:
    """What is known of a large body while it is validated; pydantic's context.

    Its vectors were read before the body was parsed, which holds references in their place. A reference cannot be
    guessed, so none comes from a client.
    """

    _mark: ClassVar[str] = secrets.token_hex(8)

    def __init__(self, vectors: Sequence[Float32]) -> None:
        self._vectors = {f"{self._mark}:{number}": vector for number, vector in enumerate(vectors)}
        self._chunks = 0
        self._taken: set[str] = set()

    @property
    def references(self) -> list[bytes]:
        """The JSON strings that stand for the vectors."""
        return [b'"%b"' % reference.encode() for reference in self._vectors]

    @property
    def taken(self) -> list[bool]:
        """Which of the vectors a reference was found to."""
        return [reference in self._taken for reference in self._vectors]

    def take(self, value: Any) -> Float32 | None:
        """The vector that `value` refers to; None if it is no reference."""
        vector = self._vectors.get(value) if isinstance(value, str) else None
        if vector is not None:
            self._taken.add(value)
        return vector

    def add_chunk(self) -> int:
        """Count a chunk; return how many there were so far."""
        self._chunks += 1
        return self._chunks


def _take_vector(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> AnyVector:
    if isinstance(info.context, LargeBody) and (taken := info.context.take(value)) is not None:
        return taken
    if isinstance(value, np.ndarray):
        return value
    try:
        vector: AnyVector = handler(value)
    except ValidationError:
        raise validation_error(
            "must be an array of finite numbers, or a base64 string of little-endian float32"
        ) from None
    return vector


def _take_optional(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> AnyVector | None:
    return None if value is None else _take_vector(value, handler, info)


_VECTOR_SCHEMAS: list[JsonValue] = [
    {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": _LIMITS.dimension},
    {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"},
]
Vector = Annotated[list[float] | str, WrapValidator(_take_vector), WithJsonSchema({"anyOf": _VECTOR_SCHEMAS})]
# The vector of a chunk; None for a chunk that is to have none.
OptionalVector = Annotated[
    list[float] | str | None,
    WrapValidator(_take_optional),
    WithJsonSchema({"anyOf": [*_VECTOR_SCHEMAS, {"type": "null"}]}),
]
