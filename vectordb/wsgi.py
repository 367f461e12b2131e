"""The WSGI entry point for any server, whose workers end where the database is of a newer version; `manage.py serve`,
which looks by itself, serves `vectordb.asgi`."""

import sys

from vectordb.application import application  # isort: skip  (it sets Django up)

from apps.libraries.errors import Conflict
from apps.libraries.schema import refuse_newer_database

__all__ = ["application"]

try:
    refuse_newer_database()
except Conflict as error:
    sys.stderr.write(f"{error}\n")
    # By this status gunicorn knows that another worker could not boot either.
    sys.exit(3)
