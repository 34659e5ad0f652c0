"""Two processes as one: gradients, batch normalisation, metrics, whole runs under torchrun, a process that dies."""
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL
from mini import MINI, stop_at
from processes import in_two
from several import make_set
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

import main
import test_dataset
from iqa_data.loaders import Data, Loading
from iqa_data.samplers import ProcessShare, SameSize
from iqa_data.several import PerSet
from iqa_data.target import Target
from iqa_losses import terms_of
from iqa_networks.distribution import Gaussian, Histogram
from iqa_runtime.checkpoint import load_checkpoint, read_tensors
from iqa_runtime.distributed import (
    WholeBatchLoss,
    fewest_images,
    gather,
    gather_objects,
    parallel,
    shared_gradient,
    synchronise,
)
from iqa_runtime.errors import UserError, report
from iqa_runtime.labels import Labels
from iqa_runtime.process import seed_by_rank, seed_everything
from IQAdataset import IQADataset
from IQAloss import LOSSES, IQALoss
from IQAmodel import create_model
from IQAperformance import IQAPerformance
from modified_ignite_engine import create_supervised_trainer

RATINGS = 4  # levels


class Net(nn.Module):
    """A convolution, and three heads of `outputs` numbers."""

    def __init__(self, outputs: int):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.reduce = nn.Linear(4, 5)
        self.heads = nn.ModuleList(nn.Linear(5, outputs) for _ in range(3))

    def forward(self, x):
        x = self.reduce(self.features(x).mean((2, 3)))
        return [head(x) for head in self.heads]


def distribution_of(loss_type: str) -> nn.Module | None:
    """Return what a network must predict for the losses of a sum."""
    needs = {need for name in terms_of(loss_type) for need in LOSSES[name].needs()}
    return Histogram(RATINGS) if 'logits' in needs else Gaussian() if 'log_variance' in needs else None


def one_step(options: dict) -> tuple[dict, float]:
    """Gradients and the loss after one step of this process on its share of a batch of 9."""
    torch.manual_seed(0)
    options = dict(options)
    several, distribution = options.pop('several', False), distribution_of(options.get('loss_type', 'norm-in-norm'))
    model = Net(distribution.outputs if distribution else 1).double()
    images, mos = torch.randn(9, 3, 6, 6, dtype=torch.float64), torch.rand(9, 1, dtype=torch.float64) * 100
    labels = Labels(mos, mos / 9, {'interval': mos / 20, 'set': (torch.arange(9) > 5)[:, None].double(),
                                   'ratings': torch.rand(9, RATINGS, dtype=torch.float64).softmax(1)})
    loss_fn = IQALoss(**options, distribution=distribution,
                      penalty=lambda: shared_gradient(model.reduce.weight.square().sum()))
    if several:
        loss_fn = PerSet(loss_fn, [Target(), Target(50, -10)])
    (rows,) = ProcessShare(BatchSampler(SequentialSampler(images), 9, False))
    trainer = create_supervised_trainer(parallel(model, some_unused=0 in options.get('beta', ())),
                                        torch.optim.SGD(model.parameters(), 0), loss_fn,
                                        prepare=lambda rows, **_: ([images[rows]], labels.map(lambda one: one[rows])))
    trainer.run([rows])
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients, trainer.state.output['loss']


CASES = [*({'loss_type': name} for name in LOSSES), {'loss_type': 'mae', 'monotonicity_regularization': True},
         {'alpha': (1, .1), 'beta': (1, 0, 0)}, {'detach': True, 'alpha': (0, 1)},
         {'loss_type': 'norm-in-norm+mse', 'several': True}, {'loss_type': 'emd+mse+consistency', 'several': True}]


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


def work(folder: str) -> None:
    """What each of two processes does for the tests below; rank 0 writes the results."""
    idist.initialize('gloo')
    rank = idist.get_rank()
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
    drawn = [gather_objects(drawn_by(workers)) for workers in (0, 2)]
    srocc = metric.compute().srocc
    if rank == 0:
        torch.save([results, srocc, order, gathered, seen, drawn, epochs], Path(folder, 'results'))


