"""Two processes as one: gradients, batch normalisation, metrics, whole runs under torchrun, a process that dies."""
import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

import main
import test_dataset
from iqa_data.loaders import Data, Loading
from iqa_data.samplers import ProcessShare, SameSize
from iqa_data.several import PerSet
from iqa_data.target import Target
from iqa_runtime.distributed import (
    WholeBatchLoss,
    fewest_images,
    gather,
    gather_objects,
    parallel,
    shared_gradient,
    synchronise,
)
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from IQAdataset import IQADataset
from IQAloss import LOSSES, IQALoss
from IQAperformance import IQAPerformance


class Net(nn.Module):
    """Convolution, both kinds of batch normalisation, three heads."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.reduce = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))

    def forward(self, x):
        x = self.reduce(self.features(x).mean((2, 3)))
        return [head(x) for head in self.heads]


def one_step(options: dict) -> tuple[dict, dict, float]:
    """Gradients, statistics and the loss after one step of this process on its share of a batch of 9."""
    torch.manual_seed(0)
    model, images = Net().double(), torch.randn(9, 3, 6, 6, dtype=torch.float64)
    mos = torch.rand(9, 1, dtype=torch.float64) * 100
    labels = Labels(mos, mos / 9, {'interval': mos / 20, 'set': (torch.arange(9) > 5)[:, None].double()})
    synchronise(model)
    (rows,) = ProcessShare(BatchSampler(SequentialSampler(images), 9, False))
    net = parallel(model, some_unused=0 in options.get('beta', ()))
    options = dict(options)
    several = options.pop('several', False)
    loss_fn = IQALoss(**options, penalty=lambda: shared_gradient(model.reduce[0].weight.square().sum()))
    if several:
        loss_fn = PerSet(loss_fn, [Target(), Target(50, -10)])
    loss = WholeBatchLoss(loss_fn)(net(images[rows]), labels.map(lambda values: values[rows]))
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, dict(model.named_buffers()), loss.item() / idist.get_world_size()


OF_SCORES = [name for name, row in LOSSES.items() if not {*row.needs()} & {'flipped', 'log_variance', 'logits'}]
CASES = [*({'loss_type': name} for name in OF_SCORES), {'loss_type': 'mae', 'monotonicity_regularization': True},
         {'alpha': (1, .1), 'beta': (1, 0, 0)}, {'detach': True, 'alpha': (0, 1)},
         {'loss_type': 'norm-in-norm+mse', 'several': True}]


def epochs_of(count: int, batch_size: int, noise: int) -> list[list[list[float]]]:
    """This process's batches of three epochs of `count` items, while other things draw `noise` numbers per batch."""
    torch.manual_seed(3)
    images = IQADataset([()] * count, np.arange(count), np.ones(count), read=None)
    loader = Data('numbers', {}, {'train': images}, {}, None, Loading(batch_size)).training_loader(fewest=2)
    epochs = []
    for _ in range(3):
        epochs.append([])
        for _, (mos, _) in loader:
            epochs[-1].append(mos.flatten().tolist())
            torch.rand(noise)
    return epochs


