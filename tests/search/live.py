"""The live rows of a view."""

from apps.engine.storage.segment import merged_rows
from apps.engine.storage.view import View
from apps.engine.vectors import Float32, Int64


def live_rows(view: View) -> tuple[Int64, Float32]:
    """Keys and vectors of all live rows, in ascending order of the keys."""
    merged = merged_rows(view.parts(), view.dimension)
    return merged.keys, merged.vectors
