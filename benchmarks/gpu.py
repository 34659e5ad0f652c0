"""Measure the five systems on a GPU: training steps, one improvement after the other, cached features, and scoring.

    python benchmarks/gpu.py [--systems LinearityIQA HyperIQA ...] [--steps 20] [--compile] [--device cuda] [--tiny]

Network, loss, sizes of the images and of the batch are those of each system's recipe; weights are random. The images
are drawn: nothing has to be prepared. The floor is the arithmetic of a plain forward and backward pass at the rate of
a product of two bfloat16 matrices, measured in the same run. With --profile, the kernels that take the most time in
the last training step are listed. `--tiny --device cpu --steps 1` takes small networks and images, to see that it runs.
"""
import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from baseline import forward_flops
from ignite.engine import Engine
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from iqa_data.crops import Crops, crops_of
from iqa_data.target import Target
from iqa_networks.network import Network
from iqa_runtime.options import Options
from iqa_training.features import OnFeatures
from iqa_training.options import TRAIN
from IQAloss import build_loss
from IQAmodel import build_model
from modified_ignite_engine import create_supervised_trainer, preparing

# system -> words of its published training, and words for --tiny
SYSTEMS = {
    'LinearityIQA': ('--recipe linearity_iqa --resize', '-arch resnet18 -rs_h 64 -rs_w 96'),
    'SVD-CNNIQA': ('--recipe svd_cnniqa_fc', '-cs_h 32 -cs_w 32'),
    'MANIQA': ('--recipe maniqa_384', '-arch maniqa_tiny'),
    'ASNA': ('--recipe asna_model1 --loss_type mse', '--img_size 48'),
    'HyperIQA': ('--recipe hyperiqa_koniq', '--backbone timm/resnet18 --test_crops 2'),
}
WHOLE = (384, 512)  # (h, w) of the images that are scored by crops


@dataclass(frozen=True)
class Way:
    """One way to compute a training step."""

    name: str
    channels_last: bool = True
    eight_bit: bool = True   # 8-bit images are sent to the device and normalised there
    opt_level: str = 'bf16'
    fused: bool = False      # Adam in one kernel
    compiled: str = ''       # mode of torch.compile


WAYS = (Way('baseline', channels_last=False, eight_bit=False, opt_level='O0'),
        Way('channels_last', eight_bit=False, opt_level='O0'),
        Way('channels_last, uint8 (-optl O0)', opt_level='O0'),
        Way('the same, float16 (-optl O1)', opt_level='O1'),
        Way('the same, bfloat16 (-optl bf16)'),
        Way('bfloat16, fused Adam', fused=True))
COMPILED = (Way('bfloat16, fused Adam, compiled', fused=True, compiled='default'),
            Way('bfloat16, fused Adam, compiled, CUDA graphs', fused=True, compiled='reduce-overhead'))
WAY = WAYS[4]  # the way of cached features