def black(path: Path) -> np.ndarray:
    return np.zeros((1, 8, 3), np.uint8)


def noise(*images) -> list[np.ndarray]:
    return [torch.randint(256, (1, 8, 3), dtype=torch.uint8).numpy()]


def drawn_by(workers: int) -> list[list[int]]:
    """The pixels of this process's training images, which are drawn from torch's generator."""
    seed_everything(3, False)
    images = IQADataset([(Path('x'),)] * 12, np.arange(12), np.ones(12), read=black)
    data = Data('noise', {}, {'train': images}, {}, None, Loading(4, workers), augment=noise)
    loader = data.training_loader()
    seed_by_rank(idist.get_rank())
    return [image.flatten().tolist() for (batch,), _ in loader for image in batch]


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What two gloo processes found (see `work`)."""
    folder = tmp_path_factory.mktemp('two')
    statuses, out = in_two(work, str(folder))
    assert statuses == [0, 0], out
    return torch.load(folder / 'results', weights_only=True)


@pytest.mark.parametrize('i', range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_give_the_gradients_of_one(two, i):
    gradients, loss = two[0][i]
    expected_gradients, expected_loss = one_step(CASES[i])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() >= expected_gradients.keys()
    largest = max(gradient.abs().max() for gradient in expected_gradients.values())
    assert largest > 0
    for name, gradient in gradients.items():  # a head of weight 0 has no gradient alone, and zeros here
        assert (gradient - expected_gradients.get(name, 0)).abs().max() <= 3e-5 * largest, name


def test_metrics_order_and_gathering(two):
    _, srocc, order, gathered, *_ = two
    assert srocc == pytest.approx(1)
    assert order == [0, 1, 4, 2, 3]
    assert gathered.tolist() == [[0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize('workers', [0, 2])
def test_augmentation_and_dropout_differ_between_processes(two, workers):
    first, second = two[-2][workers // 2]
    assert len(first) == len(second) == 6
    assert len(set(map(tuple, first + second))) == 12
    assert first[:2] == drawn_by(workers)[:2]  # the first process draws what one alone does


def test_each_image_comes_once_an_epoch_in_the_order_of_one_process(two):
    alone = epochs_of(28, 5, noise=0)
    for epoch, whole in enumerate(alone):
        for i, batch in enumerate(whole):
            first, second = (epochs[epoch][i] for epochs in two[-1])
            assert (batch[::2], batch[1::2]) == (first, second)
        assert sorted(chain(*whole)) == list(range(28))
    assert alone[0] != alone[1] != alone[2]


def test_a_loss_sees_the_whole_batch_in_the_order_of_one_process(two):
    assert two[4].flatten().tolist() == list(range(9))


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
    normalised, plain = nn.Sequential(nn.Linear(1, 5), nn.BatchNorm1d(5)), nn.Linear(1, 1)
    assert fewest_images(8, False, normalised) == 2
    assert fewest_images(1, False, plain) == 1
    with pytest.raises(UserError, match='--batch_size 1: at least 2 is needed for batch normalisation$'):
        fewest_images(1, False, normalised)
    monkeypatch.setattr(idist, 'get_world_size', lambda: 4)
    assert fewest_images(8, False, normalised) == 8
    with pytest.raises(UserError, match=r'--batch_size 6 is the whole batch, over 4 .* at least 8 .* 4 with --sync_bn'):
        fewest_images(6, False, normalised)
    assert fewest_images(6, True, normalised) == fewest_images(6, False, plain) == 4


# Batch normalisation over processes

@pytest.mark.parametrize('architecture', ['resnet18', 'timm/test_efficientnet'])
def test_synchronised_networks_score_as_before(architecture):
    model = create_model(architecture).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        synchronise(model)
        assert not any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in model.modules())
        torch.testing.assert_close(model(images), before)


def test_batch_normalisation_is_synchronised_on_gpus_alone(tiny, fails):
    assert '--sync_bn on cpu: expected a GPU' in fails(main.main, *tiny, *SMALL, '--sync_bn')
    assert not Path('runs').exists()


# Whole runs

PLAIN = ['--device', 'cpu', '--no-pbar', '--num_workers', '0', '-bs', '7', '-lr', '1e-3',
         '--loss_type', 'mse', '--target', '0', '100']  # of networks without batch normalisation
HYPERIQA = ['-arch', 'hyperiqa', '--weights', 'none', '--enlarge', '--augmentation', 'hflip', 'crop', '-cs_h', '224',
            '-cs_w', '224', '--fixed_augmentations', '2', '--test_crops', '2']  # variants are equal in all processes


@pytest.mark.parametrize('words', [
    ['-arch', 'svd_cnniqa_fc', '--dropout', '0', '-e', '1'],
    ['-arch', 'cnniqa', '--dropout', '0', '-e', '2', '--freeze', 'conv*', '--ema', '.5', '--clip_grad', '.1',
     '--optimizer', 'sgd'],
    [*HYPERIQA, '--backbone', 'timm/test_resnet', '-e', '2', '--freeze', 'res', '--features', 'cached',
     '--optimizer', 'sgd']])
@pytest.mark.usefixtures('one_thread')
def test_a_run_of_two_processes_is_a_run_of_one(tiny, words):
    words = [*tiny, *PLAIN, *words]
    main.main([*words, '-modelfile', 'one.pth', '--result_dir', 'one'])
    statuses, out = in_two(main.main, [*words, '-modelfile', 'two.pth', '--result_dir', 'two', '--log_dir', 'two-runs'])
    assert statuses == [0, 0], out
    assert 'by 2 processes, which share a batch of 7' in out
    assert out.count('Best epoch') == 1
    assert out.count('are frozen') == ('--freeze' in words)
    assert len(list(Path('two-runs').glob('*/events*'))) == 1
    one, two = (torch.load(file, weights_only=True)['model'] for file in ('one.pth', 'two.pth'))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    one, two = (pd.read_csv(next(Path(name).glob('*.csv'))) for name in ('one', 'two'))
    assert one['name'].tolist() == two['name'].tolist()
    np.testing.assert_allclose(one.pq, two.pq, atol=.1)


def stopping_at(iteration: int, words: list[str]) -> None:
    """main.py, asked to stop at an iteration."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, iteration)
        main.main(words)


