"""The kinds of value that a request may hold: ids, vectors, text, metadata, numbers with a limit.

Each is a pydantic type that refuses what it does not take with one sentence, and coerces nothing. A fault inside
metadata carries the `path` to it, which the API appends to the pointer.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

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

from apps.engine.vectors import Float32
from apps.libraries.ids import INVISIBLE, NEW_PATTERN, PATTERN, RULE, is_id, is_visible
from apps.libraries.models import ID_MAX_LENGTH, NAME_MAX_LENGTH

_LIMITS = settings.LIMITS

_SMALLEST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**64 - 1


class Input(BaseModel):
    """Base of all request bodies: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    # The name of the fields that hold vectors.
    vector_key: ClassVar[str] = "embedding"

    def is_set(self, field: str) -> bool:
        """Whether the request named `field`, be it with the default's value."""
        return field in self.model_fields_set


def validation_error(detail: str, path: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """The error of a value; `detail` completes the sentence that begins with the field."""
    return PydanticCustomError("invalid", "{detail}", {"detail": detail, "path": path})


def _not_null(value: Any) -> Any:
    if value is None:
        raise validation_error("must not be null; leave it out instead")
    return value


def _fixed(value: Any) -> Any:
    raise validation_error("cannot be changed; make another library and write the chunks to it")


# A vector as a request brings it: numbers, base64 of little-endian float32, or read already.
AnyVector: TypeAlias = list[float] | str | Float32

NotNull = BeforeValidator(_not_null)
# A field that is fixed for good when a library is made.
Fixed = SkipJsonSchema[Annotated[Any, BeforeValidator(_fixed)]]


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


@dataclass(frozen=True)
class BoundedList:
    """Annotates a list: of 1 to `maximum` items, the value of the setting `limit`."""

    maximum: int
    limit: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"minItems": 1, "maxItems": self.maximum}

    def _check(self, value: list[Any]) -> list[Any]:
        if not value:
            raise validation_error("must have at least one item")
        if len(value) > self.maximum:
            raise validation_error(f"must have at most {self.maximum} items, not {len(value)} (limit {self.limit})")
        return value


def _identifier(value: str) -> str:
    if not is_id(value):
        raise validation_error(RULE)
    return value


def _new_identifier(value: str) -> str:
    if not is_visible(_identifier(value)):
        raise validation_error(INVISIBLE)
    return value


def _id_schema(pattern: str) -> dict[str, JsonValue]:
    return {"minLength": 1, "maxLength": ID_MAX_LENGTH, "pattern": pattern}


# The id of something that is there.
Identifier = Annotated[str, AfterValidator(_identifier), Field(json_schema_extra=_id_schema(PATTERN))]
# The id of something to write.
NewIdentifier = Annotated[str, AfterValidator(_new_identifier), Field(json_schema_extra=_id_schema(NEW_PATTERN))]


def plain(value: str) -> str:
    """`value`, a text without NUL."""
    if "\0" in value:
        raise validation_error("must not contain the character NUL")
    return value


def _name(value: str) -> str:
    if not value.strip() or len(value) > NAME_MAX_LENGTH:
        raise validation_error(f"must have 1 to {NAME_MAX_LENGTH} characters and not be blank")
    return plain(value)


def _text(value: str) -> str:
    limit = _LIMITS.text_bytes
    # A character takes at most four bytes, so most texts need not be encoded to be measured.
    if len(value) * 4 > limit and len(value.encode()) > limit:
        raise validation_error(f"must have at most {limit} bytes of UTF-8 (limit VECTORDB_MAX_TEXT_BYTES)")
    return plain(value)


NO_NUL = r"^[^\x00]*$"
Name = Annotated[
    str,
    AfterValidator(_name),
    Field(json_schema_extra={"maxLength": NAME_MAX_LENGTH, "pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"}),
]
Text = Annotated[
    str, AfterValidator(_text), Field(json_schema_extra={"maxLength": _LIMITS.text_bytes, "pattern": NO_NUL})
]


def _long_text(value: str) -> str:
    limit = _LIMITS.split_bytes
    if len(value) * 4 > limit and len(value.encode()) > limit:
        raise validation_error(f"must have at most {limit} bytes of UTF-8 (limit VECTORDB_MAX_SPLIT_BYTES)")
    if not value.strip():
        raise validation_error("must not be blank")
    return plain(value)


# A text that is split before it is stored.
LongText = Annotated[
    str,
    AfterValidator(_long_text),
    Field(json_schema_extra={"maxLength": _LIMITS.split_bytes, "pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"}),
]


class _Fault(NamedTuple):
    path: tuple[str | int, ...]
    detail: str


def _metadata_faults(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[_Fault]:
    if isinstance(value, str):
        if "\0" in value:
            yield _Fault(path, "must not contain the character NUL")
    elif isinstance(value, int):
        if not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
            yield _Fault(path, "must be an integer of 64 bits; write a larger one as a string")
    elif isinstance(value, float):
        if value - value != 0:
            yield _Fault(path, "must be a finite number")
    elif isinstance(value, dict | list):
        if len(path) >= _LIMITS.metadata_depth:
            limit = _LIMITS.metadata_depth
            yield _Fault(path, f"must not nest deeper than {limit} (limit VECTORDB_MAX_METADATA_DEPTH)")
            return
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(key, str) and "\0" in key:
                yield _Fault(path, "must not have a key that contains the character NUL")
            yield from _metadata_faults(item, (*path, key))


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = b""
    # Most metadata is seen to be right from its text: no NUL, no infinity (written as null), and too few brackets to be
    # too deep. What is not is looked at value by value.
    brackets = text.count(b"{") + text.count(b"[")
    if not text or b"\\u0000" in text or b"null" in text or brackets > _LIMITS.metadata_depth:
        for fault in _metadata_faults(value):
            raise validation_error(fault.detail, path=fault.path)
    size, limit = len(text), _LIMITS.metadata_bytes
    if size > limit:
        raise validation_error(
            f"must have at most {limit} bytes of JSON, not {size} (limit VECTORDB_MAX_METADATA_BYTES)"
        )
    return value


Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]


class ReadVectors:
    """Vectors that were read before the body that holds them was parsed; in it, references stand for them.

    Given to pydantic as its context. A reference cannot be guessed, so none comes from a client.
    """

    _mark: ClassVar[str] = secrets.token_hex(8)

    def __init__(self, rows: list[Float32]) -> None:
        self._rows = rows
        self._taken = 0

    @classmethod
    def reference(cls, row: int) -> bytes:
        """The JSON string that stands for a row."""
        return b'"%b:%d"' % (cls._mark.encode(), row)

    def take(self, value: Any) -> Float32 | None:
        """The row that `value` refers to; None for what is no reference."""
        if not isinstance(value, str) or not value.startswith(self._mark):
            return None
        self._taken += 1
        return self._rows[int(value[len(self._mark) + 1 :])]

    def all_taken(self) -> bool:
        """Whether each row was a vector."""
        return self._taken == len(self._rows)


def _vector(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> AnyVector:
    if isinstance(info.context, ReadVectors) and (row := info.context.take(value)) is not None:
        return row
    try:
        vector: AnyVector = handler(value)
    except ValidationError:
        raise validation_error(
            "must be an array of finite numbers, or a base64 string of little-endian float32"
        ) from None
    return vector


Vector = Annotated[
    list[float] | str,
    WrapValidator(_vector),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": _LIMITS.dimension},
                {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"},
            ]
        }
    ),
]
