"""What benchmarks share that are run by themselves: their options, the server's default settings, and the table that
they print and keep as JSON in benchmarks/results/.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Row, machine, markdown_table, sentence, write_json

RESULTS = Path(__file__).with_name("results")


def make_parser(name: str, description: str | None, rows: int | None) -> argparse.ArgumentParser:
    """A parser of the number of rows, with its default, and of the folder of the data."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("rows", nargs="?", type=int, default=rows)
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    return parser


def use_default_settings() -> None:
    """Measure the server's defaults, on SQLite, whatever the shell is set to."""
    for name in [name for name in os.environ if name.startswith("VECTORDB_")]:
        del os.environ[name]
    os.environ["DATABASE_URL"] = ""


def report(name: str, measure: Callable[[Path], list[Row]], about_data: str = "") -> None:
    """Print and keep the rows that `measure` makes in a scratch folder."""
    RESULTS.mkdir(exist_ok=True)
    # Not in the system's folder for temporary files, which may be in memory: the disk is part of what is measured.
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix="scratch-") as scratch:
        about = machine(Path(scratch)) | {"command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip()}
        rows = measure(Path(scratch))
    print(f"{sentence(about)}{about_data}\n\n{markdown_table(rows)}")
    print(f"\nKept in {write_json(RESULTS, rows, about)}", file=sys.stderr)
