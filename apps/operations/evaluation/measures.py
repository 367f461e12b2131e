"""Measures of rankings against grades. They are those of trec_eval, the program of the TREC conferences, which
`pytrec_eval` runs in this process: gains of nDCG are the grades themselves, discounted by log2(rank + 1)."""

import re
from collections.abc import Mapping, Sequence

from apps.operations.evaluation.judgements import Judgement

# For rankings without a cut, such as that of MRR.
_LEAST_DEPTH = 10
_NAME = re.compile(r"(ndcg|recall|precision|map)@([1-9][0-9]{0,3})|mrr")
_OF_TREC = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "map": "map_cut"}

DEFAULT_MEASURES = ("ndcg@10", "recall@10", "recall@100", "mrr")


def is_measure(name: str) -> bool:
    """Whether there is such a measure."""
    return _NAME.fullmatch(name) is not None


def depth_of(measures: Sequence[str]) -> int:
    """How many results the measures look at."""
    return max([_LEAST_DEPTH, *(int(name.partition("@")[2] or 0) for name in measures)])


def evaluate(
    judgements: Sequence[Judgement], rankings: Sequence[Sequence[str]], measures: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By query the value of each measure; `rankings` are the ids that were found for each query, best first."""
    # Installed by those who evaluate; the command looks for it first.
    import pytrec_eval

    names = {measure: _name_of_trec(measure) for measure in measures}
    grades = {one.id: dict(one.grades) for one in judgements}
    # By score: ties would be in another order than the answer's.
    runs = {
        one.id: {found: float(-rank) for rank, found in enumerate(ranking)}
        for one, ranking in zip(judgements, rankings, strict=True)
    }
    values = pytrec_eval.RelevanceEvaluator(grades, set(names.values())).evaluate(runs)
    return {
        query: {measure: float(of_query[name.replace(".", "_")]) for measure, name in names.items()}
        for query, of_query in values.items()
    }


def mean(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over all queries."""
    queries = list(values.values())
    return {measure: sum(one[measure] for one in queries) / len(queries) for measure in queries[0]}


def _name_of_trec(measure: str) -> str:
    kind, _, cut = measure.partition("@")
    return f"{_OF_TREC[kind]}.{cut}" if cut else "recip_rank"
