"""Long work of the server: its jobs and backups, the building of an index, the move to another embedding model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Async, Pages, Resource, Sync, listing, operation
from vectordb_client._core import Answer, Route, Sleep, Steps, build_request, without_none
from vectordb_client.errors import InvalidArgument, JobFailed, NotFound, WaitTimedOut
from vectordb_client.types import BackupInfo, IndexState, JobInfo, Page

J = TypeVar("J")


class _Job(Resource):
    """Work of the server that goes on after the call. `info` is what was last known of it."""

    def __init__(
        self,
        runner: Any,
        info: JobInfo,
        read: Callable[[JobInfo], Steps[JobInfo]],
        cancel: Callable[[], Steps[Answer]] | None,
    ) -> None:
        super().__init__(runner)
        self.info = info
        self._read, self._cancel = read, cancel

    def __repr__(self) -> str:
        info, of = self.info, "" if self.info.total is None else f" of {self.info.total}"
        progress = "" if info.done is None else f", done={info.done}{of}"
        error = f", error={info.error!r}" if info.error else ""
        return f"{type(self).__name__}({info.kind!r}, {info.state!r}{progress}{error})"

    @operation
    def refresh(self) -> Steps[JobInfo]:
        """What the server says about the job now."""
        return (yield from self._refresh())

    @operation
    def wait(
        self, timeout: float | None = None, *, on_progress: Callable[[JobInfo], None] | None = None
    ) -> Steps[JobInfo]:
        """Wait until the job is done, for `timeout` seconds at most; raise JobFailed or WaitTimedOut.

        >>> lib.reindex().wait(timeout=60).state
        'done'
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while True:
            info = yield from self._refresh()
            if on_progress is not None:
                on_progress(info)
            if info.state == "done":
                return info
            if info.state in ("failed", "cancelled"):
                raise JobFailed(f"The job {info.kind} {info.state}: {info.error or 'no reason is known'}")
            if deadline is not None and time.monotonic() + pause > deadline:
                raise WaitTimedOut(f"The job {info.kind} is still running after {timeout} s: {self!r}")
            yield Sleep(pause)
            pause = min(pause * 1.5, 2.0)

    @operation
    def cancel(self) -> Steps[None]:
        """Cancel the job; what it has done by then stays."""
        if self._cancel is None:
            raise InvalidArgument(f"a job of the kind {self.info.kind} cannot be cancelled")
        yield from self._cancel()

    def _refresh(self) -> Steps[JobInfo]:
        self.info = yield from self._read(self.info)
        return self.info


class Job(Sync, _Job):
    __doc__ = _Job.__doc__


class AsyncJob(Async, _Job):
    __doc__ = _Job.__doc__


class _Jobs(Resource, Generic[J]):
    """The jobs that the key may see."""

    _job: type[Any]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @operation
    def get(self, id: str) -> Steps[J]:
        """A job by its id; NotFound where there is none."""
        answer = yield from self._session.call(build_request(routes.get_job, id))
        return self._handle(answer.json())

    @listing
    def list(
        self,
        *,
        kind: str | None = None,
        library: str | None = None,
        state: Literal["running", "done", "failed", "cancelled"] | None = None,
        page_size: int = 500,
    ) -> Pages[J]:
        """Jobs by creation, of a kind, of a library, in a state.

        >>> [job.info.kind for job in client.jobs.list(state="running")]
        []
        """
        query = without_none(kind=kind, library=library, state=state, limit=page_size)

        def page(cursor: str | None) -> Steps[Page[J]]:
            request = build_request(routes.list_jobs, query={**query, "cursor": cursor})
            answer = (yield from self._session.call(request)).json()
            return Page([self._handle(item) for item in answer["items"]], answer["next_cursor"])

        return page

    @operation
    def cancel(self, id: str) -> Steps[None]:
        """Cancel a job; Conflict where it has ended otherwise."""
        yield from self._session.call(build_request(routes.cancel_job, id))

    def _handle(self, item: Mapping[str, Any]) -> J:
        job: J = server_job(self, self._job, item)
        return job


class Jobs(Sync, _Jobs[Job]):
    __doc__ = _Jobs.__doc__
    _job = Job


class AsyncJobs(Async, _Jobs[AsyncJob]):
    __doc__ = _Jobs.__doc__
    _job = AsyncJob


