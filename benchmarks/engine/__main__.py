"""`python -m benchmarks.engine [DATA SET ...]`: print a table, keep it as JSON, draw the plot."""

import argparse
import os
import sys
from pathlib import Path

# Before numpy: one thread each, as in the server.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import orjson

from apps.engine import kernels
from benchmarks.dataset import FILES, Dataset, MissingData
from benchmarks.engine import plot, runner, wanted
from benchmarks.engine.grids import DATA_SETS, ENTRIES, REFERENCES
from benchmarks.report import machine, markdown_table, sentence

RESULTS = Path(__file__).parent.parent / "results"
_PICTURE = Path(__file__).parent.parent.parent / "docs" / "recall_qps.svg"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="DATA SET", help="which: part of a name (default: all)")
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    parser.add_argument("--kinds", help="only these entries, separated by commas; numpy is always measured")
    parser.add_argument("--quick", action="store_true", help="few repetitions, to see that everything works")
    parser.add_argument(
        "--wanted", action="store_true", help="instead: batches, filters and a graph, beside what is wanted of them"
    )
    parser.add_argument("--plot", action="store_true", help=f"draw {_PICTURE.name} in docs/; needs matplotlib")
    options = parser.parse_args()
    try:
        data = Dataset.load(options.data)
    except MissingData as reason:
        print(
            f"Nothing was measured: {reason}. It must hold {', '.join(FILES)}; see docs/benchmarks.md.", file=sys.stderr
        )
        return 0
    RESULTS.mkdir(exist_ok=True)
    about = machine(RESULTS) | {"command": f"python -m benchmarks.engine {' '.join(sys.argv[1:])}".strip()}
    kernels.load()
    if options.wanted:
        rows = wanted.run(data, quick=options.quick)
        print(f"{sentence(about)}\n\n{markdown_table(rows)}")
        return 0
    kinds = None if options.kinds is None else {"numpy", *options.kinds.split(",")}
    entries = [
        entry for entry in REFERENCES + ENTRIES if runner.known(entry) and (kinds is None or entry.kind in kinds)
    ]
    lines = []
    for data_set in DATA_SETS:
        if options.names and not any(name in data_set.name for name in options.names):
            continue
        print(f"{data_set.name} ...", file=sys.stderr)
        vectors, queries = data_set.make(data)
        if options.quick:
            queries = queries[:100]
        lines += runner.run(data_set, vectors, queries, entries, rounds=4 if options.quick else 40)
    print(f"{sentence(about)}\n\n{_table(lines)}")
    path = RESULTS / f"engine-{about['date']}.json"
    path.write_bytes(orjson.dumps(about | {"lines": [line.as_dict() for line in lines]}, option=orjson.OPT_INDENT_2))
    print(f"\nKept in {path}", file=sys.stderr)
    if options.plot:
        plot.draw(lines, _PICTURE)
    return 0


def _table(lines: list[runner.Line]) -> str:
    columns = ["data", "type", "parameters", "build", "bytes/row", "by view", "by itself", "x numpy", "in batches"]
    columns += ["recall@10", "seen"]
    found = [f"| {' | '.join(columns)} |", "|---|---|---" + "|--:" * (len(columns) - 3) + "|"]
    for line in lines:
        cells = [
            line.data,
            line.kind,
            ", ".join(f"{name} {value}" for name, value in [*line.build.items(), *line.search.items()]),
            f"{line.build_seconds:.2f} s",
            "" if line.bytes_per_row != line.bytes_per_row else f"{line.bytes_per_row:,.0f}",
            f"{line.microseconds:,.1f} us",
            f"{line.by_itself:,.1f} us",
            f"{line.times_numpy:.2f}",
            "" if line.microseconds_in_batches is None else f"{line.microseconds_in_batches:,.1f} us",
            f"{line.recall:.4f}",
            "" if line.compared != line.compared else f"{line.compared:.1%}",
        ]
        found.append(f"| {' | '.join(cells)} |")
    return "\n".join(found)


if __name__ == "__main__":
    sys.exit(main())
