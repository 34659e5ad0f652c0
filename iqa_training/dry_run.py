"""Measure before a run the memory, time and disk that it will take, by a few steps on noise that are not kept."""
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import DataLoader

from iqa_data.cache import readable
from iqa_data.datasets import Source, dataset_name
from iqa_data.info import Info, read_info
from iqa_data.loaders import Data, Loading
from iqa_data.target import target_of
from iqa_data.transforms import preprocess_of
from iqa_networks.network import Network
from iqa_networks.size import macs
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from iqa_runtime.names import PARTS
from iqa_runtime.option_values import words_of
from iqa_runtime.options import Options
from iqa_training.run import duration_in_words
from IQAdataset import IQADataset, augmentation_of, check_sizes, named_source, of_each_set, rows_of

STEPS = 10  # timed, after a first one, whose memory is measured


@dataclass(frozen=True)
class Images:
    """The images of a run.

    Attributes:
        counts: part -> number of its images; empty if an info file is not here.
        files: number of decoded images, references included.
        size: (h, w) after preprocessing; that of the first image, if they differ.
        labels: labels of a batch of training images, (N, 1) each; invented if an info file is not here.
    """

    counts: dict[str, int]
    files: int
    size: tuple[int, int]
    labels: Labels

    @classmethod
    def of(cls, args: Options, inputs: int) -> 'Images':
        """Return the images that the options describe, as far as their data sets are here.

        Raises UserError if the size of the images is not known.
        """
        counts, files, labels = dict.fromkeys(PARTS, 0), 0, None
        for one in of_each_set(args):
            source = named_source(one.dataset, one.im_dir, one.data_info, one.ref_dir)
            if not Path(source.info).is_file():
                return cls({}, 0, _size(one, source, None), _invented(args.batch_size))
            info = read_info(source.info)
            parts = rows_of(one, info)
            for part, rows in parts.items():
                counts[part] += len(rows)
            files += _files(info, np.concatenate(list(parts.values())), inputs)
            labels = labels or _labels(info, parts['train'], args.batch_size)
            size = _size(one, source, Path(source.im_dir, info.names[parts['train'][0]]))
        return cls({part: count for part, count in counts.items() if count}, files, size, labels)

    def cropped(self, args: Options) -> tuple[int, int]:
        """Return the (h, w) that the network gets in training: of crops, if the options cut any."""
        augment = augmentation_of(args)
        return augment.crop if augment and 'crop' in augment.parts else self.size


def _size(args: Options, source: Source, first: Path | None) -> tuple[int, int]:
    """Return the (h, w) of the images, by the options or by the header of the first one, None if it is not known."""
    preprocess = preprocess_of(args, source)
    if preprocess.resize and preprocess.fit != 'enlarge':
        return preprocess.resize
    if first and first.is_file():
        return preprocess.size(first)
    if source.first_resize:
        return source.first_resize
    raise UserError(f'--plan: the size of the images of {dataset_name(args.dataset)} is not known, since they are not '
                    'here: give --resize, with --resize_size_h and --resize_size_w')


def _files(info: Info, rows: np.ndarray, inputs: int) -> int:
    """Return the number of images that are decoded: of pairs, the references too."""
    if inputs == 1 or info.references is None:
        return len(rows)
    return len(rows) + len({info.references[row] for row in rows})


def _labels(info: Info, rows: np.ndarray, count: int) -> Labels:
    """Return the labels of `count` training images, some of them repeated if there are fewer."""
    chosen = np.resize(rows, count)
    return Labels(info.mos[chosen], info.std[chosen], {name: values[chosen] for name, values in info.more.items()})


def _invented(count: int) -> Labels:
    return Labels(np.linspace(0, 100, count), np.full(count, 10.))


def noise(args: Options, images: Images, inputs: int) -> Data:
    """Return a data set of noise, as many batches as there are steps, that is loaded as the options say."""
    augment = augmentation_of(args)
    check_sizes({images.size}, augment, args.batch_size)

    def read(path: Path) -> np.ndarray:  # contrasts differ, since equal images would have equal scores
        number = int(path.name)
        return np.random.default_rng(number).integers(0, 64 + 64 * (number % 4), (*images.size, 3), np.uint8)
    count = math.ceil((STEPS + 1) * args.batch_size / args.train_crops)
    some = np.resize(np.arange(len(images.labels.mos)), count)
    more = {name: values[some] for name, values in images.labels.more.items()}
    dataset = IQADataset([(Path(str(i)),) * inputs for i in range(count)], images.labels.mos[some],
                         images.labels.std[some], read, more=more)
    return Data(dataset_name(args.dataset), {'train': list(map(str, range(count)))}, {'train': dataset},
                {'train': [images.size] * count}, preprocess_of(args, named_source('demo', None, None)),
                Loading(args.batch_size), augment=augment, target=target_of(args.target, dataset.mos.numpy()),
                train_crops=args.train_crops)


# Measuring

