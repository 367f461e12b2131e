"""Uploads: any number of rows, in batches that are sent at the same time.

    Plan       cuts rows into batches, by number and by bytes, and writes one, as steps
    Tally      adds up what batches did
    run        threads send the batches that the calling thread makes
    run_async  tasks send them

No more than `parallel` batches wait or are under way, so a source of any length takes little memory. Each row has its
id before its batch is sent, and each batch one Idempotency-Key for all attempts: what is sent twice is stored once.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._core import Session, Steps, build_request
from vectordb_client._rows import Columns, Rows, Source, read_rows, write_body
from vectordb_client._runners import AsyncRunner, Runner
from vectordb_client.errors import APIError, Fault, InvalidArgument, UploadFailed, VectorDBError
from vectordb_client.types import RowError, UploadReport, WriteResult

# Of a batch whose size is "auto". Texts that the server embeds take it longer.
_ROWS, _ROWS_TO_EMBED, _BYTES = 2000, 500, 8 << 20
# A server that is started again is waited for.
_ATTEMPTS = 12


@dataclass(slots=True)
class Batch:
    """Rows with their numbers [n]; `refused` are those that could not be made into chunks."""

    rows: Rows = field(default_factory=Rows)
    numbers: list[int] = field(default_factory=list)
    refused: list[RowError] = field(default_factory=list)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch."""

    batch: Batch
    created: int
    updated: int
    errors: list[RowError]


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows are uploaded."""

    session: Session
    library_id: str
    source: Source
    mode: str
    options: Mapping[str, Any]
    batch_rows: int | None
    collects: bool
    parallel: int

    def batches(self) -> Iterator[Batch]:
        """The rows in batches. What iterating over them raises is raised."""
        cutter = _Cutter(self)
        for group in self.source.groups:
            yield from cutter.add(group)
        yield cutter.batch

    async def async_batches(self, rows: AsyncIterable[Any] | None) -> AsyncIterator[Batch]:
        """The same of rows that are awaited; without them, of those of the plan."""
        if rows is None:
            for full in self.batches():
                yield full
            return
        cutter = _Cutter(self)
        async for given in rows:
            for full in cutter.add((given,)):
                yield full
        yield cutter.batch

    def write(self, batch: Batch) -> Steps[Stored]:
        """Write a batch. Where rows are collected, one that the server refuses is halved until the rows that it refuses
        are alone; where only some chunks are refused, the server says which."""
        created = updated = 0
        errors = list(batch.refused)
        parts = [(0, len(batch.rows))] if batch.rows else []
        while parts:
            first, last = parts.pop()
            try:
                result = yield from self._write(batch.rows.part(first, last))
            except APIError as error:
                if not self.collects or error.status not in (400, 413):
                    raise
                if last - first > 1:
                    middle = (first + last) // 2
                    parts += [(middle, last), (first, middle)]
                    continue
                fault = next(iter(error.errors), None)
                errors.append(_row_error(batch, first, str(error) if fault is None else fault))
                continue
            created += result.created
            updated += result.updated
            errors += [_row_error(batch, first + one.index, one.errors[0]) for one in result.skipped]
        return Stored(batch, created, updated, errors)

    def _write(self, rows: Rows) -> Steps[WriteResult]:
        body = write_body(rows, mode=self.mode, **self.options)
        request = build_request(routes.write_chunks, self.library_id, body=body)
        retry = replace(self.session.retry, attempts=max(self.session.retry.attempts, _ATTEMPTS))
        try:
            answer = yield from self.session.call(request, retry)
        except APIError as error:
            if error.code != "idempotency_answer_lost":
                raise
            # It was written, and nobody knows what of it was new.
            return WriteResult(tuple(map(str, rows.ids)), 0, len(rows))
        return types.parse_written(answer.json())


class _Cutter:
    """Cuts rows into batches; `batch` is the one that is not full yet."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._number = plan, 0
        self.batch = Batch()

    def add(self, given: Sequence[Any]) -> Iterator[Batch]:
        """Add rows; yield the batches that are full."""
        plan = self._plan
        try:
            rows = plan.source.encode(given)
        except InvalidArgument as error:
            if len(given) > 1:
                # Which of them it is.
                for one in given:
                    yield from self.add((one,))
                return
            if not plan.collects:
                raise InvalidArgument(f"row {self._number}: {error}") from error
            row_id = given[0].get("id") if isinstance(given[0], Mapping) else getattr(given[0], "id", None)
            known = row_id if isinstance(row_id, str) else None
            self.batch.refused.append(RowError(self._number, known, str(error)))
            self._number += 1
            return
        yield from self._add(rows)

    def _add(self, rows: Rows) -> Iterator[Batch]:
        batch, count, size = self.batch, len(rows), rows.bytes
        most = self._plan.batch_rows or (_ROWS if all(rows.have_vectors) else _ROWS_TO_EMBED)
        if len(batch.rows) + count > most or batch.bytes + size > _BYTES:
            if count > 1:
                # Some of them may still fit.
                yield from self._add(rows.part(0, count // 2))
                yield from self._add(rows.part(count // 2, count))
                return
            if batch.rows:
                yield batch
                batch = self.batch = Batch()
        batch.rows.extend(rows)
        batch.numbers += range(self._number, self._number + count)
        batch.bytes += size
        self._number += count


def _row_error(batch: Batch, place: int, fault: Fault | str) -> RowError:
    """The error of a row, whose place in the request is no matter to whoever sent rows."""
    number, row_id = batch.numbers[place], batch.rows.ids[place]
    if isinstance(fault, str):
        return RowError(number, row_id, fault)
    pointer = re.sub(r"^/chunks/\d+", "", fault.pointer)
    return RowError(number, row_id, f"{pointer.removeprefix('/')} {fault.detail}".lstrip(), pointer)


class Tally:
    """The sum of what batches did."""

    def __init__(self, plan: Plan, progress: bool | Callable[[int], None]) -> None:
        self._progress, self._total = progress, plan.source.total
        self._began, self._shown = time.monotonic(), 0.0
        self.rows = self.created = self.updated = self.batches = 0
        self._errors: list[RowError] = []

    def add(self, stored: Stored) -> None:
        """Count a batch that was written."""
        self.rows += len(stored.batch.rows) + len(stored.batch.refused)
        self.created += stored.created
        self.updated += stored.updated
        self.batches += bool(stored.batch.rows)
        self._errors += stored.errors
        if callable(self._progress):
            self._progress(self.rows)
        elif self._progress and time.monotonic() - self._shown > 0.2:
            self._show("\r")

    def _show(self, end: str) -> None:
        self._shown = time.monotonic()
        of = "" if self._total is None else f" of {self._total:,}"
        rate = self.rows / max(self._shown - self._began, 1e-9)
        line = f"{self.rows:,}{of} rows, {rate:,.0f} rows/s, {len(self._errors)} errors"
        # A longer one before it is covered.
        sys.stderr.write(f"{line:<79}{end}")
        sys.stderr.flush()

    def report(self) -> UploadReport:
        """What was done so far."""
        if self._progress is True:
            self._show("\n")
        seconds = time.monotonic() - self._began
        errors = tuple(sorted(self._errors, key=lambda error: error.row))
        return UploadReport(self.rows, self.created, self.updated, errors, self.batches, seconds)

    def explains(self, error: BaseException) -> TypeGuard[VectorDBError]:
        """Whether a report is to say what was done before `error`: not where nothing was sent for its sake."""
        return isinstance(error, VectorDBError) and (self.batches > 0 or not isinstance(error, InvalidArgument))

    def failed(self, error: VectorDBError) -> UploadFailed:
        """The error of an upload that ends before all rows were sent."""
        report = self.report()
        failed = UploadFailed(
            f"The upload stopped after {report.rows} rows: {error}",
            status=error.status,
            code=error.code,
            errors=error.errors,
            request_id=error.request_id,
            retry_after=error.retry_after,
        )
        failed.report = report
        return failed


def make_plan(
    session: Session,
    library_id: str,
    rows: Any,
    columns: Columns,
    *,
    mode: str,
    batch_size: Any,
    parallel: int,
    on_error: str,
    **options: Any,
) -> Plan:
    """The plan of an upload; raise InvalidArgument."""
    if mode not in ("upsert", "insert", "update"):
        raise InvalidArgument(f"mode: is upsert, insert or update, not {mode!r}")
    if on_error not in ("collect", "raise"):
        raise InvalidArgument(f"on_error: is collect or raise, not {on_error!r}")
    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise InvalidArgument(f"batch_size: is 'auto' or a number of rows, not {batch_size!r}")
    if not isinstance(parallel, int) or parallel < 1:
        raise InvalidArgument(f"parallel: is a number from 1 on, not {parallel!r}")
    collects = on_error == "collect"
    return Plan(
        session,
        library_id,
        read_rows(rows, columns, makes_ids=mode != "update"),
        mode,
        {**options, "on_invalid": "skip" if collects else None},
        None if batch_size == "auto" else batch_size,
        collects,
        parallel,
    )


def run(runner: Runner, plan: Plan, progress: bool | Callable[[int], None]) -> UploadReport:
    """Upload by threads. Whatever ends it early, what is under way is finished, and no thread is left; where the rows'
    own source fails, what was read from it is stored."""
    tally, stop = Tally(plan, progress), threading.Event()
    pending: set[Future[Stored]] = set()
    with ThreadPoolExecutor(plan.parallel, thread_name_prefix="vectordb-upload") as pool:
        try:
            for batch in plan.batches():
                pending.add(pool.submit(runner.run, plan.write(batch), stop))
                if len(pending) > plan.parallel:
                    pending = _collect(tally, pending)
            while pending:
                pending = _collect(tally, pending)
        except BaseException as error:
            if not _is_of_source(error):
                stop.set()
            pool.shutdown(cancel_futures=not _is_of_source(error))
            for future in pending:
                if not future.cancelled() and future.exception() is None:
                    tally.add(future.result())
            if tally.explains(error):
                raise tally.failed(error) from error
            raise
    return tally.report()


def _is_of_source(error: BaseException) -> bool:
    """Whether the source of rows raised it: it is no interruption, and nothing that server or client said."""
    return isinstance(error, Exception) and not isinstance(error, VectorDBError)


def _collect(tally: Tally, pending: set[Future[Stored]]) -> set[Future[Stored]]:
    """Count what has ended, once something has; return what has not. Raise what a batch raised."""
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    failures = [error for future in done if (error := future.exception()) is not None]
    for future in done:
        if future.exception() is None:
            tally.add(future.result())
    if failures:
        pending.difference_update(done)
        raise failures[0]
    return rest


async def run_async(
    runner: AsyncRunner, plan: Plan, rows: AsyncIterable[Any] | None, progress: bool | Callable[[int], None]
) -> UploadReport:
    """Upload by tasks. Whatever ends it early, tasks are cancelled; where the rows' own source fails, what was read
    from it is stored."""
    tally = Tally(plan, progress)
    pending: set[asyncio.Task[Stored]] = set()

    async def collect() -> None:
        nonlocal pending
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            tally.add(task.result())

    try:
        async for batch in plan.async_batches(rows):
            if len(pending) == plan.parallel:
                await collect()
            pending.add(asyncio.create_task(runner.run(plan.write(batch))))
        while pending:
            await collect()
    except BaseException as error:
        if not _is_of_source(error):
            for task in pending:
                task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if tally.explains(error):
            raise tally.failed(error) from error
        raise
    return tally.report()
