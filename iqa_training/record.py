"""Record a run's validations: the best one so far, and whether to continue."""
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iqa_runtime.errors import UserError
from IQAperformance import CRITERIA

Criteria = Mapping[str, float]  # Performance.criteria of a validation
HEADS = ('', '1', '2')          # suffixes of the criteria, see IQAperformance.Performance


def _merit(name: str, head: str = '') -> Callable[[Criteria], float]:
    return lambda criteria: CRITERIA[name].merit(criteria[name + head])


def _main_score(criteria: Criteria) -> float:
    return _merit('SROCC')(criteria) + _merit('PLCC')(criteria)


# name -> the criteria of a validation -> a number, higher is better
VAL_CRITERIA: dict[str, Callable[[Criteria], float]] = {
    **{name + head: _merit(name, head) for name in CRITERIA for head in HEADS},
    'SROCC+PLCC': _main_score,
    'main_score': _main_score,  # NTIRE's name of the sum
    'loss': lambda criteria: -criteria['loss'],
}


def val_criterion(name: str, heads: int) -> Callable[[Criteria], float]:
    """Return the row of VAL_CRITERIA with a name; UserError if it is of a head that a network of `heads` lacks."""
    needs = 1 + (int(name[-1]) if name[-1] in HEADS[1:] else 0)
    if heads < needs:
        raise UserError(f'--val_criterion {name} needs a network of {needs} heads, and this one has {heads}; expected '
                        f'{name[:-1]}')
    return VAL_CRITERIA[name]


def name_printed(name: str) -> str:
    """Return the name of a criterion as it is printed: correlations between bars, since their magnitude counts.

    >>> name_printed('SROCC+PLCC')
    '|SROCC|+|PLCC|'
    """
    correlations = '|'.join(name for name, criterion in CRITERIA.items() if criterion.correlation)
    return re.sub(rf'(?:{correlations})[12]?', r'|\g<0>|', name)


def value_printed(name: str, value: float | None) -> str:
    """Return the value of a criterion as it is printed: 'none' for None, errors and losses with their own sign."""
    if value is None:
        return 'none'
    criterion = CRITERIA.get(name.rstrip('12'))
    return f'{-value if name == "loss" or (criterion and not criterion.correlation) else value:.4f}'


@dataclass
class Record:
    """The best validation so far; a later one replaces it if it is better, or with `later_wins` if it is as good.

    Attributes:
        criterion: the criteria of a validation -> a number, higher is better (see VAL_CRITERIA).
        patience: validations in a row without improvement after which the run stops; None: never.
        best: the criterion of the best validation; None before the first.
        at, epoch: its iteration and epoch.
        since: validations since then.
    """

    criterion: Callable[[Criteria], float]
    patience: int | None = None
    later_wins: bool = False
    best: float | None = None
    at: int = 0
    epoch: int = 0
    since: int = 0

    def update(self, criteria: Criteria, iteration: int, epoch: int) -> bool:
        """Record the criteria of a validation; return whether it is the best so far."""
        value = self.criterion(criteria)
        if not self.improves(value):
            self.since += 1
            return False
        self.best, self.at, self.epoch, self.since = None if math.isnan(value) else value, iteration, epoch, 0
        return True

    def improves(self, value: float) -> bool:
        """Return whether a criterion is better than the best so far; nan is worse than any number."""
        if not self.epoch:
            return True
        if math.isnan(value):
            return False
        return self.best is None or value > self.best or (self.later_wins and value == self.best)

    @property
    def exhausted(self) -> bool:
        """Return whether the patience has run out."""
        return self.patience is not None and self.since >= self.patience

    def state(self) -> dict:
        """Return the record as plain values for a state."""
        return {'best': self.best, 'at': self.at, 'epoch': self.epoch, 'since': self.since}

    def restore(self, state: dict) -> None:
        """Restore the record from a value of `state`."""
        self.best, self.at, self.epoch, self.since = (state[name] for name in ('best', 'at', 'epoch', 'since'))
