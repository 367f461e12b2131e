#!/usr/bin/env python
"""The command line of a checkout: `manage.py serve` runs the server, `manage.py help` lists the rest."""

import os
from pathlib import Path

from vectordb.command_line import main

if __name__ == "__main__":
    os.environ.setdefault("VECTORDB_DATA_DIR", str(Path(__file__).resolve().parent / "data"))
    main()
