"""What metrics tell of the index files of all libraries, as maintenance knows them."""

from collections import Counter
from collections.abc import Collection

from django.conf import settings

from apps.indexing.state import MaintenanceState
from apps.telemetry import metrics
from apps.telemetry.instruments import Labels


def set_gauges(libraries: Collection[MaintenanceState]) -> None:
    """Set the gauges of rows, segments and bytes. With labels for libraries, those that are largest have them."""
    # Plain sums: there may be thousands of libraries, and this follows each round that did something.
    sealed = tail = dead = nbytes = 0
    segments: Counter[Labels] = Counter()
    for library in libraries:
        tail += library.unsealed
        nbytes += library.view_bytes
        for segment in library.segments:
            sealed += segment.live
            dead += segment.rows - segment.live
            segments[(segment.kind,)] += 1
    metrics.ROWS.replace({("sealed",): sealed, ("tail",): tail, ("dead",): dead})
    metrics.SEGMENTS.replace(segments)
    metrics.INDEX_BYTES.set(nbytes)
    if settings.METRICS_LIBRARIES:
        counts = {library.library.public_id: _count(library) for library in libraries}
        largest = sorted(counts, key=lambda one: counts[one].total(), reverse=True)[: settings.METRICS_LIBRARIES]
        metrics.LIBRARY_ROWS.replace({(one, *state): rows for one in largest for state, rows in counts[one].items()})


def _count(library: MaintenanceState) -> Counter[Labels]:
    """The library's rows by their state."""
    live = sum(segment.live for segment in library.segments)
    dead = sum(segment.rows for segment in library.segments) - live
    return Counter({("sealed",): live, ("tail",): library.unsealed, ("dead",): dead})
