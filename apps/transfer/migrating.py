"""Collections of another vector database, migrated into libraries: planned, and read page by page into an import that
goes on where it was cut off."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from django.utils.module_loading import import_string

from apps.engine.metrics import Metric
from apps.libraries.errors import NotFound
from apps.libraries.ids import LIBRARY_RULE, is_library_id, is_visible
from apps.libraries.imported import Mode
from apps.libraries.selectors import library_row
from apps.transfer.command_jobs import sole_runner
from apps.transfer.errors import TransferError
from apps.transfer.importing import Report, import_source, open_library
from apps.transfer.job_context import JobContext
from apps.transfer.jobs import create_job, end_job
from apps.transfer.models import Job
from apps.transfer.rows import BYTES_PER_BATCH, ROWS_PER_BATCH, Batch, LibraryData, Source
from apps.transfer.sources import SOURCES
from apps.transfer.sources.base import Collection, Fields, VectorSource
from apps.transfer.sources.chunks import chunk_of
from apps.transfer.sources.sampling import smallest

# No kind of `JOB_KINDS`: the command runs it, since only that can reach the source.
KIND: Final = "migrate"
# What a row has besides its vector, at a guess.
_BYTES_PER_ROW = 1000


@contextlib.contextmanager
def source_errors(place: str) -> Iterator[None]:
    """Turn what a vendor's package raises into a TransferError."""
    try:
        yield
    except TransferError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TransferError(f"{place} cannot be read: {reason}") from error


def open_source(kind: str, location: str, fields: Fields) -> VectorSource:
    """Open a source of `SOURCES`. Raises TransferError."""
    with source_errors(f"The source {kind}"):
        found: VectorSource = import_string(SOURCES[kind]).open(location, fields)
        return found


@dataclass(frozen=True)
class Plan:
    """What is to become of a collection: the library that it goes to, its own fields, and whether that is there."""

    source: VectorSource
    collection: Collection
    library_id: str
    library: LibraryData
    exists: bool
    # What the job is told apart by.
    params: dict[str, Any]

    @property
    def rows_per_page(self) -> int:
        """As many as one transaction should take."""
        row = 4 * (self.collection.dimension or 1) + _BYTES_PER_ROW
        return max(1, min(ROWS_PER_BATCH, BYTES_PER_BATCH // row))


def plan(
    source: VectorSource,
    kind: str,
    name: str,
    *,
    fields: Fields,
    library_id: str | None = None,
    metric: str | None = None,
) -> Plan:
    """Plan the migration of a collection. Raises TransferError where it cannot be migrated."""
    with source_errors(source.place):
        collection = source.collection(name)
    metric = metric or collection.metric
    if metric is None:
        metrics = ", ".join(one.value for one in Metric)
        raise TransferError(f"{name!r} is compared in a way that is not known here. Say how by --metric: {metrics}.")
    library_id = library_id or name
    if not (is_library_id(library_id) and is_visible(library_id)):
        raise TransferError(f"{library_id!r} is no id of a library, which {LIBRARY_RULE}. Name one by --library.")
    library: LibraryData = {"name": name, "dimension": collection.dimension, "metric": metric}
    if collection.metadata:
        library["metadata"] = dict(collection.metadata)
    params = {"source": kind, "place": source.place, "collection": name} | {
        field: value for field, value in vars(fields).items() if value is not None
    }
    try:
        library_row(library_id)
        exists = True
    except NotFound:
        exists = False
    return Plan(source, collection, library_id, library, exists, params)


def find_job(plan: Plan) -> Job | None:
    """Return the job of the same migration that has not ended, if there is one."""
    jobs = Job.objects.filter(kind=KIND, library=plan.library_id, state=Job.State.RUNNING)
    return next((job for job in jobs.order_by("-pk") if job.params == plan.params), None)


@contextlib.contextmanager
def running_job(plan: Plan, *, restart: bool = False) -> Iterator[Job]:
    """The job of a migration, made where there is none to go on with, or with `restart`; nobody else runs it in the
    block. Raises TransferError where somebody does."""
    job = find_job(plan)
    if job is not None and restart:
        end_job(job, Job.State.CANCELLED)
        job = None
    if job is None:
        job = create_job(kind=KIND, library=plan.library_id, params=plan.params, total=plan.collection.count)
    with sole_runner(job):
        yield job


def migrate(
    plan: Plan, job: Job, *, mode: Mode = "upsert", sample: int = 100, show: Callable[[int], None] = lambda _: None
) -> tuple[Report, list[str]]:
    """Read what is left of a collection into its library; return what became of all rows, and the keys of some of them,
    at most `sample`. `show` is told how many rows have been read after each batch.

    Raises TransferError, JobCancelled, and as `open_library` and `import_source` do.
    """
    open_library(plan.library_id, plan.library, create=True)
    context = JobContext(job)
    progress = context.progress
    report = Report.of(progress.get("report", {}))
    keys: list[str] = progress.get("sample", [])
    done = progress.get("done", 0)
    if progress.get("is_read"):
        return report, keys
    pages = _Pages(plan, progress.get("next"), done, keys, sample)

    def save(report: Report, batch: Batch) -> None:
        after = {"next": batch.next, "done": batch.done, "is_read": batch.next is None}
        context.advance(
            batch.done, plan.collection.count, after | {"report": report.data(), "sample": pages.samples[batch.done]}
        )

    source = Source(plan.library, iter(pages))
    written = import_source(library_id=plan.library_id, source=source, mode=mode, report=report, save=save)
    for so_far, batch in written:
        report, keys = so_far, pages.samples.pop(batch.done)
        show(batch.done)
    return report, keys


class _Pages:
    """Batches of a collection's rows behind `after`, the next one read while one is stored; `done` rows are before
    them, of which `keys` are a sample."""

    def __init__(self, plan: Plan, after: Any, done: int, keys: list[str], sample: int) -> None:
        self._plan, self._after, self._done, self._keys, self._sample = plan, after, done, keys, sample
        # The sample of all rows so far, by their number.
        self.samples: dict[int, list[str]] = {}

    def __iter__(self) -> Iterator[Batch]:
        source, name, limit = self._plan.source, self._plan.collection.name, self._plan.rows_per_page
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(source.page, name, self._after, limit)
            while True:
                with source_errors(source.place):
                    page = reading.result()
                if page.next is not None:
                    reading = pool.submit(source.page, name, page.next, limit)
                first, self._done = self._done, self._done + len(page.rows)
                self._keys = smallest([*self._keys, *(row.key for row in page.rows)], self._sample)
                self.samples[self._done] = self._keys
                chunks = {f"row {first + i + 1} ({row.key})": chunk_of(row) for i, row in enumerate(page.rows)}
                yield Batch(chunks=chunks, next=page.next, done=self._done)
                if page.next is None:
                    return
