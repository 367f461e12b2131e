"""`manage.py jobs`: the jobs of the database, and the end of one."""

from typing import Any

from django.core.management.base import CommandParser

from apps.operations.management.base import AuditedCommand, one_sentence_errors
from apps.transfer.jobs import cancel_job, find_jobs, job_data

_SHOWN = 50


class Command(AuditedCommand):
    help = "List the newest jobs: imports, exports, migrations and backups. Or cancel one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--cancel", metavar="ID", help="cancel this job; what it has done stays")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        if options["cancel"]:
            cancel_job(job_id=options["cancel"])
            self.stdout.write(f"{options['cancel']} is cancelled.")
            return
        jobs = [job_data(job) for job in find_jobs().order_by("-pk")[:_SHOWN]]
        for job in jobs:
            total = "?" if job["total"] is None else job["total"]
            fields = [job["id"], job["created_at"], job["state"], job["kind"], job["library"] or "-"]
            self.stdout.write("  ".join([*fields, f"{job['done']}/{total}", job["error"] or ""]).rstrip())
        if not jobs:
            self.stdout.write("There are no jobs.")
