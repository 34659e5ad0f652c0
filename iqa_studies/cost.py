"""What a run costs: multiply-accumulate operations of an image, and the time of its training."""
import math
from contextlib import suppress
from pathlib import Path

import numpy as np

from iqa_data.datasets import DATASETS, sets_of
from iqa_data.transforms import Preprocess
from iqa_results.curves import read_scalars
from iqa_runtime.errors import UserError
from iqa_studies.outcome import Outcome


def macs(outcome: Outcome) -> float:
    """Return the multiply-accumulate operations of scoring one image; nan if checkpoint or images are not there.

    Counted on tensors without memory. The image has the size that the checkpoint brings all
    to, or else that of the first one tested; if images are scored by crops, all crops of one are counted.
    """
    from iqa_networks.adapted_layers import merged  # slow to import: torch
    from iqa_networks.size import macs as macs_of
    from iqa_runtime.checkpoint import load_checkpoint
    from iqa_scoring.restore import restore_network
    if outcome.checkpoint is None or not outcome.checkpoint.exists():
        return math.nan
    with suppress(UserError):
        checkpoint = load_checkpoint(outcome.checkpoint)
        network = merged(restore_network(checkpoint, outcome.checkpoint)).eval()
        preprocess = Preprocess(**checkpoint.get('input', {}).get('preprocessing', {}))
        image = folder_of(outcome) / outcome.predictions().image[0]
        crops = checkpoint.get('crops', {'count': 1, 'size': None})
        size = crops['size'] or ([network.side] * 2 if network.side else preprocess.resize)
        size = size or (preprocess.size(image) if image.is_file() else None)
        if size:
            return macs_of(network.to('meta'), size) * crops['count']
    return math.nan


def folder_of(outcome: Outcome) -> Path:
    """Return the folder of the tested images: the data set's own, or that of the info file that was trained on."""
    if outcome.tested_on in DATASETS:
        return Path(DATASETS[outcome.tested_on].im_dir)
    return Path(sets_of(str(outcome.options.get('dataset', '')))[0]).parent


def validation(log: Path | None) -> np.ndarray:
    """Return steps and validation SROCC, (n, 2), of a run's log; none without a log.

    Of several sets that were trained on at once, the mean of the SROCC, as it chooses the epoch.
    """
    with suppress(UserError):
        scalars = read_scalars(log) if log else {}
        sets = [rows for tag, rows in scalars.items() if tag.startswith('val/') and tag.endswith('/SROCC')]
        if sets:
            return np.mean([[row[1:] for row in rows] for rows in sets], 0, dtype=float)
    return np.empty((0, 2))


def epochs_to(curve: np.ndarray, share: float) -> float:
    """Return the epochs after which the SROCC of a curve (n, 2) first is a share of that after the last; nan if n = 0.
    """
    if not len(curve):
        return math.nan
    good = np.abs(curve[:, 1]) >= share * abs(curve[-1, 1])
    return float(curve[np.argmax(good), 0]) if good.any() else math.nan


def seconds_per_image(outcome: Outcome) -> float:
    """Return the median time of a training step over the batch size, by the times in the run's log; nan without it."""
    if outcome.log is None or 'batch_size' not in outcome.options:
        return math.nan
    with suppress(UserError):
        steps = read_scalars(outcome.log).get('train/loss', [])
        if len(steps) > 1:
            return float(np.median(np.diff([time for time, *_ in steps]))) / outcome.options['batch_size']
    return math.nan
