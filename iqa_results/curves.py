"""Read curves of a criterion over epochs from CSV files, and find their best values."""
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table

HEADER = ['Wall time', 'Step', 'Value']
SCALARS_CSV = 'scalars.csv'  # in the folder of a log
Scalars = dict[str, list[tuple[float, int, float]]]  # tag -> (wall time, step, value), steps increasing


class Curve(NamedTuple):
    """A criterion over epochs: both (n,), n >= 0, all finite. `diverged`: the next value was not finite.

    `band`: the ends of an interval of each value, (2, n), if they are known.
    """

    epochs: np.ndarray
    values: np.ndarray
    diverged: bool = False
    band: np.ndarray | None = None


def read_curve(path: str | Path, command: str = '') -> Curve:
    """Read a curve in TensorBoard's download format (Wall time,Step,Value), up to its first NaN or infinity.

    Raises UserError if the file does not exist (the message then gives the `command` that makes it), if it has other
    columns or no rows, or if a value is not a number or the epochs do not increase.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} not found' + (f'; make it with: {command}' if command else ''))
    table = Table.read(path)
    table.needs(*HEADER)
    if not table.rows:
        raise UserError(f'{path}: a header without rows; a curve needs at least one epoch')
    steps, values = table.numbers('Step'), table.numbers('Value', finite=False)
    falls = np.flatnonzero(np.diff(steps) <= 0)
    if len(falls):
        i = falls[0] + 1
        raise UserError(f'{path} row {table.rows[i]}: step {steps[i]:g} after {steps[i - 1]:g}; steps must increase')
    return as_curve(steps, values)


def as_curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Return the curve of values (n,) at increasing epochs (n,), up to the first value that is NaN or infinite."""
    bad = ~np.isfinite(values)
    end = int(np.argmax(bad)) if bad.any() else len(values)
    return Curve(steps[:end], values[:end], bool(bad.any()))


def direction(metric: str) -> int:
    """Return 1 if a higher value of a criterion is better, -1 if a lower one is."""
    from IQAperformance import CRITERIA  # it imports torch, which is slow and not needed for --help
    return CRITERIA[metric].direction


def first_reaching(curve: Curve, target: float, metric: str) -> float | None:
    """Return the first epoch at which `curve` is at least as good as `target`, or None."""
    good = (curve.values - target) * direction(metric) >= 0
    return float(curve.epochs[np.argmax(good)]) if good.any() else None


def best(curve: Curve, metric: str) -> float:
    """Return the best value of a curve; nan if it is empty."""
    return float((np.max if direction(metric) > 0 else np.min)(curve.values)) if len(curve.values) else math.nan


def last_epoch(*groups: Mapping[str, Curve]) -> float:
    """Return the last epoch of the longest curve; 1 if all are empty."""
    return max((curve.epochs[-1] for curves in groups for curve in curves.values() if len(curve.epochs)), default=1)


# Scalars of a log

def read_scalars(run_dir: str | Path) -> Scalars:
    """Read a run's scalars; if a step was written twice, as by a resumed run, the later value counts.

    Raises UserError if there is no log, or if it cannot be read.
    """
    if any(Path(run_dir).glob('*tfevents*')):
        rows = _of_tensorboard(run_dir)
    elif Path(run_dir, SCALARS_CSV).is_file():
        rows = _of_csv(Path(run_dir, SCALARS_CSV))
    else:
        raise UserError(f'{run_dir}: it holds no TensorBoard event file and no {SCALARS_CSV}')
    curves = {}
    for tag, points in rows.items():
        latest = {step: (seconds, step, value) for seconds, step, value in sorted(points, key=lambda point: point[0])}
        curves[tag] = [latest[step] for step in sorted(latest)]
    return curves


def _of_tensorboard(run_dir: str | Path) -> Scalars:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator  # slow to import
    try:
        events = EventAccumulator(str(run_dir), size_guidance={SCALARS: 0}).Reload()
    except Exception as error:  # TensorBoard raises many kinds on a broken file
        raise UserError(f'{run_dir}: its event file cannot be read ({type(error).__name__}: {error})') from None
    return {tag: [(event.wall_time, event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()[SCALARS]}


def _of_csv(path: Path) -> Scalars:
    table = Table.read(path)
    table.needs('tag', 'step', 'value', 'time')
    rows = zip(table.columns['tag'], table.numbers('time').tolist(), table.numbers('step').tolist(),
               table.numbers('value', finite=False).tolist(), strict=True)
    found: Scalars = {}
    for tag, seconds, step, value in rows:
        found.setdefault(tag, []).append((seconds, int(step), value))
    return found
