"""Choose options of a setting by validation: one run of each value on the first split, and the best is used on all."""
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from iqa_results.read import read_summary
from iqa_studies.cells import Cell
from iqa_training.record import VAL_CRITERIA, name_printed, value_printed


@dataclass(frozen=True)
class Choice:
    """The values that were tried for a setting on a data set, by label.

    Attributes:
        trials: the run of each value.
        found: criterion of its best epoch on the validation images, higher is better; of the runs that are done.
        criterion: its name, a row of VAL_CRITERIA.
    """

    setting: str
    trained_on: str
    trials: Mapping[str, Cell]
    found: Mapping[str, float]
    criterion: str

    @property
    def best(self) -> str | None:
        """Return the label of the best value, the first of equals; None if none is defined."""
        defined = [label for label, value in self.found.items() if math.isfinite(value)]
        return max(defined, key=self.found.get, default=None)

    def complete(self) -> bool:
        """Return whether all values have been tried."""
        return len(self.found) == len(self.trials)

    def row(self) -> list[str]:
        """Return the words of a table: data set, setting, criterion, chosen value, and the criterion of each value."""
        values = [value_printed(self.criterion, self.found[label]) if label in self.found else 'failed'
                  for label in self.trials]
        at_end = self.best in (next(iter(self.trials)), next(reversed(self.trials)))
        chosen = f'{self.best or "none"}{" (an end)" * (at_end and len(self.trials) > 1)}'
        return [self.trained_on, self.setting, name_printed(self.criterion), chosen, *values]


def choice_of(trials: Mapping[str, Cell]) -> Choice:
    """Return the choice among trials of one setting: label of the value -> run."""
    first = next(iter(trials.values()))
    name = first.options['val_criterion']
    found = {label: fmean(VAL_CRITERIA[name](read_summary(result)['val']) for result in cell.results.values())
             for label, cell in trials.items() if all(result.exists() for result in cell.results.values())}
    return Choice(first.setting, first.trained_on, trials, found, name)
