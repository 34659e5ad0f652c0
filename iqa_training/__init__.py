"""The training run: logs, curves and their figures, states, schedules, optimizers, names.

A schedule is a function under the decorator `schedule` in schedules.py, an optimizer one under `optimizer` in
optimizers.py; those of their parameters that are options (see iqa_runtime/variants.py) are flags of the command line.
"""
from dataclasses import dataclass

from iqa_runtime.variants import Row, Variants


@dataclass(frozen=True)
class Schedule(Row):
    """A row of SCHEDULES: (Extent, options) -> factor, or two: of all else, and of the backbone.

    `unit` is what is counted as a step: 'epoch' or 'iteration'.
    """

    unit: str = 'epoch'


@dataclass(frozen=True)
class Optimizer(Row):
    """A row of OPTIMIZERS: (groups of parameters, lr, weight_decay, options) -> torch's optimizer.

    `decays`: the weight decay of a user who gives none.
    """

    decays: float = 0.


SCHEDULES = Variants('schedule', 'schedule', ['iqa_training/schedules.py'], Schedule)
OPTIMIZERS = Variants('optimizer', 'optimizer', ['iqa_training/optimizers.py'], Optimizer)
schedule, optimizer = SCHEDULES.register, OPTIMIZERS.register
