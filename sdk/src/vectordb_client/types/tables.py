"""Pages of lists, and results that notebooks show as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from vectordb_client._display import shortened, to_html, to_pandas

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the cursor of the next page; None on the last one."""

    items: list[T]
    next_cursor: str | None


class Table(Sequence[T]):
    """A sequence of dataclasses that notebooks show as a table."""

    __slots__ = ()

    def _items(self) -> Sequence[T]:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items()[index]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[T]:
        return iter(self._items())

    def _records(self) -> list[dict[str, Any]]:
        return [record(item) for item in self]

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame with a row for each item; needs pandas."""
        return to_pandas(self._records())

    def _caption(self) -> str:
        return f"{len(self)} items"

    def _repr_html_(self) -> str:
        return to_html(self._caption(), self._records())


class Record:
    """A dataclass whose times, and what is long, are shown in short, without what is empty; in notebooks as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = [f"{name}={_text(value)}" for name, value in self._shown().items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        return to_html(type(self).__name__, [{"field": name, "value": value} for name, value in self._shown().items()])

    def _shown(self) -> dict[str, Any]:
        fields: Any = self
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(fields) if one.repr}
        return {name: value for name, value in values.items() if value not in (None, "", (), {})}


def _text(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else shortened(repr(value))


def record(item: Any) -> dict[str, Any]:
    names = (one.name for one in dataclasses.fields(item))
    return {name: getattr(item, name) for name in names if name != "etag"}


def short_repr(item: Any, names: tuple[str, ...]) -> str:
    """The id and what is there of `names`, long texts cut."""
    shown = [repr(item.id)]
    for name in names:
        value = getattr(item, name)
        if value is None or value == {}:
            continue
        text = f"{value:.4f}" if isinstance(value, float) else repr(value)
        shown.append(f"{name}={shortened(text)}")
    return f"{type(item).__name__}({', '.join(shown)})"
