"""Measure training steps and evaluations on the CPU: user and system time, page faults and memory, and those before.

    python benchmarks/steps.py [--before CHECKOUT] [--rounds 3] [--work 'CNNIQA, evaluation' ...]

With --before, the folder of another version of this project, runs of both alternate. Each run is a process of its own;
its first step is not counted. The seconds are the processor's, in one thread: other work on the machine changes them
less than elapsed seconds. Medians of the runs are printed.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
STEPS = 2


@dataclass(frozen=True)
class Work:
    """A network, what it does with a batch, and the images: their number and (h, w)."""

    network: str
    trains: bool
    images: int
    size: tuple[int, int]


WORK = {
    'CNNIQA, step': Work('cnniqa', True, 80, (384, 384)),
    'CNNIQA, evaluation': Work('cnniqa', False, 16, (512, 512)),
    'LinearityIQA, step': Work('resnet18', True, 8, (498, 664)),
    'HyperIQA, step': Work('hyperiqa', True, 4, (224, 224)),
    'MANIQA, step': Work('maniqa_384', True, 1, (384, 384)),
}


def function_of(work: Work) -> Callable[[], object]:
    """Return the function that does some work once, with the project on sys.path."""
    import torch

    from iqa_data.target import Target
    from iqa_networks.normalise import memory_format
    from iqa_runtime.process import keep_freed_memory
    from IQAloss import IQALoss
    from IQAmodel import create_model
    from modified_ignite_engine import create_supervised_trainer, preparing
    keep_freed_memory('cpu')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = create_model(work.network).to(memory_format=memory_format(work.size))
    # in the memory order of the loader's batches
    images = torch.randint(0, 256, (work.images, *work.size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    if not work.trains:
        network.eval()
        return torch.no_grad()(lambda: network(*network.prepare(images)))
    loss = IQALoss('mse', beta=(1,) * len(network.heads))
    engine = create_supervised_trainer(network, torch.optim.AdamW(network.parameters(), 1e-5), loss,
                                       prepare=preparing(network, Target()))
    return lambda: engine.run([((images,), (torch.ones(work.images, 1),) * 2)], max_epochs=1)


def measured(work: Work) -> dict[str, float]:
    """Return what one of STEPS calls takes: seconds of the processor, page faults, and the peak memory in MB."""
    function = function_of(work)
    function()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(STEPS):
        function()
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = {name: (getattr(after, field) - getattr(before, field)) / STEPS
             for name, field in (('user', 'ru_utime'), ('system', 'ru_stime'), ('faults', 'ru_minflt'))}
    status = Path('/proc/self/status').read_text(encoding='utf-8')  # getrusage's peak would be that of the parent, too
    return spent | {'memory': int(status.split('VmHWM:')[1].split()[0]) / 1e3}


def run(checkout: Path, name: str) -> dict[str, float]:
    """Measure in a new process that imports the project from a folder."""
    environment = {**os.environ, 'PYTHONPATH': str(checkout), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, __file__, '--child', name], env=environment, cwd=checkout, check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number."""
    return {name: median(one[name] for one in runs) for name in runs[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--before', type=Path)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--work', nargs='+', choices=list(WORK), default=list(WORK))
    parser.add_argument('--child', help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measured(WORK[given.child])))
        return
    checkouts = {'before': given.before.resolve()} if given.before else {}
    checkouts['now'] = HERE
    print('| work | version | user, s | system, s | page faults | peak memory, MB | times faster |\n'
          '|---|---|---|---|---|---|---|')
    for name in given.work:
        runs = {version: [] for version in checkouts}
        for _ in range(given.rounds):
            for version, checkout in checkouts.items():
                runs[version].append(run(checkout, name))
        found = {version: medians(some) for version, some in runs.items()}
        first = next(iter(found.values()))
        for version, one in found.items():
            faster = (first['user'] + first['system']) / (one['user'] + one['system'])
            print(f'| {name} | {version} | {one["user"]:.2f} | {one["system"]:.2f} | {one["faults"]:.0f} | '
                  f'{one["memory"]:.0f} | {faster:.2f} |', flush=True)


if __name__ == '__main__':
    main()
