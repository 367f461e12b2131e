"""What metrics tell of the index files of all libraries, as maintenance knows them."""

from collections import Counter
from collections.abc import Collection

from django.conf import settings

from apps.indexing.state import MaintenanceState
from apps.telemetry import metrics
from apps.telemetry.instruments import Labels

_STATES = ("sealed", "tail", "dead")


def set_gauges(libraries: Collection[MaintenanceState]) -> None:
    """Set the gauges of rows, segments and bytes. With labels for libraries, those that are largest have them."""
    rows: Counter[Labels] = Counter({(state,): 0 for state in _STATES})
    segments: Counter[Labels] = Counter()
    counts = {library.library.public_id: _count(library) for library in libraries}
    for found in counts.values():
        rows.update(found)
    for library in libraries:
        segments.update((segment.kind,) for segment in library.segments)
    metrics.ROWS.replace(rows)
    metrics.SEGMENTS.replace(segments)
    metrics.INDEX_BYTES.set(sum(library.view_bytes for library in libraries))
    largest = sorted(counts, key=lambda one: counts[one].total(), reverse=True)[: settings.METRICS_LIBRARIES]
    metrics.LIBRARY_ROWS.replace({(one, *state): rows for one in largest for state, rows in counts[one].items()})


def _count(library: MaintenanceState) -> Counter[Labels]:
    """The library's rows by their state."""
    live = sum(segment.live for segment in library.segments)
    dead = sum(segment.rows for segment in library.segments) - live
    return Counter({("sealed",): live, ("tail",): library.unsealed, ("dead",): dead})
