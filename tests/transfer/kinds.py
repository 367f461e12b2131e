"""Kinds of jobs that tests run."""

from typing import Any

from apps.transfer.errors import TransferError
from apps.transfer.job_context import JobContext

# What the functions below were called with, as long as a test runs.
seen: list[Any] = []


def count(job: JobContext) -> dict[str, Any]:
    """Count up to `params.to`, each step committed."""
    for number in range(job.progress.get("next", 0), job.params["to"]):
        job.advance(number + 1, job.params["to"], {"next": number + 1, "report": {"counted": number + 1}})
        seen.append(number)
    return {"counted": job.params["to"]}


def die(job: JobContext) -> None:
    """Take the process along."""
    seen.append("begun")
    raise SystemExit


def tell(job: JobContext) -> None:
    """Tell readers alone how far it is, as often as that is written."""
    for number in range(4):
        job.advance(number, 3)


def refuse(job: JobContext) -> None:
    """Fail by what a person can do something about."""
    raise TransferError("There is no such bucket.")


KINDS = {function.__name__: f"{__name__}.{function.__name__}" for function in (count, die, refuse, tell)}
