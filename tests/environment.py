"""A pytest plugin that is loaded before the settings: the tests have a data folder and a database of their own.

TEST_DATABASE_URL names a PostgreSQL server to test against; a DATABASE_URL of the shell is never used.
"""

import atexit
import os
import shutil
import tempfile

for name in [name for name in os.environ if name.startswith("VECTORDB_")]:
    del os.environ[name]
os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL", "")
os.environ["VECTORDB_DATA_DIR"] = tempfile.mkdtemp(prefix="vectordb-test-")
atexit.register(shutil.rmtree, os.environ["VECTORDB_DATA_DIR"], ignore_errors=True)
