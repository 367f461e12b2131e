"""Of which database a backup is: where several keep theirs at one place, each deletes its own alone."""

import contextlib

from django.db import connections

from apps.libraries.dialects import dialect_of
from apps.transfer.jobs import folder_id


def database_id() -> str:
    """Return the identity of the database of this server; empty where it has none that can be stored. A backup that is
    restored elsewhere is another database from then on. Raise DatabaseError."""
    connection = connections["default"]
    of_server = dialect_of(connection).server_id(connection)
    if of_server:
        # Hosts that share it have data folders of their own, and one schedule.
        return of_server
    with contextlib.suppress(OSError):
        return folder_id()
    return ""
