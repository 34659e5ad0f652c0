"""Read the scalars of a run from its log: TensorBoard's event file, or else scalars.csv."""
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table
from iqa_training.loggers import SCALARS as CSV

Scalars = dict[str, list[tuple[float, int, float]]]  # tag -> (wall time, step, value), steps increasing


def read_scalars(run_dir: str | Path) -> Scalars:
    """Read a run's scalars; if a step was written twice, as by a resumed run, the later value counts.

    Raises UserError if there is no log, or if it cannot be read.
    """
    if any(Path(run_dir).glob('*tfevents*')):
        rows = _of_tensorboard(run_dir)
    elif Path(run_dir, CSV).is_file():
        rows = _of_csv(Path(run_dir, CSV))
    else:
        raise UserError(f'{run_dir}: it holds no TensorBoard event file and no {CSV}')
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
