"""Tables for notebooks and pandas, from sequences of dataclasses."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_ROWS, _SHOWN_CHARACTERS = 50, 160

Records = Sequence[Mapping[str, Any]]


def to_html(caption: str, records: Records) -> str:
    """A table of the first 50 records, cells cut at 160 characters, everything escaped."""
    shown = records[:_SHOWN_ROWS]
    columns = _columns(shown)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(record.get(name)))}</td>" for name in columns) + "</tr>"
        for record in shown
    )
    more = f", the first {len(shown)} shown" if len(records) > len(shown) else ""
    return (
        f"<table><caption>{html.escape(caption)}{more}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def to_pandas(records: Records, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """The records as a DataFrame; raise ImportError where pandas is not installed."""
    import pandas as pd

    return pd.DataFrame(list(records), columns=list(columns) if columns is not None else None)


def shortened(text: str, characters: int = 60) -> str:
    """The text, cut where it is longer, for a repr."""
    return text if len(text) <= characters else f"{text[: characters - 3]}..."


def _columns(records: Records) -> list[str]:
    """Names in order of appearance, without those that no record has a value for."""
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if any(record.get(name) is not None for record in records)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return shortened(str(value), _SHOWN_CHARACTERS)
