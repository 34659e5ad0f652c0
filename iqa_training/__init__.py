"""Train a network: the run, its log, states, schedules, optimizers and names.

A schedule is a function with the decorator `schedule` in schedules.py, an optimizer one with the decorator `optimizer`
in optimizers.py. Their parameters that are options (see iqa_runtime/variants.py) become command-line flags.
"""
from dataclasses import dataclass

from iqa_runtime.variants import Row, Variants


@dataclass(frozen=True)
class Schedule(Row):
    """A row of SCHEDULES: (Extent, options) -> one factor, or two: for the other parameters, and for the backbone.

    `unit` is the unit of a step: 'epoch' or 'iteration'.
    """

    unit: str = 'epoch'


@dataclass(frozen=True)
class Optimizer(Row):
    """A row of OPTIMIZERS: (groups of parameters, lr, weight_decay, options) -> torch's optimizer.

    `decays` is the default weight decay.
    """

    decays: float = 0.


SCHEDULES = Variants('schedule', 'schedule', ['iqa_training/schedules.py'], Schedule)
OPTIMIZERS = Variants('optimizer', 'optimizer', ['iqa_training/optimizers.py'], Optimizer)
schedule, optimizer = SCHEDULES.register, OPTIMIZERS.register
