"""Collections of another vector database, migrated into libraries: planned, and read page by page into an import that
goes on where it was cut off."""

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from django.utils.module_loading import import_string

from apps.engine.metrics import Metric
from apps.libraries.errors import NotFound
from apps.libraries.ids import LIBRARY_RULE, is_library_id, is_visible
from apps.libraries.imported import Mode
from apps.libraries.models import Chunk
from apps.libraries.selectors import library_row
from apps.transfer.command_jobs import find_command_job, running_command
from apps.transfer.errors import TransferError
from apps.transfer.importing import Report, import_source, open_library
from apps.transfer.job_context import JobContext
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
    return find_command_job(KIND, plan.library_id, plan.params)


def running_migration(plan: Plan, *, restart: bool = False) -> AbstractContextManager[JobContext]:
    """The job of a migration in the block, as `running_command` gives it."""
    return running_command(KIND, plan.library_id, plan.params, total=plan.collection.count, restart=restart)


@dataclass(frozen=True)
class Migrated:
    """What became of a collection: how many rows were `read`, the report on them, the keys of some that are stored, and
    how many chunks that do not expire the library had `before`."""

    read: int = 0
    report: Report = field(default_factory=Report)
    sample: Sequence[str] = ()
    before: int = 0

    @classmethod
    def of(cls, progress: Mapping[str, Any]) -> Self:
        """What the progress of a job says."""
        report = Report.of(progress.get("report", {}))
        return cls(progress.get("done", 0), report, progress.get("sample", []), progress.get("before", 0))


def migrate(
    plan: Plan,
    job: JobContext,
    *,
    mode: Mode = "upsert",
    sample: int = 100,
    show: Callable[[int], None] = lambda _: None,
) -> Migrated:
    """Read what is left of a collection into its library; return what became of all rows, with a sample of at most
    `sample`. `show` is told how many rows have been read after each batch.

    Raises TransferError, JobCancelled, and as `open_library` and `import_source` do.
    """
    job.bind(open_library(plan.library_id, plan.library, create=True))
    so_far = Migrated.of(job.progress)
    if job.progress.get("is_read"):
        return so_far
    if not job.progress:
        so_far = replace(so_far, before=count_lasting_chunks(plan.library_id))
    pages = _Pages(plan, job.progress.get("next"), so_far.read)

    def save(report: Report, batch: Batch, refused: Container[str]) -> None:
        nonlocal so_far
        stored = (key for place, key in pages.keys.items() if place not in refused)
        keys = smallest([*so_far.sample, *stored], sample)
        after = {"next": batch.next, "done": batch.done, "is_read": batch.next is None, "before": so_far.before}
        job.advance(batch.done, plan.collection.count, after | {"report": report.data(), "sample": keys})
        so_far = Migrated(batch.done, report, keys, so_far.before)

    source, report = Source(plan.library, iter(pages)), so_far.report
    for _, batch in import_source(library_id=plan.library_id, source=source, mode=mode, report=report, save=save):
        show(batch.done)
    return so_far


def count_lasting_chunks(library_id: str) -> int:
    """The number of a library's chunks that do not expire, as none does that is migrated."""
    return Chunk.objects.filter(library=library_row(library_id), expires_at=None).count()


class _Pages:
    """Batches of a collection's rows behind `after`, the next one read while one is stored; `done` rows are before
    them."""

    def __init__(self, plan: Plan, after: Any, done: int) -> None:
        self._plan, self._after, self._done = plan, after, done
        # Of the last batch, by the rows' places.
        self.keys: dict[str, str] = {}

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
                self.keys = {f"row {first + i + 1} ({row.key})": row.key for i, row in enumerate(page.rows)}
                chunks = {place: chunk_of(row) for place, row in zip(self.keys, page.rows, strict=True)}
                yield Batch(chunks=chunks, next=page.next, done=self._done)
                if page.next is None:
                    return
