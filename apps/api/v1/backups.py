"""Backups of the database."""

from pydantic import Field
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import parse
from apps.api.parameters import PageParameters, page_data
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond
from apps.api.v1.operation import operation
from apps.libraries.fields import Input
from apps.transfer.backups import catalog
from apps.transfer.jobs import job_data


class BackupCreate(Input):
    """How a backup is made."""

    test_restore: bool = Field(False, description="Read it back and restore it elsewhere; keep it only if that works.")


class Backups(ApiView):
    """The backups at the place that VECTORDB_BACKUP_URL names. To restore one, stop the server and run its command."""

    example_bodies = {"POST": examples.BACKUP}
    parameters = PageParameters
    query: PageParameters
    scopes = {"GET": "admin", "POST": "admin"}
    is_server_wide = True

    @operation("list_backups", "List backups", schemas.BackupPage)
    def get(self, request: Request) -> Response:
        return respond(page_data(catalog.list_backups(limit=self.query.limit, after=self.query.cursor)))

    @operation(
        "create_backup",
        "Make a backup, beside the requests",
        schemas.Job,
        BackupCreate,
        statuses=(202,),
        description="The answer is a job, whose `result.backup` is the id of the backup once it is `done`.",
    )
    def post(self, request: Request) -> Response:
        job = catalog.request_backup(is_tested=parse(request, BackupCreate, empty=b"{}").test_restore)
        return respond(job_data(job), 202, path_to("jobs", job.public_id))


class Backup(ApiView):
    """One backup."""

    scopes = {"GET": "admin", "DELETE": "admin"}
    is_server_wide = True

    @operation("get_backup", "Read a backup", schemas.Backup)
    def get(self, request: Request, backup_id: str) -> Response:
        return respond(catalog.find_backup(backup_id))

    @operation("delete_backup", "Delete a backup", None)
    def delete(self, request: Request, backup_id: str) -> Response:
        catalog.delete_backup(backup_id=backup_id)
        return Response(status=204)