def work(rank: int, folder: str) -> None:
    """What each of two processes does for the tests below; rank 0 writes the results."""
    torch.set_num_threads(1)
    results = [one_step(case) for case in CASES]
    metric = IQAPerformance()
    if rank == 0:  # rank 1 has no image: it must wait and count nothing
        scores = torch.arange(5.)[:, None]
        metric.update(([scores, scores, scores ** 2], (scores, scores)))
    order = SameSize([(1, 1)] * 5, 2).order
    gathered = gather(torch.full((rank + 1, 2), float(rank)))
    (rows,) = ProcessShare(BatchSampler(SequentialSampler(range(9)), 9, False))
    mos = torch.tensor(rows)[:, None]
    seen = WholeBatchLoss(lambda outputs, scores: scores[0])([mos], (mos, mos)) / idist.get_world_size()
    epochs = gather_objects(epochs_of(28, 5, noise=rank))
    if rank == 0:
        torch.save([results, metric.compute().srocc, order, gathered, seen, epochs], Path(folder, 'results'))
    else:
        metric.compute()


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What two gloo processes found (see `work`)."""
    folder = tmp_path_factory.mktemp('two')
    idist.spawn('gloo', work, (str(folder),), nproc_per_node=2)
    return torch.load(folder / 'results', weights_only=True)


@pytest.mark.parametrize('i', range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_give_the_gradients_and_statistics_of_one(two, i):
    gradients, buffers, loss = two[0][i]
    expected_gradients, expected_buffers, expected_loss = one_step(CASES[i])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() >= expected_gradients.keys()
    largest = max(gradient.abs().max() for gradient in expected_gradients.values())
    for name, gradient in gradients.items():  # a head of weight 0 has no gradient alone, and zeros here
        assert (gradient - expected_gradients.get(name, 0)).abs().max() <= 1e-5 * largest, name
    for name, buffer in buffers.items():
        torch.testing.assert_close(buffer, expected_buffers[name], rtol=1e-5, atol=1e-7, msg=name)


def test_metrics_order_and_gathering(two):
    _, srocc, order, gathered, _, _ = two
    assert srocc == pytest.approx(1)
    assert order == [0, 1, 4, 2, 3]
    assert gathered.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_each_image_comes_once_an_epoch_in_the_order_of_one_process(two):
    alone = epochs_of(28, 5, noise=0)
    for epoch, whole in enumerate(alone):
        for i, batch in enumerate(whole):
            first, second = (epochs[epoch][i] for epochs in two[-1])
            assert (batch[::2], batch[1::2]) == (first, second)
        assert sorted(chain(*whole)) == list(range(28))
    assert alone[0] != alone[1] != alone[2]


def test_a_loss_sees_the_whole_batch_in_the_order_of_one_process(two):
    assert two[-2].flatten().tolist() == list(range(9))


def test_the_order_is_the_originals_whatever_else_is_random():
    torch.manual_seed(3)
    original = []
    for _ in range(3):
        original.append([batch.tolist() for batch in DataLoader(range(28), 5, shuffle=True)])
        iter(DataLoader(range(3)))  # its validation draws a number, too
    assert epochs_of(28, 5, noise=0) == epochs_of(28, 5, noise=7) == original


def test_one_process_needs_nothing(monkeypatch):
    tensor = torch.ones(2, 1)
    assert gather(tensor) is tensor
    normalised, plain = Net(), nn.Linear(1, 1)
    assert fewest_images(8, False, normalised) == 2
    assert fewest_images(1, False, plain) == 1
    with pytest.raises(UserError, match='--batch_size 1: at least 2 is needed for batch normalisation$'):
        fewest_images(1, False, normalised)
    monkeypatch.setattr(idist, 'get_world_size', lambda: 4)
    assert fewest_images(8, False, normalised) == 8
    with pytest.raises(UserError, match=r'--batch_size 6 is the whole batch, over 4 .* at least 8 .* 4 with --sync_bn'):
        fewest_images(6, False, normalised)
    assert fewest_images(6, True, normalised) == fewest_images(6, False, plain) == 4


def torchrun(*words: str, script: str = 'main.py', **options) -> subprocess.Popen:
    """A script in two processes, one thread each."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0', '--standalone',
               str(ROOT / script), *words]
    return subprocess.Popen(command, env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, **options)


def test_a_run_of_two_processes_is_a_run_of_one(tiny):
    runs = {}
    for name, start in (('one', lambda *words: subprocess.Popen([sys.executable, str(ROOT / 'main.py'), *words])),
                        ('two', torchrun)):
        run = start(*tiny, *SMALL, '-e', '1', '-optl', 'O0', '--sync_bn', '-bs', '7', '--result_dir', name,
                    '--checkpoint_dir', f'{name}-checkpoints', '--log_dir', f'{name}-runs')
        out, _ = run.communicate(timeout=120)
        assert run.returncode == 0, out
        (table,) = Path(name).glob('*.csv')
        runs[name] = pd.read_csv(table)
    assert 'by 2 processes, which share a batch of 7' in out
    assert out.count('Best epoch') == 1
    assert runs['one']['name'].tolist() == runs['two']['name'].tolist()
    np.testing.assert_allclose(runs['one'].pq, runs['two'].pq, atol=.5)
    assert len(list(Path('two-runs').glob('*/events*'))) == 1