@dataclass
class Costs:
    """The costs of training steps, measured.

    Attributes:
        seconds: of each step.
        peak: bytes that this process or, with a GPU, its tensors there took at most until the end of the first step.
        kept: bytes of the tensors that the first forward pass keeps for the backward pass, without the weights.
        states: bytes of the optimizer's states.
    """

    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    kept: int = 0
    states: int = 0


def measured(trainer: Engine, loader: DataLoader, model: Network, optimizer: torch.optim.Optimizer, device: str
             ) -> Costs:
    """Run STEPS + 1 training steps, at a learning rate of 0, and return their costs."""
    for group in optimizer.param_groups:
        group['lr'] = 0.  # noise could make the training diverge
    costs, began, stack = Costs(), 0., ExitStack()
    storages: dict[int, int] = {}
    weights = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @trainer.on(Events.ITERATION_STARTED)
    def begin(engine: Engine) -> None:
        nonlocal began
        if engine.state.iteration == 1:
            stack.enter_context(saved_tensors_hooks(keep, lambda tensor: tensor))
        synchronise(device)
        began = time.perf_counter()

    @trainer.on(Events.ITERATION_COMPLETED)
    def end(engine: Engine) -> None:
        synchronise(device)
        costs.seconds.append(time.perf_counter() - began)
        if engine.state.iteration == 1:
            stack.close()
            costs.peak, costs.kept = peak_memory(device), sum(storages.values())
            costs.states = sum(value.nbytes for state in optimizer.state.values() for value in state.values()
                               if isinstance(value, Tensor))
    with stack:
        trainer.run(loader, max_epochs=1, epoch_length=STEPS + 1)
    return costs


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)


def peak_memory(device: str) -> int:
    """Return the bytes that this process, or its tensors on a GPU, have taken at most; 0 if the system does not say."""
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated(device)
    with suppress(ImportError):  # Windows
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
    return 0


def on_gpu(model: nn.Module, costs: Costs, half: bool) -> int:
    """Estimate the bytes of a training step on a GPU: weights, gradients, the optimizer's states, kept tensors.

    With `half`, the kept tensors are in half precision.
    """
    weights = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    gradients = sum(one.nbytes for one in model.parameters() if one.requires_grad)
    return weights + gradients + costs.states + costs.kept // (2 if half else 1)


# The report

def in_words(args: Options, model: Network, images: Images, device: str, measure: Callable[[], Costs]
             ) -> Iterator[str]:
    """Yield the lines of the report; the last ones after `measure`, which takes the time of STEPS + 1 steps."""
    size = images.cropped(args)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    yield (f'{"network":18}{args.architecture}: {sum(one.numel() for one in model.parameters()):,} parameters, '
           f'{trained:,} of them trained; {macs(model, size) / 1e9:.4g} GMACs an image of {size[1]}x{size[0]} (w x h)')
    counts = ', '.join(f'{count:,} {part}' for part, count in images.counts.items())
    name = dataset_name(args.dataset)
    yield f'{"images":18}{name}: {counts or "its info file is not here, so that their number is not known"}'
    if counts:
        yield f'{"cache":18}{cache_in_words(args, images)}'
    costs = measure()
    step = float(np.median(costs.seconds[1:]))
    yield from memory_in_words(args, model, costs, device)
    yield f'{"a step":18}{step:.3g} s on {device}, the median of {STEPS}, with a batch of {args.batch_size}'
    if counts:
        steps = math.ceil(images.counts['train'] * args.train_crops / args.batch_size)
        yield (f'{"an epoch":18}{steps:,} steps: {duration_in_words(step * steps)}, and {args.epochs} epochs '
               f'{duration_in_words(step * steps * args.epochs)}; reading images and validating come on top')
    given = {name: args.values[name] for name in args.values if name in args.given and name != 'plan'}
    yield f'{"command":18}{shlex.join(["python", "main.py", *words_of(given)])}'


def cache_in_words(args: Options, images: Images) -> str:
    """Return the place and the size of the decoded images."""
    height, width = images.size
    size = readable(images.files * height * width * 3)
    place = {'disk': f'{size} of disk in {args.cache_dir}', 'ram': f'{size} of memory', 'none': 'none'}[args.cache]
    resized = args.resize or args.enlarge
    return place + (f', {images.files:,} images of {width}x{height} (w x h)' if args.cache != 'none' else '') + (
        '' if resized or args.cache == 'none' else ', if all have the size of the first')


def memory_in_words(args: Options, model: Network, costs: Costs, device: str) -> Iterator[str]:
    """Yield the lines on the memory of a step: measured here, and if this is no GPU, estimated for one."""
    if costs.peak:
        what = 'of its tensors' if device.startswith('cuda') else 'of the whole process'
        yield f'{"memory of a step":18}{readable(costs.peak)} on {device}, measured: the peak {what}'
    if not device.startswith('cuda'):
        to_halve = args.opt_level not in ('O0', 'bf16')  # of bf16, half is measured already
        kept = 'in float32' if args.opt_level == 'O0' else 'in half precision'
        yield (f'{"":18}{readable(on_gpu(model, costs, to_halve))} on a GPU, estimated: weights, gradients, optimizer, '
               f'and tensors kept for the backward pass {kept}; its libraries and buffers come on top')
