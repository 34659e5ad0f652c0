"""Optimizers and what they train."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError
from iqa_runtime.options import Options, look_up

if TYPE_CHECKING:  # torch is slow to import, and the name of an optimizer is checked without it
    from torch import nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Row:
    """A row of OPTIMIZERS.

    Attributes:
        build: 'module:CLASS' of the torch optimizer.
        options: name of an option -> the keyword of the class that it is handed to; None is not handed on.
        weight_decay: that of a user who gives none.
    """

    build: str
    options: Mapping[str, str]
    weight_decay: float = 0.


ADAM = {'weight_decay': 'weight_decay', 'adam_eps': 'eps'}

OPTIMIZERS = {
    'adam': Row('torch.optim:Adam', ADAM),
    'adamw': Row('torch.optim:AdamW', ADAM, weight_decay=.01),
    'sgd': Row('torch.optim:SGD', {'weight_decay': 'weight_decay', 'momentum': 'momentum'}),
    'adadelta': Row('torch.optim:Adadelta', {'weight_decay': 'weight_decay'}),
}


def check_optimizer(args: Options) -> Options:
    """Return the options with the optimizer's own weight decay if the user gave none.

    Raises UserError if the user gave an option that the optimizer does not take.
    """
    row = OPTIMIZERS[args.optimizer]
    of_others = {option for other in OPTIMIZERS.values() for option in other.options} - set(row.options)
    for option in sorted(of_others & args.given):
        raise UserError(f'--{option}: --optimizer {args.optimizer} takes no such option; it takes: '
                        f'{", ".join(row.options)}')
    if not row.weight_decay or args.weight_decay:
        return args
    if 'weight_decay' in args.given:
        raise UserError(f'--optimizer {args.optimizer} --weight_decay 0 is what --optimizer adam does: give that')
    return args.having(weight_decay=row.weight_decay)


def build_optimizer(args: Options, model: 'nn.Module') -> 'Optimizer':
    """Return the optimizer of a network that the options ask for; see `parameter_groups`."""
    row = OPTIMIZERS[args.optimizer]
    values = {keyword: getattr(args, option) for option, keyword in row.options.items()}
    settings = {keyword: value for keyword, value in values.items() if value is not None}
    return look_up(row.build)(parameter_groups(model, args.learning_rate, args.ft_lr_ratio), lr=args.learning_rate,
                              **settings)


def parameter_groups(model: 'nn.Module', lr: float, ft_lr_ratio: float) -> list[dict]:
    """Return the backbone's parameters at `ft_lr_ratio` times `lr`, all others at `lr`; a ratio of 0 freezes it."""
    backbone = set(model.backbone.parameters()) if model.backbone is not None else set()
    if ft_lr_ratio == 0:
        for parameter in backbone:
            parameter.requires_grad_(False)
    groups = [{'params': [p for p in model.parameters() if p not in backbone], 'lr': lr}]
    if backbone and ft_lr_ratio != 0:
        groups.append({'params': list(model.backbone.parameters()), 'lr': lr * ft_lr_ratio})
    return groups
