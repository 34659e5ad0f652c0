"""Schedules of the learning rate: functions of the steps done -> factor of the learning rate."""
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError, pick
from iqa_runtime.option_types import Count, Decay, Epochs, Positive, RatesName, Weight, Whole
from iqa_runtime.options import Options
from iqa_training import SCHEDULES, schedule

if TYPE_CHECKING:  # torch is slow to import, and a name of a schedule is checked without it
    from torch.optim import Optimizer

    from iqa_training.rates import Schedule

Factor = Callable[[int], float]


def lr_decay_step(epochs: int, lr_decay: float, overall_lr_decay: float) -> int:
    """Return the epochs between two decays, at least 1: int(epochs / (1 + log(overall_lr_decay) / log(lr_decay)))."""
    if lr_decay == 1:  # no decay at all
        return epochs
    return max(1, int(epochs / (1 + math.log(overall_lr_decay) / math.log(lr_decay))))


def step(drop: float, every: int) -> Factor:
    """Return drop^floor(e / every), as torch's StepLR: the schedule of LinearityIQA."""
    return lambda done: drop ** (done // every)


def step_decay(drop: float, every: int) -> Factor:
    """Return drop^floor((1 + e) / every): `step`, one epoch early; the schedule of ASNA.

    >>> print(*map(step_decay(.5, 10), (0, 8, 9, 18, 19)))
    1.0 1.0 0.5 0.5 0.25
    """
    return lambda done: drop ** ((1 + done) // every)


def multistep(gamma: float, milestones: Sequence[int]) -> Factor:
    """Return gamma^(milestones that are reached), as torch's MultiStepLR."""
    ascending = sorted(milestones)
    return lambda done: gamma ** bisect_right(ascending, done)


def cosine_warmup_restarts(first_cycle_steps: int, max_lr: float, min_lr: float = 0., warmup_steps: int = 0,
                           cycle_mult: float = 1., gamma: float = 1.) -> Factor:
    """Return cycles of a linear rise and a fall along half a cosine; the schedule of the MANIQA ensemble.

    In cycle c of length n, with peak M = max_lr gamma^c and w = warmup_steps, the learning rate after t steps is

        min_lr + (M - min_lr) t / w                                         for t < w
        min_lr + (M - min_lr) (1 + cos(pi (t - w) / (n - w))) / 2           from there on

    Args:
        first_cycle_steps: steps of the first cycle, more than `warmup_steps`.
        max_lr: the peak of the first cycle; the factor is the learning rate divided by it.
        min_lr: the learning rate at the beginning and end of a cycle; without warm-up, a cycle begins at its peak.
        warmup_steps: steps of the rise.
        cycle_mult: factor of the length of the fall from cycle to cycle; the product is rounded down.
        gamma: factor of the peak from cycle to cycle.

    Raises ValueError if the rise is as long as the first cycle or longer.
    """
    if not 0 <= warmup_steps < first_cycle_steps:
        raise ValueError(f'{warmup_steps} steps of warm-up in a first cycle of {first_cycle_steps}: expected fewer')

    def factor(done: int) -> float:
        cycle, length = 0, first_cycle_steps
        while done >= length:
            done, cycle = done - length, cycle + 1
            length = max(1, int((length - warmup_steps) * cycle_mult) + warmup_steps)
        height = max_lr * gamma ** cycle - min_lr
        if done < warmup_steps:
            return (min_lr + height * done / warmup_steps) / max_lr
        turn = math.pi * (done - warmup_steps) / (length - warmup_steps)
        return (min_lr + height * (1 + math.cos(turn)) / 2) / max_lr
    return factor


# variant -> epoch, from 0 -> learning rates of the hyper network (None: it is not trained) and of the rest
HYPERIQA_RATES: dict[str, Callable[[int], tuple[float | None, float]]] = {
    'published_intended': lambda epoch: (_published_hyper_rate(epoch), 2e-5),
    'published_as_run': lambda epoch: (None if epoch else 2e-4, 2e-5),
    'paper': lambda epoch: (2e-4 / 10 ** (epoch // 5), 2e-5 / 10 ** (epoch // 5)),
}


def hyperiqa_rates(variant: str, epoch: int) -> tuple[float | None, float]:
    """Return the learning rates of HyperIQA's hyper network, and of its backbone with the local distortion module.

    >>> hyperiqa_rates('paper', 0), hyperiqa_rates('published_as_run', 1)
    ((0.0002, 2e-05), (None, 2e-05))

    Args:
        variant: published_intended: the rates of the authors' code, 16 epochs; published_as_run: the rates of that code
            as it runs, which by mistake passes the hyper network to the first epoch's optimizer only, so that it is not
            trained afterwards (None); paper: the rates in the paper, 15 epochs.
        epoch: from 0.
    """
    return HYPERIQA_RATES[pick(HYPERIQA_RATES, variant, 'variant of rates')](epoch)


def _published_hyper_rate(epoch: int) -> float:
    """Return 2e-5 r / 10^floor(t / 6), as it is set after epoch t = `epoch` - 1, with r = 10, and 1 from t = 9 on."""
    ratio = 10 if epoch < 10 else 1
    return 2e-5 / 10 ** (max(epoch - 1, 0) // 6) * ratio


def warmed(factor: Factor, steps: int) -> Factor:
    """Return the factor with a linear warm-up: it is multiplied by (t + 1) / steps in step t of the first `steps`."""
    return lambda done: factor(done) * min(1., (done + 1) / steps)


@dataclass(frozen=True)
class Extent:
    """The length of a run in epochs and in iterations (batches), and the `learning_rate` of the heads."""

    epochs: int
    iterations: int
    learning_rate: float


@schedule('step')
def _step(run: Extent, lr_decay: Decay = .1, overall_lr_decay: Decay = .01, decay_every: Count | None = None) -> Factor:
    """Decay at regular intervals.

    Args:
        lr_decay: factor of the learning rate at each decay.
        overall_lr_decay: factor of the learning rate over all epochs.
        decay_every: epochs between decays (default: step: from --overall_lr_decay; step_decay: 10).
    """
    return step(lr_decay, decay_every or lr_decay_step(run.epochs, lr_decay, overall_lr_decay))


@schedule('multistep')
def _multistep(run: Extent, milestones: Epochs = (), sched_gamma: Positive = .1) -> Factor:
    """Decay after the epochs of --milestones.

    Args:
        milestones: epochs after which the learning rate decays.
        sched_gamma: factor at each milestone, or of the peak from cycle to cycle (default: .1, or 1).
    """
    return multistep(sched_gamma, milestones)


@schedule('step_decay')
def _step_decay(run: Extent, lr_decay: Decay = .1, decay_every: Count = 10) -> Factor:
    """Decay at regular intervals, the first one epoch early."""
    return step_decay(lr_decay, decay_every)


@schedule('cosine_warmup_restarts', unit='iteration')
def _cosine_warmup_restarts(run: Extent, first_cycle_steps: Count | None = None, warmup_steps: Whole = 0,
                            cycle_mult: Positive = 1., min_lr: Weight = 0., sched_gamma: Positive = 1.) -> Factor:
    """Repeat cycles of a rise and half a cosine.

    Args:
        first_cycle_steps: iterations of the first cycle (default: the whole run).
        warmup_steps: iterations of the rise in each cycle.
        cycle_mult: growth of the cycles.
        min_lr: lowest learning rate.
    """
    return cosine_warmup_restarts(first_cycle_steps or run.iterations, run.learning_rate, min_lr, warmup_steps,
                                  cycle_mult, sched_gamma)


@schedule('cosine', unit='iteration')
def _cosine(run: Extent, min_lr: Weight = 0.) -> Factor:
    """Fall along half a cosine over the run."""
    return cosine_warmup_restarts(run.iterations, run.learning_rate, min_lr)


@schedule('constant')
def _constant(run: Extent) -> Factor:
    """Keep the learning rate constant."""
    return lambda done: 1.


@schedule('hyperiqa')
def _hyperiqa(run: Extent, rates: RatesName = 'published_intended') -> tuple[Factor, Factor]:
    """Follow the rates published for HyperIQA's backbone and for its other parameters.

    Args:
        rates: published_intended; published_as_run, which trains only the backbone after the first epoch; or paper;
            relative to the rates of the first epoch, -lr 2e-4 -flr .1.
    """
    first = hyperiqa_rates(rates, 0)
    return tuple(lambda done, part=part: (hyperiqa_rates(rates, done)[part] or 0.) / first[part] for part in (0, 1))


def check_schedule(args: Options) -> None:
    """Raise UserError if options of the schedule contradict each other."""
    if args.schedule == 'multistep' and not args.milestones:
        raise UserError('--schedule multistep needs --milestones, the epochs after which the learning rate falls')
    if args.first_cycle_steps and args.warmup_steps >= args.first_cycle_steps:
        raise UserError(f'--warmup_steps {args.warmup_steps}: expected fewer than --first_cycle_steps '
                        f'{args.first_cycle_steps}')
    if args.warmup and args.warmup_epochs:
        raise UserError('--warmup counts iterations and --warmup_epochs epochs: give one of them')
    if args.min_lr > args.learning_rate:
        raise UserError(f'--min_lr {args.min_lr:g} is above --learning_rate {args.learning_rate:g}')


def build_schedule(args: Options, optimizer: 'Optimizer', epoch_length: int) -> 'Schedule':
    """Return the schedule by the options; its `unit` says whether it steps after each epoch or each iteration.

    `epoch_length`: iterations in an epoch. With a warm-up, every schedule steps by iteration.
    """
    from iqa_training.rates import Schedule
    row = SCHEDULES[args.schedule]
    try:
        made = row.build(Extent(args.epochs, args.epochs * epoch_length, args.learning_rate),
                         **SCHEDULES.arguments(args.schedule, args.values))
    except ValueError as error:
        raise UserError(f'--schedule {args.schedule}: {error}') from None
    groups = len(optimizer.param_groups)
    factors = made if isinstance(made, tuple) else (made,) * groups
    if len(factors) != groups:
        raise UserError(f'--schedule {args.schedule} sets one learning rate for the backbone and one for the rest: '
                        f'{args.architecture} needs a backbone, and neither part may be frozen')
    unit = row.unit
    warmup = args.warmup or args.warmup_epochs * epoch_length
    if warmup:
        per_step = epoch_length if unit == 'epoch' else 1
        factors = [warmed(lambda done, factor=factor: factor(done // per_step), warmup) for factor in factors]
        unit = 'iteration'
    return Schedule(optimizer, factors, unit)
