"""Read the scalars of a run from its TensorBoard log."""
from pathlib import Path

from iqa_runtime.errors import UserError


def read_scalars(run_dir: str | Path) -> dict[str, list[tuple[float, int, float]]]:
    """Read a run's scalars: {tag: [(wall time, step, value), ...]}, steps increasing.

    If a step was written twice, as by a run that was resumed, the later writing counts.
    """
    if not any(Path(run_dir).glob('*tfevents*')):
        raise UserError(f'{run_dir}: no TensorBoard event file in it')
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator  # slow to import
    try:
        events = EventAccumulator(str(run_dir), size_guidance={SCALARS: 0}).Reload()
    except Exception as error:  # TensorBoard raises many kinds on a broken file
        raise UserError(f'{run_dir}: its event file cannot be read ({type(error).__name__}: {error})') from None
    curves = {}
    for tag in events.Tags()[SCALARS]:
        latest = {event.step: event for event in sorted(events.Scalars(tag), key=lambda event: event.wall_time)}
        curves[tag] = [(event.wall_time, step, event.value) for step, event in sorted(latest.items())]
    return curves
