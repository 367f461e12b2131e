"""What an upload did."""

from __future__ import annotations

from dataclasses import dataclass

from vectordb_client._display import to_html
from vectordb_client.types.tables import record


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that was not stored: its number from 0, its id where it has one, and why, with a pointer
    into it."""

    row: int
    id: str | None
    detail: str
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did. `errors` are in the order of the rows."""

    rows: int
    created: int
    updated: int
    errors: tuple[RowError, ...]
    batches: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Stored rows by seconds."""
        return (self.created + self.updated) / self.seconds if self.seconds else 0.0

    def __repr__(self) -> str:
        first = f" (row {self.errors[0].row}: {self.errors[0].detail})" if self.errors else ""
        return (
            f"UploadReport(rows={self.rows}, created={self.created}, updated={self.updated}, "
            f"errors={len(self.errors)}{first}, seconds={self.seconds:.2f})"
        )

    def _repr_html_(self) -> str:
        return to_html(repr(self), [record(error) for error in self.errors])
