"""A pytest plugin that is loaded before the settings: the tests have a data folder and a database of their own.

TEST_DATABASE_URL names a PostgreSQL server to test against; a DATABASE_URL of the shell is never used.
"""

import atexit
import gc
import os
import shutil
import tempfile

for name in [name for name in os.environ if name.startswith("VECTORDB_")]:
    del os.environ[name]
os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL", "")
os.environ["VECTORDB_DATA_DIR"] = tempfile.mkdtemp(prefix="vectordb-test-")
atexit.register(shutil.rmtree, os.environ["VECTORDB_DATA_DIR"], ignore_errors=True)

# Thousands of tests are collected, and stay. To look through them for garbage every 700 objects takes a while.
gc.set_threshold(10_000, 10, 10)