@dataclass(frozen=True)
class Setting:
    """What is measured of a system: its options, its network on the device, and (h, w) of the training images."""

    args: Options
    network: Network
    size: tuple[int, int]
    device: str

    @classmethod
    def of(cls, system: str, tiny: bool, device: str) -> 'Setting':
        """Build the network of a system with random weights."""
        words, small = SYSTEMS[system]
        args = TRAIN.parse([*words.split(), '--weights', 'none', *(f'{small} -bs 2'.split() if tiny else ())])
        network = build_model(args)
        if network.side:
            size = network.side, network.side
        elif 'crop' in (args.augmentation or ()):
            size = args.crop_size_h, args.crop_size_w
        else:
            size = args.resize_size_h, args.resize_size_w
        return cls(args, network.to(device), size, device)

    def batch(self, size: tuple[int, int], form: torch.memory_format = torch.channels_last) -> tuple[Tensor, ...]:
        """Draw the images of a batch, uint8, in pinned memory if the device is a GPU."""
        images = [torch.randint(0, 256, (self.args.batch_size, 3, *size), dtype=torch.uint8).to(memory_format=form)
                  for _ in range(self.network.inputs)]
        return self.pinned(images)

    def pinned(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Return tensors in pinned memory if the device is a GPU."""
        return tuple(one.pin_memory() if self.device.startswith('cuda') else one for one in tensors)

    def trainer(self, way: Way, network: Network, prepare: Callable) -> Engine:
        """Return the engine that trains a network in a way."""
        optimizer = torch.optim.Adam([one for one in network.parameters() if one.requires_grad], 1e-5, fused=way.fused)
        model = torch.compile(network, mode=way.compiled) if way.compiled else network
        return create_supervised_trainer(model, optimizer, build_loss(self.args, len(network.heads)), prepare=prepare,
                                         device=self.device, opt_level=way.opt_level)


def floats(network: Network) -> Callable:
    """Return a function `prepare_batch` for images that were normalised on the CPU."""
    labels = preparing(network, Target())

    def prepare_batch(batch, device=None, non_blocking: bool = False):
        images, scores = batch
        sent = tuple(image.to(device, non_blocking=non_blocking) for image in images)
        return sent, labels(((), scores), device, non_blocking)[1]
    return prepare_batch


def step_of(way: Way, setting: Setting) -> Callable[[int], object]:
    """Return a function of the number of training steps."""
    form = torch.channels_last if way.channels_last else torch.contiguous_format
    network = setting.network.to(memory_format=form)
    images = setting.batch(setting.size, form)
    if not way.eight_bit:
        images = setting.pinned([(image.float() / 255) for image in images])
    prepare = (preparing(network, Target()) if way.eight_bit else floats(network))
    return repeated(setting.trainer(way, network, prepare), images)


def features_step(setting: Setting) -> Callable[[int], object]:
    """Return a function of the number of training steps on cached features."""
    with torch.no_grad():
        pooled = setting.network.pooled(*setting.network.prepare(setting.batch(setting.size)))
    network = OnFeatures(setting.network, len(pooled))
    engine = setting.trainer(WAY, network, preparing(network, Target()))
    return repeated(engine, setting.pinned([one.cpu() for one in pooled]))


def repeated(engine: Engine, images: tuple[Tensor, ...]) -> Callable[[int], object]:
    """Return a function that trains on a batch as often as asked."""
    scores = (torch.rand(len(images[0]), 1),) * 2
    return lambda steps: engine.run([(images, scores)] * steps, max_epochs=1)


def scoring(setting: Setting, crops: Crops | None) -> Callable[[int], object]:
    """Return a function that scores a batch as often as asked, in float32, as the evaluation does."""
    network = setting.network
    images = setting.batch(WHOLE if crops else setting.size)

    def score(*images: Tensor) -> list[Tensor]:
        return network.measure(*network.prepare(images))

    @torch.no_grad()
    def work(steps: int) -> None:
        network.eval()
        for _ in range(steps):
            crops(score, *images) if crops else score(*images)
        network.train()
    return work


def seconds(work: Callable[[int], object], steps: int, device: str) -> float:
    """Return the seconds of some steps, after an uncounted one, until the device has finished."""
    def finish() -> None:
        if device.startswith('cuda'):
            torch.cuda.synchronize(device)
    work(1)
    finish()
    started = time.perf_counter()
    work(steps)
    finish()
    return time.perf_counter() - started


def matrix_rate(device: str) -> float:
    """Return the floating-point operations a second of a product of two bfloat16 matrices."""
    side = 8192 if device.startswith('cuda') else 256
    a = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    return 10 * 2 * side ** 3 / seconds(lambda steps: [a @ a for _ in range(steps)], 10, device)


def table(setting: Setting, ways: tuple[Way, ...], steps: int, matrices: float) -> None:
    """Print a row for each way to train, for cached features, and for scoring; `matrices` is the floor's rate."""
    cuda, baseline, crops = setting.device.startswith('cuda'), None, crops_of(setting.args)
    floor = 3 * forward_flops(setting.network, setting.size) / matrices  # twice as much back as forward
    work = {way.name: (lambda way=way: step_of(way, setting)) for way in ways}
    if setting.network.trunk:
        work['step on cached features'] = lambda: features_step(setting)
    work[f'scoring, {crops.count} crops of an image' if crops else 'scoring'] = lambda: scoring(setting, crops)
    print('| what | images/s | times the baseline | share of the floor | memory |\n|---|---|---|---|---|')
    for name, build in work.items():
        try:
            if cuda:
                torch.cuda.reset_peak_memory_stats(setting.device)
            rate = setting.args.batch_size * steps / seconds(build(), steps, setting.device)
        except torch.OutOfMemoryError:
            print(f'| {name} | out of memory | | | |', flush=True)
            continue
        baseline = baseline or rate
        share = f'{rate * floor:.2f}' if name in [way.name for way in ways] else ''
        memory = f'{torch.cuda.max_memory_allocated(setting.device) / 1e9:.1f} GB' if cuda else ''
        print(f'| {name} | {rate:.1f} | {rate / baseline:.2f} | {share} | {memory} |', flush=True)


def kernels(step: Callable[[int], object], cuda: bool) -> str:
    """Return the table of the kernels that take the most time in a training step."""
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]) as profiler:
        step(1)
    order = f'self_{"cuda" if cuda else "cpu"}_time_total'
    return profiler.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=60)


def main(argv: list[str] | None = None) -> None:
    """Print a table for each system."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--systems', nargs='+', choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--compile', action='store_true', help='torch.compile too, which takes minutes')
    parser.add_argument('--profile', action='store_true')
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--device', default='cuda')
    given = parser.parse_args(argv)
    cuda = given.device.startswith('cuda')
    rate, ways = matrix_rate(given.device), WAYS + COMPILED * given.compile
    name = torch.cuda.get_device_name(given.device) if cuda else 'CPU'
    print(f'{name}, torch {torch.__version__}, bfloat16 matrices at {rate / 1e12:.3g} TFLOP/s')
    for system in given.systems:
        setting = Setting.of(system, given.tiny, given.device)
        print(f'\n**{system}**: {setting.args.architecture}, {setting.size[1]}x{setting.size[0]}, batch '
              f'{setting.args.batch_size}, {setting.args.loss_type}\n')
        table(setting, ways, given.steps, rate)
        if given.profile:
            print(kernels(step_of(ways[-1], setting), cuda))


if __name__ == '__main__':
    main()