def test_a_stopped_run_of_two_processes_ends_as_the_whole_one(tiny):
    """Each process draws its own dropout again."""
    words = [*tiny, *PLAIN, '-arch', 'cnniqa', '--dropout', '.5', '-e', '2', '--augmentation', 'hflip']
    assert in_two(main.main, [*words, '-modelfile', 'whole.pth'])[0] == [0, 0]
    words = [*words, '-modelfile', 'stopped.pth', '--log_dir', 'stopped']
    assert in_two(stopping_at, 3, words)[0] == [128 + 3, 128 + 3]
    (state,) = Path().glob('stopped.pth.*.state')
    first, second = (one['torch'] for one in read_tensors(state)['random'])
    assert not torch.equal(first, second)
    statuses, out = in_two(main.main, [*words, '--resume', 'auto'])
    assert statuses == [0, 0], out
    whole, stopped = (torch.load(file, weights_only=True)['model'] for file in ('whole.pth', 'stopped.pth'))
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(('script', 'options', 'images'), [
    pytest.param(main, ['--evaluate', '-e', '1'], 5, marks=pytest.mark.slow),
    (test_dataset, ['--part', 'all', '--dataset', 'demo'], 24)])
@pytest.mark.usefixtures('one_thread')
def test_each_image_is_tested_once_by_two_processes(tiny, script, options, images, capsys):
    main.main([*tiny, *SMALL, *MINI, '-e', '1', '-bs', '5', '-modelfile', 'c.pth'])
    words = [*tiny, *SMALL, *MINI, '-bs', '5', '-modelfile', 'c.pth', *options]
    script.main([*words, '--result_dir', 'one'])
    statuses, out = in_two(script.main, [*words, '--result_dir', 'two'])
    assert statuses == [0, 0], out
    assert out.count('Testing c.pth') == out.count('Predictions and metrics') == 1
    assert len(list(Path('two').iterdir())) == 2  # the table and its summary
    one, two = (pd.read_csv(next(Path(name).glob('*.csv'))) for name in ('one', 'two'))
    assert len(two) == images
    assert one['name'].tolist() == two['name'].tolist()
    np.testing.assert_allclose(one.pq, two.pq, rtol=1e-4)
    one, two = (json.loads(next(Path(name).glob('*.json')).read_text()) for name in ('one', 'two'))
    assert two['images'] == images
    assert one['metrics'] == pytest.approx(two['metrics'], rel=1e-4)


