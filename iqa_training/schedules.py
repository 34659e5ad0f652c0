"""Schedules of the learning rate."""
import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from iqa_runtime.options import Options


def lr_decay_step(epochs: int, lr_decay: float, overall_lr_decay: float) -> int:
    """Epochs between two decays, at least 1: int(epochs / (1 + log(overall_lr_decay) / log(lr_decay)))."""
    if lr_decay == 1:  # no decay at all
        return epochs
    return max(1, int(epochs / (1 + math.log(overall_lr_decay) / math.log(lr_decay))))


def build_schedule(args: Options, optimizer: torch.optim.Optimizer, epoch_length: int) -> LambdaLR:
    """Return the schedule of the learning rate that the options ask for."""
    every = lr_decay_step(args.epochs, args.lr_decay, args.overall_lr_decay)
    schedule = LambdaLR(optimizer, lambda epoch: args.lr_decay ** (epoch // every))
    schedule.unit = 'epoch'
    return schedule
