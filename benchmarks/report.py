"""Rows of measurements, what is wanted of them, and how they are shown and kept."""

import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import django
import numpy as np
import orjson
import psutil


@dataclass(frozen=True)
class Wanted:
    """A condition on a measured value and its reference's."""

    text: str
    holds: Callable[[float, float | None], bool]


def at_least(limit: float) -> Wanted:
    return Wanted(f">= {_number(limit)}", lambda value, _: value >= limit)


def at_most(limit: float) -> Wanted:
    return Wanted(f"<= {_number(limit)}", lambda value, _: value <= limit)


def times_at_least(limit: float) -> Wanted:
    return Wanted(f">= {limit:g} x reference", lambda value, reference: value >= limit * (reference or np.inf))


def times_at_most(limit: float) -> Wanted:
    return Wanted(f"<= {limit:g} x reference", lambda value, reference: value <= limit * (reference or 0))


def above_at_most(limit: float) -> Wanted:
    return Wanted(f"<= reference + {limit:g}", lambda value, reference: value <= (reference or 0) + limit)


@dataclass(frozen=True)
class Row:
    """One measured value, with the value of a reference in the same run."""

    name: str
    value: float
    unit: str
    reference: str = ""
    reference_value: float | None = None
    wanted: Wanted | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.reference_value if self.reference_value else None

    @property
    def met(self) -> bool | None:
        return self.wanted.holds(self.value, self.reference_value) if self.wanted else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": self.reference_value,
            "ratio": self.ratio,
            "wanted": self.wanted.text if self.wanted else None,
            "met": self.met,
        }


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | measured | reference | ratio | wanted | met |", "|---|--:|---|--:|---|---|"]
    for row in rows:
        reference = "" if row.reference_value is None else f"{_number(row.reference_value)} ({row.reference})"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
        wanted = row.wanted.text if row.wanted else ""
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        lines.append(f"| {row.name} | {_number(row.value)} {row.unit} | {reference} | {ratio} | {wanted} | {met} |")
    return "\n".join(lines)


def write_json(folder: Path, rows: Sequence[Row], about: dict[str, Any]) -> Path:
    """Keep the rows in a file of `folder` that is named by the time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}.json"
    path.write_bytes(orjson.dumps(about | {"rows": [row.as_dict() for row in rows]}, option=orjson.OPT_INDENT_2))
    return path


def machine(scratch: Path) -> dict[str, Any]:
    """What the numbers depend on; `scratch` is on the disk that the data folders are on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "fsync_ms": round(_fsync_ms(scratch), 2),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "django": django.__version__,
        "numpy": np.__version__,
        "sqlite": sqlite3.sqlite_version,
    }


def sentence(about: dict[str, Any]) -> str:
    """`machine()` for a reader."""
    return (
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}, "
        f"fsync of 4 MiB {about['fsync_ms']} ms, load {about['load']} at the start; Python {about['python']}, "
        f"Django {about['django']}, numpy {about['numpy']}, SQLite {about['sqlite']}; `{about['command']}`"
    )


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _fsync_ms(folder: Path) -> float:
    """The median time to make 4 MiB of new data durable: what a commit of 1,000 rows waits for at least."""
    block = os.urandom(4 << 20)
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(9):
            began = time.perf_counter()
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times) * 1000
