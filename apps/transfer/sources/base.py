"""What the sources share: their interface, and what they say of a collection and its rows."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

from apps.engine.vectors import Float32
from apps.transfer.errors import TransferError

KEYS_AT_A_TIME: Final = 10_000


@dataclass(frozen=True)
class Fields:
    """Which fields or columns of a row are what; None for the source's own, or for none.

    `id`, `text` and `vector` name one each; `metadata` names one whose object is laid out among the others. `rows` is a
    file with the rows of a source that has vectors alone.
    """

    id: str | None = None
    text: str = "text"
    vector: str | None = None
    metadata: str | None = None
    rows: str | None = None


@dataclass(frozen=True)
class Collection:
    """A collection, table or index. `metric` is one of ours, None where the source does not tell; `dimension` is None
    where it has no vectors yet."""

    name: str
    count: int
    dimension: int | None
    metric: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row: its key as text, its vector [dimension], None for none, its text, and all else."""

    key: str
    vector: Float32 | None
    text: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """Rows in the source's order. `next` is JSON, from where the next page begins; None behind the last one."""

    rows: Sequence[Row]
    next: Any


class VectorSource(ABC):
    """A database to read from, opened. It is used by one thread at a time."""

    # What is said of its location, without secrets.
    place: str

    @classmethod
    @abstractmethod
    def open(cls, location: str, fields: Fields) -> Self:
        """Open what is at `location`. Raises TransferError, as all methods do, and what the vendor's package raises."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of its collections."""

    @abstractmethod
    def collection(self, name: str) -> Collection:
        """Return what is known of a collection."""

    @abstractmethod
    def page(self, name: str, after: Any, limit: int) -> Page:
        """Return at most `limit` rows behind `after`, the `next` of another page, None for the first."""

    @abstractmethod
    def keys(self, name: str) -> Iterator[Sequence[str]]:
        """Read the keys of all rows, from the first one on, without the rest of them; gives many at a time."""

    @abstractmethod
    def fetch(self, name: str, keys: Sequence[str]) -> list[Row]:
        """Return those of the rows that exist, in any order."""

    @abstractmethod
    def search(self, name: str, vectors: Float32, metric: str, k: int) -> list[list[str]]:
        """Return the keys of the `k` rows that the source finds nearest to each of `vectors` [m, dimension]."""

    def close(self) -> None:  # noqa: B027
        """Let go of it, where there is anything to let go of."""


def import_package(module: str, package: str) -> Any:
    """Import a vendor's module. Raises TransferError with the name of the package where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        detail = f"This needs the package {package} beside the server: pip install {package}."
        raise TransferError(f"{detail} requirements/migrate.txt has the versions that are tested. ({error})") from None


def split_record(record: Mapping[str, Any], fields: Fields) -> tuple[str | None, dict[str, Any]]:
    """Return the text of a record, None for none, and its metadata: what is neither id, text nor vector."""
    rest = {name: value for name, value in record.items() if name not in (fields.id, fields.vector)}
    text = rest.pop(fields.text) if isinstance(rest.get(fields.text), str) else None
    if fields.metadata and isinstance(rest.get(fields.metadata), Mapping):
        rest = {**rest.pop(fields.metadata), **rest}
    return text, rest


def choose(names: Sequence[str], wanted: str | None, what: str, option: str) -> str:
    """Return the name that is `wanted`, or the only one there is. Raises TransferError."""
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None or wanted not in names:
        there_are = f"there are: {', '.join(map(repr, names))}" if names else "there is none"
        is_missing = f"There is no {what} {wanted!r}" if wanted is not None else f"Name a {what} by {option}"
        raise TransferError(f"{is_missing}; {there_are}.")
    return wanted


def is_url(location: str) -> bool:
    """Whether a location is that of a server."""
    return location.startswith(("http://", "https://"))


def without_secrets(url: str) -> str:
    """Return a URL without user, password and query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
