#!/usr/bin/env python
"""The command line: `manage.py serve` runs the server, `manage.py help` lists the rest."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import DatabaseError, OperationalError, ProgrammingError

# Before numpy is loaded: threads of BLAS spin between calls, which takes the cores from the other processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")
    try:
        import vectordb.settings

        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except (OperationalError, ProgrammingError) as error:
        if not _is_without_tables():
            raise
        sys.exit(
            f"There is no database of a server in {vectordb.settings.DATA_DIR} yet ({error}). Set VECTORDB_DATA_DIR "
            "and DATABASE_URL as for the server, or start it once: make serve."
        )
    except KeyboardInterrupt:
        sys.exit(130)


def _is_without_tables() -> bool:
    from django.db import connection

    try:
        return "vectordb_library" not in connection.introspection.table_names()
    except DatabaseError:
        return connection.vendor == "sqlite" and not os.path.exists(connection.settings_dict["NAME"])


if __name__ == "__main__":
    main()
