"""What a backup says of itself: `manifest.json`."""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from django.utils import timezone
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apps.libraries.chunk_fields import timestamp
from apps.transfer.errors import TransferError

FILE_NAME = "manifest.json"
# A manifest of another format is not understood.
FORMAT: Final = 1
# An id is a time, to the millisecond, so that ids are in the order in which backups were made.
_ID = re.compile(r"backup-(\d{8})T(\d{9})")

# Why a backup was made: somebody asked for it, the schedule, or a migration that followed.
Reason: TypeAlias = Literal["request", "schedule", "migration"]
Database: TypeAlias = Literal["sqlite", "postgresql"]
Count = Annotated[int, Field(ge=0)]


class UnknownBackup(TransferError):
    """What is in the place of a backup is none, or of another version."""


class Manifest(BaseModel):
    """A backup: when, of what, and by what its copy of the database is known to be whole."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    format: Literal[1]
    id: str
    created_at: str
    reason: Reason
    # The version of the server, the kind of database, and the migrations that it has, as app and name.
    server: str
    database: Database
    # The identity of the database; empty in backups of earlier versions.
    database_id: str = ""
    migrations: list[tuple[str, str]]
    libraries: Count
    # Numbers of rows by table.
    rows: dict[str, Count]
    # Bytes of the copy, and their SHA-256.
    size: Count
    sha256: str

    @classmethod
    def parse(cls, content: bytes, shown: str) -> "Manifest":
        """Return the manifest of the backup `shown`; raise UnknownBackup if it is not one."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            where = "/".join(map(str, error.errors()[0]["loc"])) or "JSON"
            raise UnknownBackup(
                f"{shown} is no backup of this server, or of another version of it: {FILE_NAME} cannot be understood "
                f"({where})."
            ) from None

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return count_of("chunk", self.rows)

    def encode(self) -> bytes:
        """Return the content of the file."""
        return self.model_dump_json(indent=1).encode()

    def data(self, database_id: str) -> dict[str, Any]:
        """Return the backup as the API of the server shows it that has the database `database_id`."""
        shown = ("id", "created_at", "reason", "server", "database", "libraries", "rows", "size", "sha256")
        return self.model_dump(include=set(shown)) | {"own": self.is_of(database_id)}

    def is_of(self, database_id: str) -> bool:
        """Whether it is known to be a backup of that database."""
        return bool(database_id) and self.database_id == database_id


def count_of(model: str, rows: dict[str, int]) -> int:
    """Return the number of libraries or chunks among those of all tables, which had no prefix in early versions."""
    return rows.get(f"vectordb_{model}", rows.get(model, 0))


def new_backup_id() -> str:
    """Return the id of a backup that is made now."""
    now = timezone.now()
    return f"backup-{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}"


def is_backup_id(text: str) -> bool:
    """Whether a text is the id of a backup, if there is one."""
    return _ID.fullmatch(text) is not None


def page_number(backup_id: str) -> int:
    """Return a number by which backups are in the order of their ids."""
    found = _ID.fullmatch(backup_id)
    assert found is not None
    return int("".join(found.groups()))


def created_at(now: datetime | None = None) -> str:
    """Return a time as a manifest has it."""
    return timestamp(now or timezone.now())