def test_two_processes_train_the_singular_values_of_one(tiny):
    words = [*tiny, '-arch', 'svd_cnniqa_fc', '--dropout', '0', '--device', 'cpu', '--no-pbar', '-e', '1', '-bs', '7',
             '-lr', '1e-3', '--loss_type', 'mse', '--target', '0', '100']
    main.main([*words, '-modelfile', 'one.pth'])
    run = torchrun(*words, '-modelfile', 'two.pth', '--result_dir', 'two', '--log_dir', 'two-runs')
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 0, out
    one, two = (torch.load(file, weights_only=True)['model'] for file in ('one.pth', 'two.pth'))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_two_processes_freeze_clip_and_average_as_one(tiny):
    words = [*tiny, *SMALL, '-e', '1', '-bs', '7', '-optl', 'O0', '--sync_bn', '--loss_type', 'mse', '--target', '0',
             '100', '--freeze', 'features', '--ema', '.5', '--clip_grad', '.1', '-lr', '1e-3', '--optimizer', 'sgd']
    main.main([*words, '-modelfile', 'one.pth'])
    run = torchrun(*words, '-modelfile', 'two.pth', '--result_dir', 'two', '--log_dir', 'two-runs')
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 0, out
    assert out.count('parameters and 20 batch normalisations are frozen') == 1
    one, two = (torch.load(file, weights_only=True)['model'] for file in ('one.pth', 'two.pth'))
    for name, tensor in one.items():
        if name.startswith('features'):
            assert torch.equal(two[name], tensor), name
        else:
            torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(('script', 'options', 'images'), [
    pytest.param(main, ['--evaluate', '-e', '1'], 5, marks=pytest.mark.slow),
    (test_dataset, ['--part', 'all', '--dataset', 'demo'], 24)])
@pytest.mark.usefixtures('one_thread')
def test_each_image_is_tested_once_by_two_processes(tiny, script, options, images):
    main.main([*tiny, *SMALL, '-e', '1', '-bs', '5', '-modelfile', 'c.pth'])
    words = [*tiny, *SMALL, '-bs', '5', '-modelfile', 'c.pth', *options]
    script.main([*words, '--result_dir', 'one'])
    test = torchrun(*words, '--result_dir', 'two', script=f'{script.__name__}.py')
    out, _ = test.communicate(timeout=120)
    assert test.returncode == 0, out
    assert out.count('Testing c.pth') == out.count('Predictions and metrics') == 1
    assert len(list(Path('two').iterdir())) == 2  # the table and its summary
    one, two = (pd.read_csv(next(Path(name).glob('*.csv'))) for name in ('one', 'two'))
    assert len(two) == images
    assert one['name'].tolist() == two['name'].tolist()
    np.testing.assert_allclose(one.pq, two.pq, rtol=1e-4)
    one, two = (json.loads(next(Path(name).glob('*.json')).read_text()) for name in ('one', 'two'))
    assert two['images'] == images
    assert one['metrics'] == pytest.approx(two['metrics'], rel=1e-4)


def test_a_process_that_dies_ends_the_others(tiny):
    run = torchrun(*tiny, *SMALL, '-e', '500', '-optl', 'O0', start_new_session=True)
    try:
        for line in run.stdout:
            if line.startswith('Epoch 2/'):
                break
        workers = Path(f'/proc/{run.pid}/task/{run.pid}/children').read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        out, _ = run.communicate(timeout=90)  # long before 500 epochs are done
        assert run.returncode != 0
        assert 'SIGKILL' in out or 'Signal 9' in out or 'exitcode  : -9' in out
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)


def test_an_error_of_all_processes_is_printed_by_the_first(tiny):
    run = torchrun(*tiny, *SMALL, '-e', 'many')
    out, _ = run.communicate(timeout=120)
    assert run.returncode != 0
    assert out.count('main.py: error: ') == 1, out


def test_an_error_of_a_process_alone_is_printed_after_a_while(tiny, fails, monkeypatch):
    waited = []
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setattr(time, 'sleep', waited.append)
    for rank, waits in (('0', 0), ('1', 1)):
        monkeypatch.setenv('LOCAL_RANK', rank)
        assert 'argument -e' in fails(main.main, *tiny, *SMALL, '-e', 'many')
        assert len(waited) == waits
