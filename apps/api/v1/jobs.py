"""Jobs: work that goes on beside the requests."""

from typing import Annotated, Literal

from pydantic import Field
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import schemas
from apps.api.v1.base import ApiView, respond
from apps.api.v1.operation import operation
from apps.libraries.fields import NotNull
from apps.libraries.selectors import page_of
from apps.transfer.jobs import cancel_job, find_job, find_jobs, job_data


class JobParameters(PageParameters):
    """A page of the jobs."""

    kind: Annotated[str | None, NotNull()] = Field(None, description="Only jobs of this kind.")
    library: Annotated[str | None, NotNull()] = Field(None, description="Only jobs of the library of this id.")
    state: Annotated[Literal["running", "done", "failed", "cancelled"] | None, NotNull()] = Field(
        None, description="Only jobs in this state."
    )


class Jobs(ApiView):
    """The jobs of the libraries that the key may see; those of the server itself need a key for everything."""

    parameters = JobParameters
    query: JobParameters

    @operation("list_jobs", "List jobs", schemas.JobPage)
    def get(self, request: Request) -> Response:
        query = self.query
        jobs = find_jobs(kind=query.kind, library=query.library, state=query.state)
        return respond(page_data(page_of(jobs, query.limit, query.cursor, job_data)))


class Job(ApiView):
    """One job."""

    @operation("get_job", "How far a job is", schemas.Job)
    def get(self, request: Request, job_id: str) -> Response:
        return respond(job_data(find_job(job_id)))

    @operation(
        "cancel_job", "Cancel a job", None, description="What it has done by then stays. 409 where it has ended."
    )
    def delete(self, request: Request, job_id: str) -> Response:
        cancel_job(job_id=job_id)
        return Response(status=204)
