"""Measure training steps of LinearityIQA on networks of timm, relative to resnet18's in the same run.

    python benchmarks/timm_backbones.py [--networks convnext_tiny ...] [--side 224] [--batch 8] [--rounds 5]
                                        [--device cuda]

One network at a time: steps of it and of torchvision's resnet18 in turn, whose medians are compared. Random weights,
float32, SGD: the arithmetic of a step does not depend on them.
"""
import argparse
import time
from statistics import median

import torch
from baseline import SIZE  # noqa: F401 (it puts the project on the path)

from iqa_data.target import Target
from iqa_networks.normalise import memory_format
from iqa_networks.timm_backbone import PREFIX, TimmBackbone
from iqa_runtime.process import keep_freed_memory
from iqa_training.optimizers import parameter_groups
from IQAloss import IQALoss
from IQAmodel import create_model
from modified_ignite_engine import create_supervised_trainer, preparing

# family -> a member of the usual size
FAMILIES = {
    'resnet': 'resnet50', 'resnext': 'resnext50_32x4d', 'densenet': 'densenet121', 'regnet': 'regnety_032',
    'efficientnet': 'efficientnet_b0', 'mobilenetv3': 'mobilenetv3_large_100', 'ghostnet': 'ghostnet_100',
    'convnext': 'convnext_tiny', 'swin': 'swin_tiny_patch4_window7_224', 'vit': 'vit_small_patch16_224',
}
PLAIN = 'resnet18'


def step_of(name: str, batch, device: str):
    """Return the network of a name, and a function that trains it by one step."""
    model = create_model(name).to(device, memory_format=memory_format(batch[0][0].shape))
    optimizer = torch.optim.SGD(parameter_groups(model, 1e-4, .1))
    trainer = create_supervised_trainer(model, optimizer, IQALoss('norm-in-norm'),
                                        prepare=preparing(model, Target()), device=device)

    def step() -> None:
        trainer.run([batch], max_epochs=1)
        if device.startswith('cuda'):
            torch.cuda.synchronize()
    return model, step


def seconds(work) -> float:
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table; return name -> the time of its step over resnet18's."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--networks', nargs='+', metavar='NAME', default=list(FAMILIES.values()),
                        help="timm's names (default: one of each family)")
    parser.add_argument('--side', type=int, default=224, help='of the images, in pixels (default: 224)')
    parser.add_argument('--batch', type=int, default=8, help='images in a batch (default: 8)')
    parser.add_argument('--rounds', type=int, default=5, help='timed steps of each network (default: 5)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args(argv)
    keep_freed_memory(args.device)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (args.batch, 3, args.side, args.side), dtype=torch.uint8)
    batch = (images,), (torch.rand(args.batch, 1) * 100, torch.ones(args.batch, 1))
    plain = step_of(PLAIN, batch, args.device)[1]
    print(f'{args.batch} images of {args.side}x{args.side}, {args.device}, torch {torch.__version__}\n\n'
          f'| network | parameters of the backbone, millions | channels of the two levels | seconds per step | over '
          f"{PLAIN}'s |\n|---|---|---|---|---|")
    ratios = {}
    for name in args.networks:
        model, step = step_of(PREFIX + name, batch, args.device)
        plain(), step()
        times = [(seconds(plain), seconds(step)) for _ in range(args.rounds)]
        before, its = map(median, zip(*times, strict=True))
        ratios[name] = its / before
        count = sum(parameter.numel() for parameter in model.backbone.parameters())
        channels = ' and '.join(map(str, TimmBackbone.of(name).channels))
        print(f'| `timm/{name}` | {count / 1e6:.1f} | {channels} | {its:.2f} | {its / before:.2f} |', flush=True)
    return ratios


if __name__ == '__main__':
    main()
