"""What a run costs: multiply-accumulate operations of an image, and the time of its training."""
import math
from contextlib import suppress

import numpy as np

from iqa_runtime.errors import UserError
from iqa_studies.outcome import Outcome
from iqa_training.scalars import read_scalars


def macs(outcome: Outcome) -> float:
    """Return the multiply-accumulate operations of scoring one image, of the size that its checkpoint says.

    Counted by torch.utils.flop_counter on tensors without memory; nan if the checkpoint cannot be built, or if its
    images keep their own sizes.
    """
    import torch  # slow to import
    from torch.utils.flop_counter import FlopCounterMode

    from iqa_networks.svd_layers import unfactored
    from iqa_runtime.checkpoint import load_checkpoint
    from iqa_scoring.scorer import restore
    if outcome.checkpoint is None or not outcome.checkpoint.exists():
        return math.nan
    with suppress(UserError):
        checkpoint = load_checkpoint(outcome.checkpoint)
        network = unfactored(restore(checkpoint, outcome.checkpoint)).eval()
        given = checkpoint.get('input', {}).get('preprocessing', {})
        size = [network.side] * 2 if network.side else given.get('resize') or given.get('first_resize')
        if size:
            images = [torch.zeros(1, 3, *size, device='meta')] * network.inputs
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network.to('meta')(*images)
            return counter.get_total_flops() / 2
    return math.nan


def seconds_per_image(outcome: Outcome) -> float:
    """Return the median time of a training step over the batch size, by the times in the run's log; nan without it."""
    if outcome.log is None or 'batch_size' not in outcome.options:
        return math.nan
    with suppress(UserError):
        steps = read_scalars(outcome.log).get('train/loss', [])
        if len(steps) > 1:
            return float(np.median(np.diff([time for time, *_ in steps]))) / outcome.options['batch_size']
    return math.nan
