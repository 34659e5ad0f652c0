"""The doors for Python: the loop of the README, loading data, evaluating, training in process."""
import re

import numpy as np
import pytest
import torch
from conftest import ROOT

import main
from iqa_data.info import read_info, write_table
from iqa_data.splits import SplitPlan
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN
from IQAdataset import load_data
from IQAloss import IQALoss
from IQAmodel import create_model
from IQAperformance import IQAPerformance, evaluate


@pytest.fixture
def csv(tiny, tmp_path):
    """The info file of the tiny data set as a table, beside its images."""
    write_table(tmp_path / 'tiny/images/tiny.csv', read_info(tmp_path / 'tiny/info.mat'))
    return 'tiny/images/tiny.csv'


def test_the_loop_of_the_documentation_runs(csv, capsys):
    loop, = re.findall(r'```python\n(import torch\n.*?)```', (ROOT / 'docs/python.md').read_text(), re.S)
    assert loop.count("load_data('demo'") == 1
    exec(loop.replace("'demo'", repr(csv)), {})
    assert re.findall(r'^[01] -?[01]\.\d+$', capsys.readouterr().out, re.M)


def test_a_loop_by_hand_is_the_run_of_main(tiny, tmp_path):
    """The doors compute what main.py computes: two steps of Adam give the same weights and the same performance."""
    performance = main.train(dataset='demo', im_dir=tmp_path / 'tiny/images', data_info='tiny/info.mat', epochs=1,
                             architecture='resnet18', weights='none', opt_level='O0', device='cpu', pbar=False,
                             num_workers=0, batch_size=7)
    trained = load_checkpoint(next((tmp_path / 'checkpoints').glob('*.pth')))['model']

    write_table(tmp_path / 'tiny/images/tiny.csv', read_info('tiny/info.mat'))
    torch.manual_seed(19920517)
    model = create_model('resnet18')
    split, = (tmp_path / 'runs').glob('*/split.csv')
    data = load_data('tiny/images/tiny.csv', split, batch_size=7)
    groups = [{'params': list(model.backbone.parameters()), 'lr': 1e-5},
              {'params': [p for name, p in model.named_parameters() if not name.startswith('features')], 'lr': 1e-4}]
    optimizer, loss_fn = torch.optim.Adam(groups), IQALoss()
    for images, scores in data.loader('train'):
        optimizer.zero_grad()
        loss_fn(model.train()(*model.prepare(images)), scores).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=1e-4, atol=1e-5, msg=name)
    line = evaluate(model, data.evaluation_loader('train'))
    again = evaluate(model, data.loader('test'), IQAPerformance('test', line.k, line.b))
    np.testing.assert_allclose(again.pq, performance.pq, rtol=1e-3)
    assert again.criteria == pytest.approx(performance.criteria, rel=1e-3)


def test_load_data_says_what_it_takes(csv, tmp_path):
    data = load_data(csv, split='reference', resize=(32, 40), batch_size=5, cache='none')
    assert {part: len(names) for part, names in data.names.items()} == {'train': 14, 'val': 5, 'test': 5}
    (images,), (mos, std) = next(iter(data.loader('train')))
    assert (images.shape, images.dtype, mos.shape, std.shape) == ((5, 3, 32, 40), torch.uint8, (5, 1), (5, 1))
    folds = [load_data(csv, SplitPlan('kfold', fold=fold, folds=3), cache='none').names['val'] for fold in range(3)]
    every = [name for names in data.names.values() for name in names]
    assert sorted(name for fold in folds for name in fold) == sorted(every)
    seen = torch.cat([mos for _, (mos, _) in data.loader('val')])
    assert torch.equal(seen, data.datasets['val'].mos)
    for call, text in ((lambda: load_data('KonIQ-9k'), 'unknown data set .KonIQ-9k.*did you mean KonIQ-10k'),
                       (lambda: load_data(csv, 'sideways'), 'unknown split'),
                       (lambda: data.loader('training'), 'unknown part .training.*did you mean train')):
        with pytest.raises(UserError, match=text):
            call()


@pytest.mark.parametrize('rule', NORMALISATIONS)
def test_a_network_prepares_images_by_its_own_rule(rule):
    model = create_model('cnniqa')
    model.normalise = rule
    images = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    ours, = model.prepare(images)
    row = NORMALISATIONS[rule]
    expected = (images.flip(1) if row.bgr else images).double() / 255
    for channel, (mean, std) in enumerate(zip(row.mean, row.std, strict=True)):
        expected[:, channel] = (expected[:, channel] - mean) / std
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.prepare((images * 0, images))[0], ours)          # of a pair, the distorted image
    torch.testing.assert_close(model.prepare(images / 255)[0], ours, rtol=0, atol=1e-6)  # floats in 0..1


def test_train_refuses_what_main_refuses(tiny):
    for options, text in (({'epochs': 0}, "the option 'epochs'"), ({'epoch': 1}, "'epoch' is no option"),
                          ({'dataset': 'demo', 'p': 2, 'loss_type': 'mae'}, '--p'), ({'folds': 4}, '--folds')):
        with pytest.raises(UserError, match=text):
            main.train(**options)


def test_options_of_python_are_those_of_the_command_line(tiny):
    typed = TRAIN.parse(['--recipe', 'maniqa_384', '-e', '3', '--beta', '0', '1', '2', '-rs', '--no-pbar'])
    given = TRAIN.options('maniqa_384', epochs=3, beta=(0, 1, 2), resize=True, pbar=False)
    assert given.values == typed.values
    assert given.given == typed.given
