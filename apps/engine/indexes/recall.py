"""What a search has to look at for a share of the true neighbours: `search_params: {"recall": 0.99}`.

A trial at build asks for the neighbours of queries made from the rows (`calibration`) with more and more effort.
Queries to come are further from the rows than these, and miss about twice as many neighbours; so for each target the
cheapest effort is kept that misses half as many as the target allows. Between targets, efforts are interpolated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from apps.engine.indexes.base import Parameter
from apps.engine.indexes.calibration import Calibration

TARGETS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
RECALL = Parameter(
    "recall",
    TARGETS[0],
    TARGETS[-1],
    "none: the defaults of the others",
    "the share of the true neighbours to find, in the mean of queries like the rows; a trial at build says what the "
    "other parameters are then",
    whole=False,
)
_MARGIN = 2.0
# Of a trial that need not be made longer: what the highest target asks for.
ENOUGH = 1.0 - (1.0 - TARGETS[-1]) / _MARGIN


class Trial(NamedTuple):
    """A search with the parameters `values` found `recall` of the true neighbours, for `cost` in any unit."""

    recall: float
    cost: float
    values: Mapping[str, int]


@dataclass(frozen=True)
class RecallCurve:
    """The search parameters for the recall of each of `targets`, which ascend: `values` has a number for each."""

    targets: Sequence[float]
    values: Mapping[str, Sequence[int]]

    @classmethod
    def fit(cls, trials: Iterable[Trial]) -> Self:
        """The curve of some trials, at least one. It ends with the first target that none reaches, for which it has the
        trial that found most."""
        trials = sorted(trials, key=lambda trial: trial.cost)
        targets, chosen = [], []
        for target in TARGETS:
            enough = [trial for trial in trials if trial.recall >= 1.0 - (1.0 - target) / _MARGIN]
            targets.append(target)
            chosen.append(enough[0] if enough else max(trials, key=lambda trial: trial.recall))
            if not enough:
                break
        names = trials[0].values
        return cls(targets, {name: [trial.values[name] for trial in chosen] for name in names})

    @classmethod
    def parse(cls, value: Any, names: Iterable[str]) -> Self:
        """The curve that `as_dict` made `value` of; raises ValueError for anything else."""
        try:
            targets = [float(one) for one in value["targets"]]
            values = {name: [int(one) for one in value["values"][name]] for name in names}
        except (KeyError, TypeError) as error:
            raise ValueError(f"there is no curve of recall: {error!r}") from None
        fits = all(len(numbers) == len(targets) and min(numbers) >= 1 for numbers in values.values() if targets)
        if not targets or not fits or sorted(targets) != targets or not 0.0 < targets[0] <= targets[-1] < 1.0:
            raise ValueError("a curve of recall has other numbers")
        return cls(targets, values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def at(self, target: float, k: int, growth: Mapping[str, float]) -> dict[str, int]:
        """The parameters for a recall of `target` among the `k` best, each of which grows by a power of k."""
        times = max(1.0, k / Calibration.k)
        place = -np.log1p(-np.asarray([target, *self.targets]))
        return {
            name: round(float(np.exp(np.interp(place[0], place[1:], np.log(numbers)))) * times ** growth[name])
            for name, numbers in self.values.items()
        }
