"""Build optimizers and the groups of parameters that they train."""
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError
from iqa_runtime.option_types import Positive, Share
from iqa_runtime.options import Options
from iqa_training import OPTIMIZERS, optimizer
from iqa_training.freezing import freeze, frozen_summary

if TYPE_CHECKING:  # torch is slow to import, and the name of an optimizer is checked without it
    from torch import Tensor
    from torch.optim import Optimizer

    from iqa_networks.network import Network


@optimizer('adam')
def adam(groups: list[dict], lr: float, weight_decay: float, adam_eps: Positive = 1e-8) -> 'Optimizer':
    """Build torch's Adam.

    Args:
        adam_eps: epsilon of adam, adamw and adam-keras (default: 1e-8; adam-keras: 1e-7).
    """
    from torch.optim import Adam
    return Adam(groups, lr=lr, weight_decay=weight_decay, eps=adam_eps)


@optimizer('adam-keras')
def adam_keras(groups: list[dict], lr: float, weight_decay: float, adam_eps: Positive = 1e-7) -> 'Optimizer':
    """Build Adam as Keras computes it."""
    from iqa_training.updates import KerasAdam
    return KerasAdam(groups, lr=lr, weight_decay=weight_decay, eps=adam_eps)


@optimizer('adamw', decays=.01)
def adamw(groups: list[dict], lr: float, weight_decay: float, adam_eps: Positive = 1e-8) -> 'Optimizer':
    """Build torch's AdamW."""
    from torch.optim import AdamW
    return AdamW(groups, lr=lr, weight_decay=weight_decay, eps=adam_eps)


@optimizer('sgd')
def sgd(groups: list[dict], lr: float, weight_decay: float, momentum: Share = 0.) -> 'Optimizer':
    """Build torch's SGD.

    Args:
        momentum: momentum of sgd.
    """
    from torch.optim import SGD
    return SGD(groups, lr=lr, weight_decay=weight_decay, momentum=momentum)


@optimizer('adadelta')
def adadelta(groups: list[dict], lr: float, weight_decay: float) -> 'Optimizer':
    """Build torch's Adadelta."""
    from torch.optim import Adadelta
    return Adadelta(groups, lr=lr, weight_decay=weight_decay)


def check_optimizer(args: Options) -> Options:
    """Return the options with the optimizer's own weight decay if the user gave none."""
    own = OPTIMIZERS[args.optimizer].decays
    if not own or args.weight_decay:
        return args
    if 'weight_decay' in args.given:
        raise UserError(f'--optimizer {args.optimizer} --weight_decay 0 is the same as --optimizer adam: give that')
    return args.having(weight_decay=own)


def build_optimizer(args: Options, model: 'Network') -> 'Optimizer':
    """Return the optimizer of a network by the options, after freezing the parameters that --freeze names."""
    if model.backbone is None and 'ft_lr_ratio' in args.typed:
        print(f'WARNING: {args.architecture} has no backbone, so that --ft_lr_ratio has no effect')
    frozen = freeze(model, args.freeze) if args.freeze else ()
    groups = parameter_groups(model, args.learning_rate, args.ft_lr_ratio, frozen)
    if frozen:
        print(frozen_summary(model, frozen))
    made = OPTIMIZERS[args.optimizer].build(groups, args.learning_rate, args.weight_decay,
                                            **OPTIMIZERS.arguments(args.optimizer, args.values))
    if args.clip_grad:
        clip_gradients(made, args.clip_grad)
    return made


def parameter_groups(model: 'Network', lr: float, ft_lr_ratio: float, frozen: 'Collection[Tensor]' = ()) -> list[dict]:
    """Return groups of the backbone's parameters at `ft_lr_ratio` times `lr` and of all others at `lr`.

    Parameters in `frozen` are left out; a ratio of 0 freezes the backbone. Raises UserError if no parameter is left.
    """
    others, backbone = ([p for p in part if p not in frozen] for part in heads_and_backbone(model))
    if ft_lr_ratio == 0:
        for parameter in backbone:
            parameter.requires_grad_(False)
        backbone = []
    groups = [{'params': others, 'lr': lr}, {'params': backbone, 'lr': lr * ft_lr_ratio}]
    if not any(parameter.requires_grad for group in groups for parameter in group['params']):
        raise UserError('--freeze, --ft_lr_ratio: no parameter is left to train')
    return [group for group in groups if group['params']]


def heads_and_backbone(model: 'Network') -> 'tuple[list[Tensor], list[Tensor]]':
    """Return all parameters outside the backbone, and those of the backbone; no parameter is in both."""
    backbone = list(model.backbone.parameters()) if model.backbone is not None else []
    inside = set(backbone)
    return [parameter for parameter in model.parameters() if parameter not in inside], backbone


def hyperiqa_groups(net: 'Network') -> 'tuple[list[Tensor], list[Tensor]]':
    """Return the parameters of HyperIQA's hyper network, and those of its backbone with the local distortion module.

    The published code gives each a learning rate of its own: see iqa_training.schedules.hyperiqa_rates.
    """
    return heads_and_backbone(net)


def clip_gradients(optimizer: 'Optimizer', norm: float) -> None:
    """Clip the gradient to a norm before each step of the optimizer.

    The norm is that of the gradients of all parameters together. At that point the gradient is complete: accumulated
    over its batches, averaged over the processes, and unscaled, since GradScaler does so before it calls the optimizer.
    """
    from torch.nn.utils import clip_grad_norm_

    def clip(optimizer: 'Optimizer', *_) -> None:
        clip_grad_norm_([parameter for group in optimizer.param_groups for parameter in group['params']], norm)
    optimizer.register_step_pre_hook(clip)


def forget(optimizer: 'Optimizer') -> None:
    """Clear the optimizer's state, such as moments and step counts, so that it continues like a new one."""
    optimizer.state.clear()


# Penalty of the weights

def l2_penalty(net: 'Network', dense: float, conv: float) -> 'Tensor':
    """Return dense sum(W^2) + conv sum(W^2), over the weights of the network's `l2_layers`; a scalar >= 0.

    As in Keras, there is no factor of 1/2, biases are not included, and a layer that sees two images is counted once.
    """
    weights = dict(net.named_parameters())
    return sum(decay / 2 * weights[name].square().sum() for name, decay in weight_decays(net, dense, conv).items())


def weight_decays(net: 'Network', dense: float, conv: float) -> dict[str, float]:
    """Return {parameter name: weight decay} with the gradient of `l2_penalty`: twice its factor."""
    factors = {'dense': dense, 'conv': conv}
    return {f'{layer}.weight': 2 * factors[kind] for kind, layers in net.l2_layers.items() for layer in layers}


def build_penalty(args: Options, net: 'Network') -> 'Callable[[], Tensor] | None':
    """Return the penalty of --l2 as a term for IQALoss; None without --l2."""
    if not any(args.l2):
        return None
    if not net.l2_layers:
        raise UserError(f'--l2: {args.architecture} declares no layers for this penalty; --weight_decay applies to all '
                        'layers')
    from iqa_runtime.distributed import shared_gradient  # it imports torch
    return lambda: shared_gradient(l2_penalty(net, *args.l2))
