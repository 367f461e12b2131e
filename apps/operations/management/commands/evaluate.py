"""`manage.py evaluate`: measure how well a library finds what judged queries should find."""

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from apps.embeddings.errors import EmbeddingError
from apps.engine import kernels
from apps.installation import install_command
from apps.operations.evaluation import measures
from apps.operations.evaluation.judgements import InvalidJudgements, example, read_judgements
from apps.operations.evaluation.report import Floor, InvalidReport, Report
from apps.operations.evaluation.runs import (
    MODES,
    InvalidOptions,
    check_mode,
    embed_queries,
    plan_runs,
    possible_modes,
    rank,
    unknown_ids,
)
from apps.operations.management.base import DatabaseCommand, one_sentence_errors


class Command(DatabaseCommand):
    help = (
        "Measure search quality by judged queries, in each mode and with each set of options. The file has a JSON "
        f"object on each line: {example()}. Ends with status 1 where a measure is too low."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", help="id of a library")
        parser.add_argument("judgements", type=Path, help="file of judged queries")
        parser.add_argument(
            "--by", choices=("chunk", "document"), default="chunk", help="what the relevant ids are of (chunk)"
        )
        parser.add_argument(
            "--mode", action="append", choices=MODES, help="a mode, may be repeated; all that are possible by default"
        )
        parser.add_argument(
            "--options",
            action="append",
            default=[],
            type=_options,
            metavar="NAME=JSON",
            help='further fields of queries, as a set with a name: rrf5={"hybrid": {"rrf_k": 5}}; may be repeated',
        )
        parser.add_argument(
            "--measures",
            type=_measures,
            default=list(measures.DEFAULT_MEASURES),
            help=f"of ndcg@K, recall@K, precision@K, map@K and mrr ({','.join(measures.DEFAULT_MEASURES)})",
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to a file")
        parser.add_argument("--compare", type=Path, metavar="FILE", help="show the differences from an earlier report")
        parser.add_argument(
            "--max-drop", type=_number, metavar="X", help="with --compare: fail if a measure is lower by more than X"
        )
        parser.add_argument(
            "--fail-below",
            action="append",
            default=[],
            type=_floor,
            metavar="[RUN:]MEASURE=X",
            help="fail if a measure is below X, in all runs or in one: hybrid:ndcg@10=0.6; may be repeated",
        )

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        if options["max_drop"] is not None and options["compare"] is None:
            raise CommandError("--max-drop needs --compare FILE")
        if find_spec("pytrec_eval") is None:
            raise CommandError(f"evaluate needs pytrec-eval-terrier. Install it: {install_command('evaluate')}")
        kernels.load()
        try:
            earlier = None if options["compare"] is None else Report.load(options["compare"])
            report = self._measure(options)
        except (InvalidJudgements, InvalidOptions, InvalidReport, EmbeddingError) as error:
            raise CommandError(str(error)) from error
        if options["json"] is not None:
            report.save(options["json"])
        self.stdout.write(report.table(earlier))
        if earlier is not None and earlier.query_ids() != report.query_ids():
            self.stderr.write("The earlier report is of other queries, so differences may be theirs.")
        failures = [sentence for floor in options["fail_below"] for sentence in floor.failures(report.runs)]
        if earlier is not None and options["max_drop"] is not None:
            failures += report.drops(earlier, options["max_drop"])
        if failures:
            raise CommandError("\n".join(failures))

    def _measure(self, options: Mapping[str, Any]) -> Report:
        library_id, kind, wanted = options["library"], options["by"], options["measures"]
        judgements = read_judgements(options["judgements"])
        modes = options["mode"] or possible_modes(library_id, judgements)
        runs = plan_runs(modes, dict(options["options"]))
        for mode in dict.fromkeys(run.mode for run in runs):
            check_mode(library_id, judgements, mode)
        if not runs:
            check_mode(library_id, judgements, "lexical")
        _check_floors(options["fail_below"], [run.name for run in runs], wanted)
        if unknown := unknown_ids(library_id, judgements, kind):
            self.stderr.write(f"{len(unknown):,} relevant ids are not in the library, such as {unknown[0]!r}.")
        judgements = embed_queries(library_id, judgements)
        values = {}
        with tqdm(total=len(runs) * len(judgements), desc="queries", disable=None, leave=False) as bar:
            for run in runs:
                rankings: list[list[str]] = []
                for ranking in rank(library_id, judgements, run, measures.depth_of(wanted), kind):
                    rankings.append(ranking)
                    bar.update()
                values[run.name] = measures.evaluate(judgements, rankings, wanted)
        means = {name: measures.mean(of_queries) for name, of_queries in values.items()}
        return Report(library_id, str(options["judgements"]), len(judgements), means, values)


def _check_floors(floors: Sequence[Floor], runs: Sequence[str], wanted: Sequence[str]) -> None:
    for floor in floors:
        if floor.measure not in wanted:
            raise CommandError(f"--fail-below {floor.measure}: is not among --measures {','.join(wanted)}")
        if floor.run is not None and floor.run not in runs:
            raise CommandError(f"--fail-below {floor.run}: there is no such run; there are: {'; '.join(runs)}")


def _options(text: str) -> tuple[str, dict[str, Any]]:
    name, _, fields = text.partition("=")
    try:
        found = orjson.loads(fields)
    except orjson.JSONDecodeError as error:
        raise ArgumentTypeError(f"{text!r} must be a name, = and a JSON object") from error
    if not name or not isinstance(found, dict):
        raise ArgumentTypeError(f"{text!r} must be a name, = and a JSON object")
    return name, found


def _measures(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if not measures.is_measure(name):
            raise ArgumentTypeError(
                f"there is no measure {name!r}; there are ndcg@K, recall@K, precision@K, map@K, mrr"
            )
    return names


def _floor(text: str) -> Floor:
    found = re.fullmatch(r"(?:(.+):)?([^:=]+)=([^=]+)", text)
    if found is None or not measures.is_measure(found[2]):
        raise ArgumentTypeError(f"{text!r} must be a measure, = and a number, such as ndcg@10=0.6")
    return Floor(found[1], found[2], _number(found[3]))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} must be a number") from error
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"{text!r} must be from 0 to 1")
    return number
