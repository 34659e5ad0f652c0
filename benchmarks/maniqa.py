"""Measure MANIQA's forward pass against a plain one, and a training step's memory with and without kept activations.

    python benchmarks/maniqa.py [--network maniqa_384] [--img_size 384] [--rounds 5] [--device cuda]

The plain pass computes all blocks of the vision transformer, and attention as two products with a softmax in between.
The two are measured in turn, and their medians are compared. For each setting, a training step (forward, backward;
batch 1) runs in a process of its own, whose peak memory is read at its end.
"""
import argparse
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest import mock

import torch
import torch.nn.functional as F
from baseline import SIZE  # noqa: F401 (it puts the project on the path)

from iqa_networks import maniqa
from IQAmodel import create_model, list_models


def plain_attention(q, k, v, attn_mask=None, dropout_p=0., is_causal=False):
    """Compute attention by its matrix: softmax(q k^T / sqrt(d) + mask) v."""
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -.5
    return (logits if attn_mask is None else logits + attn_mask).softmax(-1) @ v


def plain(network, x):
    """Return the network's score, computed by all blocks and plain attention."""
    def all_blocks(images):
        taps = network.vit.forward_intermediates(images, indices=list(maniqa.TAPS), output_fmt='NLC')[1]
        return torch.cat(taps, 2).transpose(1, 2)
    with mock.patch.object(F, 'scaled_dot_product_attention', plain_attention), \
            mock.patch.object(network, 'features', all_blocks):
        return network(x)[0]


def step(name: str, options: dict, device: str) -> float:
    """Return the peak of memory in MB of a training step."""
    network = create_model(name, **options).to(device).train()
    network(torch.zeros(1, 3, network.side, network.side, device=device))[0].sum().backward()
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    return int(status.split('VmHWM:')[1].split()[0]) / 1e3  # getrusage's peak would be that of the parent, too


def seconds(work, device: str) -> float:
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    with torch.no_grad():
        work()
    if device.startswith('cuda'):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> float:
    """Measure, print, and return the ratio of the forward passes."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--network', choices=list_models('maniqa_*'), default='maniqa_384')
    parser.add_argument('--img_size', type=int)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args(argv)
    options = {'img_size': args.img_size} if args.img_size else {}
    network = create_model(args.network, **options).to(args.device).eval()
    x = torch.rand(1, 3, network.side, network.side, device=args.device) * 2 - 1
    ways = {'plain': lambda: plain(network, x), 'ours': lambda: network(x)[0]}
    with torch.no_grad():
        difference = (ways['plain']() - ways['ours']()).abs().max().item()
    times = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            times[name].append(seconds(way, args.device))
    ratio = median(times['ours']) / median(times['plain'])
    print(f'{args.network} at {network.side}, forward, batch 1: ' + ', '.join(
        f'{name} {median(some):.3f} s' for name, some in times.items())
        + f', ratio {ratio:.3f}, scores differ by {difference:.2g}')
    for again in (False, True):
        options = {'img_size': network.side, 'checkpoint_activations': again}
        with get_context('spawn').Pool(1) as pool:
            peak = pool.apply(step, (args.network, options, args.device))
        print(f'training step at {network.side}, batch 1, activations {"computed again" if again else "kept"}: '
              f'{peak:.0f} MB')
    return ratio


if __name__ == '__main__':
    main()
