"""The table of jobs."""

import secrets
from typing import Any

from django.db import models
from django.utils import timezone

from apps.libraries.models import ExactJSONField


def new_job_id() -> str:
    """Return a random id for a job."""
    return f"job-{secrets.token_hex(8)}"


class Job(models.Model):
    """Work that goes on beside the requests, and how far it is.

    It runs from its creation until it has ended, also while no process works on it: the next one to look goes on from
    `progress`. It names its library by id, since it outlives it.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    public_id = models.CharField("id", max_length=32, unique=True, default=new_job_id, editable=False)
    # What is done: an entry of the table in `jobs`.
    kind = models.CharField(max_length=32)
    # The id of the library that it works on; empty where it is of all.
    library = models.CharField(max_length=128, blank=True, default="")
    # The `uid` of the library that it writes to, once that is known: it never writes to another one of that id.
    library_uid = models.CharField(max_length=32, blank=True, default="")
    # Whether it made that library.
    made_library = models.BooleanField(default=False)
    # What it was asked for; no secrets.
    params = ExactJSONField(default=dict)
    # The folder of data whose server does it: files that it needs are there.
    folder = models.CharField(max_length=32, blank=True, default="")
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING)
    # Rows or bytes; `total` is null while nobody knows it.
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(null=True)
    # Where the next step begins; written in the transaction of the step before.
    progress: Any = ExactJSONField(default=dict)
    # What it has made or found, for its reader.
    result = ExactJSONField(default=dict)
    error = models.TextField(default="")
    # Times that it was begun since `progress` was last written.
    attempts = models.PositiveIntegerField(default=0)
    # Who asked for it, for the audit trail: a key and its name, or a user; empty for the server itself.
    key_id = models.CharField(max_length=32, blank=True, default="")
    name = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "vectordb_job"
        ordering = ["id"]
        indexes = [models.Index(fields=["state", "id"], name="vectordb_job_state")]

    def __str__(self) -> str:
        return f"{self.kind} {self.public_id}"
