"""`python -m benchmarks [NAME ...]`: measure, print the table, keep it as JSON in benchmarks/results/."""

import argparse
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import (
    backup,
    boosts,
    catch_up,
    churn,
    cold_start,
    columns,
    compare,
    delete,
    documents,
    expiry,
    filters,
    guards,
    ingest,
    libraries,
    maintenance,
    memory,
    opening,
    peers,
    query,
    request,
    retrieval,
    sdk,
    text,
    transfer,
)
from benchmarks.dataset import FILES, Dataset, MissingData
from benchmarks.report import Row, machine, markdown_table, sentence, write_json
from benchmarks.standalone import RESULTS, use_default_settings
from benchmarks.testbed import Testbed

BENCHMARKS: dict[str, Callable[[Testbed], list[Row]]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (
        ingest,
        transfer,
        query,
        request,
        filters,
        documents,
        columns,
        boosts,
        expiry,
        text,
        retrieval,
        catch_up,
        cold_start,
        opening,
        maintenance,
        memory,
        libraries,
        delete,
        churn,
        backup,
        sdk,
        guards,
        peers,
    )
}


def main() -> int | str:
    options = _options()
    # Whoever ends this ends the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))
    use_default_settings()
    # Servers start as they do for users, from compiled modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        data = Dataset.load(options.data)
    except MissingData as reason:
        print(
            f"Nothing was measured: {reason}. Point --data or the environment variable BENCHMARK_DATA to a folder with "
            f"{', '.join(FILES)}; docs/benchmarks.md says what they are and how to make them.",
            file=sys.stderr,
        )
        return 0
    RESULTS.mkdir(exist_ok=True)
    rows: list[Row] = []
    failed: list[str] = []
    # Not in the system's folder for temporary files, which may be in memory: the disk is part of what is measured.
    with tempfile.TemporaryDirectory(dir=options.scratch or RESULTS, prefix="scratch-") as scratch:
        about = machine(Path(scratch)) | {"command": f"python -m benchmarks {shlex.join(sys.argv[1:])}".strip()}
        testbed = Testbed(data, Path(scratch), quick=options.quick, chroma_python=options.chroma_python)
        if options.before:
            measures = {"compare": partial(compare.run, before=options.before, names=options.names)}
        else:
            measures = {name: BENCHMARKS[name] for name in options.names}
        for name, measure in measures.items():
            print(f"{name} ...", file=sys.stderr)
            try:
                rows += measure(testbed)
            except Exception:
                # What the others have measured is not lost.
                traceback.print_exc()
                failed.append(name)
    print(f"{sentence(about)}\n\n{markdown_table(rows)}")
    print(f"\nKept in {write_json(RESULTS, rows, about)}", file=sys.stderr)
    return f"Not measured, for the errors above: {', '.join(failed)}" if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    parser.add_argument("--scratch", help="folder on the disk to be measured (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that everything works")
    parser.add_argument("--chroma-python", help="the Python of a virtual environment with chromadb, for sdk and peers")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="PATH",
        help=f"instead, compare with another checkout; NAMEs are then: {', '.join(compare.GROUPS)}",
    )
    options = parser.parse_args()
    known = compare.GROUPS if options.before else BENCHMARKS
    for name in options.names:
        if name not in known:
            parser.error(f"there is no benchmark {name!r}; there are: {', '.join(known)}")
    if "peers" in options.names and not options.chroma_python:
        parser.error("peers needs --chroma-python")
    if not options.names and not options.before:
        options.names = [name for name in BENCHMARKS if name != "peers" or options.chroma_python]
    return options


if __name__ == "__main__":
    sys.exit(main())