# torchrun itself

def torchrun(*words: str, **options) -> subprocess.Popen:
    """main.py in two processes, one thread each."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0', '--standalone',
               str(ROOT / 'main.py'), *words]
    return subprocess.Popen(command, env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, **options)


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
def test_several_data_sets_under_torchrun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_set('A', 1, 0, 100)
    make_set('B', 2, 1, 5, 14)
    words = ['--dataset', 'A.csv', 'B.csv', '--data_weights', '2', '1', '-arch', 'cnniqa', '--dropout', '0', *PLAIN,
             '--loss_type', 'norm-in-norm+mse:.1', '--target', 'zscore', '-bs', '6', '-e', '2',
             '--optimizer', 'sgd']  # Adam would turn gradients of rounding errors into whole steps
    main.main([*words, '-modelfile', 'one.pth', '--result_dir', 'one'])
    run = torchrun(*words, '-modelfile', 'two.pth', '--result_dir', 'two', '--log_dir', 'two-runs')
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    one, two = (load_checkpoint(file) for file in ('one.pth', 'two.pth'))
    for name, tensor in one['model'].items():
        torch.testing.assert_close(two['model'][name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    assert one['sets'].keys() == two['sets'].keys() == {'A', 'B'}
    assert one['split_hash'] == two['split_hash']
    for name in 'AB':
        assert two['sets'][name]['k'] == pytest.approx(one['sets'][name]['k'], rel=1e-2)
        of_one, of_two = (pd.read_csv(f'{run}/{run}-on-{name}-test.csv') for run in ('one', 'two'))
        assert of_two['name'].tolist() == of_one['name'].tolist()
        np.testing.assert_allclose(of_two.pq, of_one.pq, rtol=1e-2)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(tiny):
    run = torchrun(*tiny, *PLAIN, '-arch', 'cnniqa', '-e', '500', start_new_session=True)
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


@pytest.mark.slow
def test_an_error_of_all_processes_is_printed_once_under_torchrun(tiny):
    run = torchrun(*tiny, *SMALL, '-e', 'many')
    out, _ = run.communicate()
    assert run.returncode != 0
    assert out.count('main.py: error: ') == 1, out


def test_of_two_processes_that_make_a_mistake_one_prints_it(tiny, fails, capsys, monkeypatch):
    for rank, word in enumerate(('many', 'many', 'few')):
        monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', f'attempt_0/{rank}/error.json')  # as torchrun does
        Path('attempt_0', str(rank)).mkdir(parents=True)
        if rank != 1:
            assert f"argument -e/--epochs: '{word}' is not" in fails(main.main, *tiny, '-e', word)
        else:
            with pytest.raises(SystemExit, match='2'):
                main.main([*tiny, '-e', word])
            assert capsys.readouterr().err == ''


def test_processes_that_fail_at_once_take_turns(tmp_path, capsys, monkeypatch):
    (tmp_path / '0').mkdir()
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(tmp_path / '0/error.json'))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(report, ['it is wrong', 'it is also wrong'] * 50))
    assert sorted(capsys.readouterr().err.splitlines()) == ['it is also wrong', 'it is wrong']
