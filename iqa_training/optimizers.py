"""Optimizers and what they train."""
import torch
from torch import nn

from iqa_runtime.options import Options

OPTIMIZERS = {'adam': torch.optim.Adam, 'sgd': torch.optim.SGD, 'adadelta': torch.optim.Adadelta}


def build_optimizer(args: Options, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a network that the options ask for; see `parameter_groups`."""
    groups = parameter_groups(model, args.learning_rate, args.ft_lr_ratio)
    return OPTIMIZERS[args.optimizer](groups, lr=args.learning_rate, weight_decay=args.weight_decay)


def parameter_groups(model: nn.Module, lr: float, ft_lr_ratio: float) -> list[dict]:
    """Return the backbone's parameters at `ft_lr_ratio` times `lr`, all others at `lr`; a ratio of 0 freezes it."""
    backbone = set(model.backbone.parameters()) if model.backbone is not None else set()
    if ft_lr_ratio == 0:
        for parameter in backbone:
            parameter.requires_grad_(False)
    groups = [{'params': [p for p in model.parameters() if p not in backbone], 'lr': lr}]
    if backbone and ft_lr_ratio != 0:
        groups.append({'params': list(model.backbone.parameters()), 'lr': lr * ft_lr_ratio})
    return groups
