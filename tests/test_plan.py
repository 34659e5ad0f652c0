"""--plan: the costs of a run before it starts, which trains and writes nothing."""
import re
from pathlib import Path

import pytest
from conftest import SMALL
from mini import MINI
from torch import nn

import main
from iqa_training.dry_run import macs
from IQAmodel import create_model

pytestmark = pytest.mark.usefixtures('one_thread')


def planned(capsys, *words: str) -> dict[str, str]:
    """The report of --plan: title -> text; a line without a title has the title ''."""
    capsys.readouterr()
    assert main.main([*words, '--plan']) is None
    lines = capsys.readouterr().out.splitlines()
    return {line[:18].strip(): line[18:] for line in lines}


def files() -> set[Path]:
    """All files in the working directory."""
    return {path for path in Path().rglob('*') if path.is_file()}


def test_the_report_of_a_run(tiny, capsys):
    before = files()
    words = [*tiny, *SMALL, *MINI, '-bs', '4', '-e', '3', '--augmentation', 'hflip', '--pretrained', 'gone.pth']
    report = planned(capsys, *words)
    assert files() == before
    network = create_model('mini')
    assert f'{sum(p.numel() for p in network.parameters()):,} parameters' in report['network']
    assert '64x48 (w x h)' in report['network']
    counts = [int(count) for count in re.findall(r'(\d+) (?:train|val|test)', report['images'])]
    assert sum(counts) == 24
    assert report['cache'].startswith(f'{24 * 48 * 64 * 3 / 1e6:.1f} MB of disk')
    assert 'measured' in report['memory of a step']
    assert 'GPU, estimated' in report['']
    assert report['an epoch'].startswith(f'{-(-counts[0] // 4)} steps')
    args, again = main.TRAIN.parse(words), main.TRAIN.parse(report['command'].split()[2:])
    assert again.values == args.values


def test_it_needs_the_info_file_only_for_counts(tmp_path, monkeypatch, capsys, fails):
    monkeypatch.chdir(tmp_path)
    report = planned(capsys, *SMALL, *MINI, '--dataset', 'KonIQ-10k', '-bs', '2')
    assert 'not known' in report['images']
    assert not {'cache', 'an epoch'} & set(report)
    assert 'the median of 10' in report['a step']
    assert not files()
    assert 'give --resize' in fails(main.main, '--plan', *MINI, '--dataset', 'KonIQ-10k')


@pytest.mark.parametrize('words', [
    '--train_crops 2 --augmentation crop --crop_size_h 32 --crop_size_w 32', '--head histogram --loss_type emd',
    '--loss_type macs --target zscore -bs 20', '--optimizer sgd -optl bf16', '-flr 0', '--lora features.*'])
def test_other_runs(tiny, capsys, words):
    report = planned(capsys, *tiny, *SMALL, *MINI, '-bs', '4', *words.split())
    assert 'GB' in report['memory of a step'] or 'MB' in report['memory of a step']
    assert not Path('checkpoints').exists()


def test_a_larger_batch_keeps_more(tiny, capsys):
    def bytes_of(*words: str) -> float:
        number, unit = planned(capsys, *tiny, *SMALL, *words)[''].split()[:2]
        return float(number) * {'MB': 1, 'GB': 1e3}[unit]
    two, four, float32 = (bytes_of(*MINI, '-bs', *words.split()) for words in ('2', '4', '4 -optl O0'))
    assert two < four < float32


class Convolution(nn.Conv2d):
    """A network of one layer."""

    inputs = 1


def test_macs_of_a_convolution():
    assert macs(Convolution(3, 8, 5, padding=2), (6, 7)) == 6 * 7 * 8 * 3 * 25


@pytest.mark.parametrize(('words', 'message'), [
    ('--evaluate', 'leave out --evaluate'), ('--features cached -flr 0', 'cannot plan those on cached features'),
    ('--probe ridge -flr 0', 'cannot plan those on cached features'),
    ('-bs 1', '--batch_size 1: at least 2 is needed for batch normalisation'),
    ('-arch cnniqa -lt mse -valc PLCC1', '--val_criterion PLCC1 needs a network of 2 heads')])
def test_what_cannot_be_planned(tiny, fails, words, message):
    assert message in fails(main.main, *tiny, *SMALL, *MINI, '--plan', *words.split())
