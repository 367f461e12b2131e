"""GET /metrics: what all processes count, and what the database and the disk say now, in Prometheus' format."""

import contextlib
import platform
import shutil
from collections.abc import Iterator

from django.conf import settings
from django.db import DatabaseError, connections
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from apps.access.authorization import authorize
from apps.libraries.dialects import SNAPSHOT_ALIAS, dialect_of, is_full, note_if_damaged
from apps.libraries.models import Library
from apps.telemetry import metrics, slots
from apps.telemetry.instruments import Histogram, Instrument, Series
from apps.transfer.jobs import count_running_jobs, time_of_last_backup


@csrf_exempt
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """All metrics, for who has the scope admin, or for all where VECTORDB_METRICS says so; 404 where none are kept."""
    if settings.METRICS == "off":
        raise Http404
    if settings.METRICS == "admin":
        authorize(request.principal, "admin", everywhere=True)  # type: ignore[attr-defined]
    # It takes a tenth of a second to import, which only a worker that is asked needs.
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    _look()
    registry = CollectorRegistry()
    registry.register(_Collector(slots.collect()))  # type: ignore[arg-type]
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)


class _Collector:
    """The metrics of `found`, as Prometheus' library takes them."""

    def __init__(self, found: dict[str, Series]) -> None:
        self._found = found

    def collect(self) -> Iterator[object]:
        for one in Instrument.by_name.values():
            yield _family(one, self._found.get(one.name, {}) if one.is_shared else one.series)


def _family(one: Instrument, series: Series) -> object:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if isinstance(one, Histogram):
        times = HistogramMetricFamily(one.name, one.meaning, labels=one.labels)
        for labels, values in series.items():
            count, buckets = 0.0, []
            for bound, more in zip((*map(str, one.bounds), "+Inf"), values, strict=False):
                count += more
                buckets.append((bound, count))
            times.add_metric(labels, buckets, values[-1])
        return times
    kind = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
    family = kind(one.name, one.meaning, labels=one.labels)
    # What has not happened yet has happened 0 times.
    for labels, values in (series or ({(): [0.0]} if one.kind == "counter" and not one.labels else {})).items():
        family.add_metric(labels, values[0])
    return family


def _look() -> None:
    """Set what is looked up now. None of it costs more where more is stored."""
    connection = connections[SNAPSHOT_ALIAS]
    metrics.INFO.set(1, settings.VERSION, connection.vendor, platform.python_version())
    metrics.MEMORY_BUDGET.set(settings.MEMORY_BUDGET)
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(settings.DATA_DIR)
        metrics.DISK_BYTES.set(disk.total)
        metrics.DISK_FREE_BYTES.set(disk.free)
    metrics.DISK_FULL.set(is_full())
    try:
        metrics.LIBRARIES.set(Library.objects.using(SNAPSHOT_ALIAS).count())
        metrics.JOBS_RUNNING.replace(count_running_jobs(using=SNAPSHOT_ALIAS))
        last = time_of_last_backup(using=SNAPSHOT_ALIAS)
        if last is not None:
            metrics.LAST_BACKUP.set(last.timestamp())
        size, wal = dialect_of(connection).sizes(connection)
        metrics.DATABASE_BYTES.set(size)
        if wal is not None:
            metrics.WAL_BYTES.set(wal)
        metrics.DATABASE_UP.set(1)
    except (DatabaseError, OSError) as error:
        note_if_damaged(error)
        metrics.DATABASE_UP.set(0)
