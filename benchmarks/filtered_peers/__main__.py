"""`python -m benchmarks.filtered_peers [ENGINE ...]`: print a table, keep it as JSON in benchmarks/results/."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.dataset import FILES, Dataset, MissingData
from benchmarks.filtered import ANIMAL, NOUN, UNFILTERED
from benchmarks.filtered_peers.registry import ELSEWHERE, ENGINES
from benchmarks.report import machine, sentence
from benchmarks.testbed import ONE_THREAD
from tests.server import ROOT

RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    options = _options()
    for name in [name for name in os.environ if name.startswith("VECTORDB_")]:
        del os.environ[name]
    os.environ["DATABASE_URL"] = ""
    try:
        Dataset.load(options.data)
    except MissingData as reason:
        print(
            f"Nothing was measured: {reason}. It must hold {', '.join(FILES)}; see docs/benchmarks.md.", file=sys.stderr
        )
        return 0
    RESULTS.mkdir(exist_ok=True)
    about = machine(RESULTS) | {"command": f"python -m benchmarks.filtered_peers {shlex.join(sys.argv[1:])}".strip()}
    lines: list[dict[str, Any]] = []
    for name in options.names or ENGINES:
        print(f"{name} ...", file=sys.stderr)
        lines += _measure(name, options)
    print(f"{sentence(about)}\n\n{_table(lines)}")
    path = RESULTS / f"filtered-peers-{time.strftime('%Y-%m-%dT%H-%M-%S')}.json"
    path.write_bytes(orjson.dumps(about | {"lines": lines}, option=orjson.OPT_INDENT_2))
    print(f"\nKept in {path}", file=sys.stderr)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filtered_peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="ENGINE", help=f"which: {', '.join(ENGINES)} (default: all)")
    parser.add_argument("--data", default=os.environ.get("BENCHMARK_DATA"), help="folder of the data (BENCHMARK_DATA)")
    parser.add_argument("--scratch", help="folder on the disk to be measured (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="few queries, to see that everything works")
    parser.add_argument("--peers-python", help=f"the Python of an environment with {', '.join(ELSEWHERE)}")
    parser.add_argument("--chroma-python", default="", help="the Python of an environment with chromadb")
    options = parser.parse_args()
    for name in options.names:
        if name not in ENGINES:
            parser.error(f"there is no engine {name!r}; there are: {', '.join(ENGINES)}")
    return options


def _measure(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the engine's process says; nothing where the engine is missing."""
    python = options.peers_python if name in ELSEWHERE and options.peers_python else sys.executable
    with tempfile.TemporaryDirectory(dir=options.scratch or RESULTS, prefix="scratch-") as folder:
        command = [python, "-m", "benchmarks.filtered_peers.measure", name, options.data, folder]
        command += ["50" if options.quick else "500", options.chroma_python]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        # What the others have shown is kept.
        print(f"{name}: left out, its process ended with {ended.returncode}", file=sys.stderr)
        return []
    found = orjson.loads(ended.stdout.splitlines()[-1])
    if "missing" in found:
        print(f"{name}: left out, {found['missing']}", file=sys.stderr)
    lines: list[dict[str, Any]] = found.get("lines", [])
    return lines


def _table(lines: list[dict[str, Any]]) -> str:
    """Milliseconds and recall@10 by engine and filter, with the time beside numpy's exact scan of the matching rows."""
    cases = [case.name for case in (UNFILTERED, ANIMAL, NOUN)]
    columns = [
        "engine",
        "parameters",
        "reached",
        "built",
        "memory",
        *(f"{name}: p50 | x numpy | recall@10" for name in cases),
    ]
    rows = [f"| {' | '.join(columns)} |", "|---|---|---|--:|--:" + "|--:" * 3 * len(cases) + "|"]
    for line in lines:
        parameters = ", ".join(filter(None, (line["about"], line["variant"])))
        cells = [line["name"], parameters, line["way"], f"{line['build_s']:.0f} s"]
        cells += ["" if line["memory"] is None else f"{line['memory'] / 2**20:.0f} MiB"]
        for name in cases:
            case = line["cases"][name]
            cells += [f"{case['p50_ms']:.3g} ms", f"{case['p50_ms'] / case['numpy_ms']:.2f}", f"{case['recall']:.4f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
