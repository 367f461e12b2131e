"""What runs measured: as a table, as JSON, beside an earlier report, and whether it is enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

_FORMAT = 1
_NOT_MEASURED = "-"


class InvalidReport(Exception):
    """A file that is no report."""


@dataclass(frozen=True)
class Report:
    """The means of measures by run, and the number of queries. `queries` has the values of each query by run."""

    library: str
    judgements: str
    count: int
    runs: Mapping[str, Mapping[str, float]]
    queries: Mapping[str, Mapping[str, Mapping[str, float]]]

    def save(self, path: Path) -> None:
        """Write a JSON file. Raises OSError."""
        runs = {name: {"measures": measures, "queries": self.queries[name]} for name, measures in self.runs.items()}
        data = {"format": _FORMAT, "library": self.library, "judgements": self.judgements, "count": self.count}
        path.write_bytes(orjson.dumps(data | {"runs": runs}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    @classmethod
    def load(cls, path: Path) -> "Report":
        """What `save` wrote. Raises InvalidReport, OSError."""
        try:
            data = orjson.loads(path.read_bytes())
            if data["format"] != _FORMAT:
                raise InvalidReport(f"{path} is a report of format {data['format']!r}, not {_FORMAT}")
            runs = {
                name: {measure: float(value) for measure, value in run["measures"].items()}
                for name, run in data["runs"].items()
            }
            queries = {name: run["queries"] for name, run in data["runs"].items()}
            return cls(data["library"], data["judgements"], int(data["count"]), runs, queries)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidReport(f"{path} is no report of evaluate --json") from error

    def table(self, earlier: "Report | None" = None) -> str:
        """A line for each run; with `earlier`, the differences from it in parentheses."""
        measures = list(dict.fromkeys(name for run in self.runs.values() for name in run))
        rows = [["", *measures]]
        for name, values in self.runs.items():
            before = earlier.runs.get(name, {}) if earlier is not None else None
            rows.append([name, *(_cell(values, measure, before) for measure in measures)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)

    def query_ids(self) -> set[str]:
        """The queries that were asked."""
        return {query for values in self.queries.values() for query in values}

    def drops(self, earlier: "Report", most: float) -> list[str]:
        """Sentences for the measures that are lower than in `earlier` by more than `most`."""
        return [
            f"{name}: {measure} is {values[measure]:.4f}, {before - values[measure]:.4f} less than {before:.4f}"
            for name, values in self.runs.items()
            for measure, before in earlier.runs.get(name, {}).items()
            if measure in values and before - values[measure] > most
        ]


@dataclass(frozen=True)
class Floor:
    """What a measure must reach, in one run or in all (None)."""

    run: str | None
    measure: str
    least: float

    def failures(self, runs: Mapping[str, Mapping[str, float]]) -> list[str]:
        """Sentences for the runs that stay below."""
        return [
            f"{name}: {self.measure} is {values[self.measure]:.4f}, below {self.least:g}"
            for name, values in runs.items()
            if self.run in (None, name) and values[self.measure] < self.least
        ]


def _cell(values: Mapping[str, float], measure: str, before: Mapping[str, float] | None) -> str:
    value = values[measure]
    if before is None:
        return f"{value:.4f}"
    change = f"{value - before[measure]:+.4f}" if measure in before else _NOT_MEASURED
    return f"{value:.4f} ({change})"
