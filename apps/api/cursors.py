"""Cursors of lists: where a page ends, as a text that clients send back as it is.

A cursor holds the place of a row and not the row, so it stays valid whatever is written meanwhile. One of a list that
is asked for by a body also tells which list it is of.
"""

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from apps.engine.metadata.ordering import OrderBy, OrderedRow
from apps.engine.metadata.paths import TIMES
from apps.engine.metadata.values import key_of, scalar_of
from apps.libraries.errors import Invalid
from apps.libraries.fields import validation_error
from apps.libraries.selectors import PageKey

_LONGEST_NUMBER = 18


def encode_cursor(key: PageKey) -> str:
    """The cursor of the page behind `key`."""
    return _encode(":".join(["after", *map(str, key)]).encode())


def parse_cursor(cursor: str) -> PageKey:
    """The key that a cursor holds; raises an error of validation for another text."""
    try:
        name, *key = _decode(cursor).decode("ascii").split(":")
    except ValueError:
        name, key = "", []
    if name != "after" or len(key) not in (1, 2) or not all(_is_number(one) for one in key):
        raise validation_error("is not a cursor of this server; send the next_cursor of the page before")
    return tuple(map(int, key))


class ListIdentity(NamedTuple):
    """What a list is of, and its order; a cursor of one list is none of another."""

    filter: Any
    document_id: str | None
    order: Sequence[OrderBy]

    @property
    def digest(self) -> str:
        """What tells lists apart."""
        return hashlib.blake2b(repr(self).encode(), digest_size=12).hexdigest()

    def encode_cursor(self, place: PageKey | OrderedRow) -> str:
        """The cursor of the page behind `place`, the key of a row or, with an order, the row."""
        values: list[str | None] = []
        if isinstance(place, OrderedRow):
            values = [None if value is None else base64.b64encode(value).decode() for value in place.values]
            place = (place.key,)
        return _encode(orjson.dumps([self.digest, values, list(map(str, place))]))

    def parse_cursor(self, cursor: str) -> tuple[list[bytes | None], PageKey]:
        """The values and the key that a cursor of this list holds. Raises Invalid."""
        try:
            digest, values, place = orjson.loads(_decode(cursor))
            keys = [None if value is None else base64.b64decode(value, validate=True) for value in values]
            key = tuple(int(number) for number in place if _is_number(number))
        except (ValueError, TypeError, AttributeError):
            digest, keys, key = "", [], ()
        if digest != self.digest:
            raise Invalid.at(
                "/cursor",
                "is not of this list: send the next_cursor of the page before, all else as it was",
            )
        is_fine = len(keys) == len(self.order) and len(key) == (2 if self.document_id and not self.order else 1)
        if not is_fine or not all(map(_may_order, self.order, keys)):
            raise Invalid.at("/cursor", "was changed; send the next_cursor of the page before as it is")
        return keys, key


def _may_order(by: OrderBy, key: bytes | None) -> bool:
    """Whether `key` may be that of a value of the field."""
    if by.field not in TIMES or key is None:
        return True
    try:
        number = scalar_of(key)
        return type(number) is int and abs(number) < 2**62 and key == key_of(number)
    except (KeyError, ValueError, OverflowError, struct.error):
        return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(cursor: str) -> bytes:
    """The content of a cursor; raises ValueError for what is no base64."""
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except binascii.Error as error:
        raise ValueError from error