class _Backups(Resource, Generic[J]):
    """The backups of the server; they need a key for everything. To restore one, the server's command is needed."""

    _job: type[Any]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @operation
    def create(self, *, test_restore: bool = False) -> Steps[J]:
        """Make a backup beside the requests; `wait()` of the result waits for it. With `test_restore`, it is restored
        elsewhere, and kept only if that works.

        >>> backup = client.backups.create().wait().result["backup"]
        """
        body = without_none(test_restore=test_restore or None)
        answer = yield from self._session.call(build_request(routes.create_backup, body=body))
        job: J = server_job(self, self._job, answer.json())
        return job

    @operation
    def get(self, id: str) -> Steps[BackupInfo]:
        """What a backup is of.

        >>> client.backups.get(backup).reason
        'request'
        """
        answer = yield from self._session.call(build_request(routes.get_backup, id))
        return types.parse(BackupInfo, answer.json())

    @listing
    def list(self, *, page_size: int = 500) -> Pages[BackupInfo]:
        """All backups by creation.

        >>> [one.id for one in client.backups.list()] == [backup]
        True
        """

        def page(cursor: str | None) -> Steps[Page[BackupInfo]]:
            request = build_request(routes.list_backups, query={"limit": page_size, "cursor": cursor})
            answer = (yield from self._session.call(request)).json()
            return Page([types.parse(BackupInfo, item) for item in answer["items"]], answer["next_cursor"])

        return page

    @operation
    def delete(self, id: str) -> Steps[None]:
        """Delete a backup.

        >>> client.backups.delete(backup)
        """
        yield from self._session.call(build_request(routes.delete_backup, id))


class Backups(Sync, _Backups[Job]):
    __doc__ = _Backups.__doc__
    _job = Job


class AsyncBackups(Async, _Backups[AsyncJob]):
    __doc__ = _Backups.__doc__
    _job = AsyncJob


def server_job(resource: Resource, job: type[J], item: Mapping[str, Any]) -> J:
    """The handle of one of the server's own jobs."""
    info = types.parse(JobInfo, item)

    def read(_: JobInfo) -> Steps[JobInfo]:
        answer = yield from resource._session.call(build_request(routes.get_job, info.id))
        return types.parse(JobInfo, answer.json())

    return _make(resource, job, info, read, routes.cancel_job, info.id)


def index_job(resource: Resource, job: type[J], library_id: str, item: Mapping[str, Any]) -> J:
    """The handle of the building of an index: it is done when the index is ready."""

    def read(_: JobInfo) -> Steps[JobInfo]:
        answer = yield from resource._session.call(build_request(routes.library_stats, library_id))
        return _of_index(library_id, types.parse(IndexState, answer.json()["index"]))

    return _make(resource, job, _of_index(library_id, types.parse(IndexState, item)), read, None)


def reembedding_job(resource: Resource, job: type[J], library_id: str, item: Mapping[str, Any]) -> J:
    """The handle of a move to another model: it is done when there is no move any more."""

    def read(last: JobInfo) -> Steps[JobInfo]:
        try:
            answer = yield from resource._session.call(build_request(routes.get_reembedding, library_id))
        except NotFound:
            return JobInfo(last.id, last.kind, library_id, "done", last.total, last.total, created_at=last.created_at)
        return _of_reembedding(library_id, answer.json())

    return _make(resource, job, _of_reembedding(library_id, item), read, routes.cancel_reembedding, library_id)


def _make(
    resource: Resource,
    job: type[J],
    info: JobInfo,
    read: Callable[[JobInfo], Steps[JobInfo]],
    cancel: Route | None,
    *ids: str,
) -> J:
    session = resource._session
    make: Any = job
    handle: J = make(
        resource._runner, info, read, None if cancel is None else lambda: session.call(build_request(cancel, *ids))
    )
    return handle


def _of_index(library_id: str, index: IndexState) -> JobInfo:
    state = {"ready": "done", "building": "running"}.get(index.state, index.state)
    total = index.rows_indexed + index.rows_pending
    return JobInfo(library_id, "reindex", library_id, state, index.rows_indexed, total, index.error)


def _of_reembedding(library_id: str, item: Mapping[str, Any]) -> JobInfo:
    state = "failed" if item["state"] == "failed" else "running"
    began = types.parse_time(item["started_at"])
    done, total = item["embedded"], item["chunks"]
    return JobInfo(library_id, "reembed", library_id, state, done, total, item["error"], created_at=began)
