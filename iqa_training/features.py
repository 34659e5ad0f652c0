"""Train on pooled features that a frozen trunk computes once for all epochs."""
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from iqa_data import AUGMENTATIONS
from iqa_data.augmentation import FixedAugmentation
from iqa_data.crops import Crops
from iqa_data.features import Features, Items, features_in_memory, features_on_disk
from iqa_data.loaders import Data
from iqa_data.samplers import of_one_size
from iqa_networks import HEADS
from iqa_networks.network import Network
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from iqa_runtime.options import Options
from iqa_training.freezing import named_by
from iqa_training.optimizers import heads_and_backbone
from IQAdataset import IQADataset
from IQAmodel import network_options

AT_ONCE = 2 ** 21  # pixels whose features a CPU computes at once: more are not faster, and take more memory


class OnFeatures(Network):
    """The layers of a network behind its trunk: `forward(*pooled)` returns the heads, each (N, 1).

    Args:
        network: the whole network; its trunk is frozen and not run.
        inputs: number of tensors that `network.pooled` returns.
    """

    def __init__(self, network: Network, inputs: int):
        super().__init__()
        self.network, self.inputs, self.heads, self.distribution = network, inputs, network.heads, network.distribution

    def prepare(self, pooled: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the features on the network's device."""
        like = next(self.parameters())
        return tuple(one.to(like.device, like.dtype, non_blocking=True) for one in pooled)

    def forward(self, *pooled: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores of the heads."""
        return self.network.regress(*pooled)


class PooledDataset(IQADataset):
    """A data set of features instead of images: item i is (pooled features, (mos, std)).

    Args:
        dataset: the images.
        plain: features of the unchanged images.
        changed: features of the variants that a FixedAugmentation draws; None without one.
    """

    def __init__(self, dataset: IQADataset, plain: Features, changed: Features | None = None):
        vars(self).update(vars(dataset))
        self.plain, self.changed = plain, changed

    def batch(self, rows: list[int]) -> tuple[tuple[Tensor, ...], Labels]:
        """Return the features of a batch, (N, ...) each, and its labels, (N, 1) each."""
        items = [divmod(row, len(self)) for row in rows]
        if self.augment is None:
            return self.plain([str(self.paths[i][-1]) for _, i in items]), self.labels_of(rows)
        return self.changed([item_name(self.paths[i][-1], variant) for variant, i in items]), self.labels_of(rows)


class PooledCrops:
    """Score images by the stored features of their crops, (N, crops, ...), callable as iqa_data.crops.Crops."""

    def __call__(self, network, *pooled: Tensor) -> list[Tensor]:
        """Return the outputs of each head for each crop, (N, crops)."""
        heads = network(*(one.flatten(0, 1) for one in pooled))
        return [head.view(pooled[0].shape[:2]) for head in heads]


def item_name(path: Path, variant: int) -> str:
    """Return the name of a variant of an image."""
    return f'{path} {variant}'


def scored_crops(network: Network, data: Data) -> Crops | None:
    """Return the crops by which a run scores images: the crops of the data, if it has any.

    Otherwise, a network of fixed input size that is trained on random crops is evaluated on centre crops.
    """
    augment = data.augment
    middle = Crops(1, augment.crop) if network.side and augment and 'crop' in augment.parts else None
    return data.crops or middle


def with_features(args: Options, data: Data, network: Network) -> Data:
    """Replace the images of the data by pooled features, which are computed unless the cache has them.

    Features are computed in float32 and in eval mode: the trunk's batch normalisations use their running statistics.

    Args:
        args: the options.
        data: the images.
        network: the network on its device, which passed `check_frozen`.
    """
    behind = {'probe', 'head', *HEADS.parameters}  # options of the layers behind the trunk
    options = {name: value for name, value in network_options(args).items() if name not in behind}
    about = {'network': args.architecture, 'options': options, 'weights': trunk_digest(network),
             'normalise': network.normalise, 'preprocess': repr(data.preprocess)}
    open_items = (partial(features_on_disk, folder=data.loading.cache_dir) if data.loading.cache == 'disk'
                  else features_in_memory)
    whole = open_items(items_of(data, list(data.datasets), network, about, crops=scored_crops(network, data)))
    changed = None
    if data.fixed:
        drawn = {name: getattr(args, name) for name in ('augmentation', 'seed', *AUGMENTATIONS.parameters)}
        changed = open_items(items_of(data, ['train'], network, about | drawn, fixed=data.fixed))
    datasets = {part: PooledDataset(dataset, whole, changed) for part, dataset in data.datasets.items()}
    return replace(data, datasets=datasets, pooled=len(whole.shapes), loading=replace(data.loading, num_workers=0))


def check_frozen(args: Options, network: Network) -> None:
    """Raise UserError if the network has no trunk, or if a parameter of the trunk is trained."""
    if network.trunk is None:
        raise UserError(f'--features cached: {args.architecture} has no trunk whose features can be computed once')
    frozen = named_by(network, args.freeze) if args.freeze else set()
    if args.ft_lr_ratio == 0:
        frozen |= set(heads_and_backbone(network)[1])
    if not frozen.issuperset(network.get_submodule(network.trunk).parameters()):
        wants = f'--probe {args.probe}' if args.probe else '--features cached'
        raise UserError(f"{wants} needs a frozen backbone, and a part of it is trained: --freeze '{network.trunk}' "
                        "freezes all of it"
                        + ('' if network.backbone is None else ', and so does --ft_lr_ratio 0'))


def trunk_digest(network: Network) -> str:
    """Return the SHA-256 of the weights and statistics of a network's trunk."""
    found = hashlib.sha256()
    for name, tensor in network.get_submodule(network.trunk).state_dict().items():
        found.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def items_of(data: Data, parts: Sequence[str], network: Network, about: dict, fixed: FixedAugmentation | None = None,
             crops: Crops | None = None) -> Items:
    """List the items whose features are needed: the images of some parts, or the variants or crops of each image."""
    sizes = {path: size for part in parts
             for (*_, path), size in zip(data.datasets[part].paths, data.sizes[part], strict=True)}
    sizes = dict(sorted(sizes.items()))  # every split of the same images has the same features
    paths, variants = list(sizes), fixed.variants if fixed else 1
    unknown = np.zeros(len(paths))
    dataset = IQADataset([(path,) for path in paths], unknown, unknown, data.datasets[parts[0]].read, fixed)
    names = [str(path) for path in paths]
    if fixed:
        names = [item_name(path, variant) for variant in range(variants) for path in paths]
    cropped = fixed and fixed.augmentation.crop
    inputs = [cropped or size for size in sizes.values()]
    count = data.batch_size
    if next(network.parameters()).device.type == 'cpu':
        count = max(1, min(count, AT_ONCE // max(h * w for h, w in inputs)))
    batches = of_one_size(inputs * variants, count)
    (first,), _ = dataset.batch(batches[0][:1])
    shapes = [one.shape[1:] for one in pooled_of(network, first, crops)]

    def fill(values: np.ndarray) -> None:
        loader = DataLoader(range(len(names)), batch_sampler=batches, collate_fn=dataset.batch,
                            num_workers=data.loading.num_workers if fixed else 0, generator=torch.Generator())
        bar = tqdm(loader, 'Computing features', delay=1, leave=False, disable=None)
        for rows, ((images,), _) in zip(batches, bar, strict=True):
            pooled = [one.flatten(1) for one in pooled_of(network, images, crops)]
            values[rows] = torch.cat(pooled, 1).float().cpu().numpy()
    return Items(names, paths * variants, shapes, {**about, 'crops': crops and crops.stored()}, fill)


@torch.no_grad()
def pooled_of(network: Network, images: Tensor, crops: Crops | None) -> tuple[Tensor, ...]:
    """Return the pooled features of 8-bit images in eval mode, (N, ...) each, or with crops (N, crops, ...)."""
    training = network.training
    network.eval()
    if crops is None:
        pooled = network.pooled(*network.prepare(images))
    else:
        of_crops = [network.pooled(*network.prepare(crops.stacked(image[None]))) for image in images]
        pooled = tuple(map(torch.stack, zip(*of_crops, strict=True)))
    network.train(training)
    return pooled
