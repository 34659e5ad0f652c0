"""reproduce.py asna: ranker, pretraining, fine-tuning, and the mean of the networks' predictions."""
import shlex
from types import SimpleNamespace

import pytest
from conftest import ROOT
from pairs import make_pairs

from iqa_studies import engines
from iqa_training.naming import LONGEST, joined
from iqa_training.train_ranker import main as train_ranker
from results_in_the_paper import reproduce

SMALL = shlex.split('--dataset pairs/pairs.csv --im_dir pairs/images --ref_dir pairs/references --split reference '
                    '-tr .7 -tvr 1 --test_fold val --resize -rs_h 16 -rs_w 16 --img_size 16 --target zscore -bs 4 -e 1 '
                    '--cache none --device cpu --no-pbar --ranker ranker.pth')


def dry_run(capsys, *words: str) -> list[list[str]]:
    assert reproduce.main(['asna', '--dry_run', *words]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_the_whole_chain(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = dry_run(capsys, '--device', 'cpu')
    scripts = [line[1].removeprefix(f'{ROOT}/') for line in lines]
    assert scripts == ['iqa_training/train_ranker.py', *['main.py'] * 14, 'test_dataset.py']
    recipes = [line[line.index('--recipe') + 1] for line in lines if '--recipe' in line]
    assert sum(recipe.endswith('_pretrained') for recipe in recipes) == 5
    assert len(recipes) == 14
    assert not any(recipe.endswith('_pretrained') for recipe in recipes[-5:])  # those that start from them come last
    started = {line[line.index('--recipe') + 1]: line[line.index('--pretrained') + 1] for line in lines
               if '--pretrained' in line}
    assert set(started) == {'asna_model1', 'asna_model2', 'asna_bn', 'asna_attention', 'asna_tiled'}
    assert 'asna_pretrain' in started['asna_tiled']
    assert sum(word.endswith('.pth') for word in lines[-1]) == 9


def test_some_of_the_networks(capsys, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    lines = dry_run(capsys, '--models', 'model4', 'bn', '--ranker', 'mine.pth')
    recipes = [line[line.index('--recipe') + 1] for line in lines if '--recipe' in line]
    assert recipes == ['asna_bn_pretrained', 'asna_model4', 'asna_bn']
    assert len(lines) == 4
    assert 'unknown network of asna' in fails(reproduce.main, 'asna', '--models', 'model9')
    assert '--im_dir: asna trains on several data sets' in fails(reproduce.main, 'asna', '--im_dir', str(tmp_path))


@pytest.mark.usefixtures('one_thread')
def test_the_chain_in_miniature(capsys, tmp_path, monkeypatch):
    """Its runs share this process: they start sooner than in processes of their own, which test_reproduce.py has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, 'Runner', lambda free: SimpleNamespace(
        run=lambda jobs: engines.inline(jobs, tmp_path, engines.Resources())))
    make_pairs(tmp_path / 'pairs')
    train_ranker(shlex.split('--rows 50 -e 1 -bs 32 --ranker_size 4 --ranker ranker.pth --device cpu --no-pbar'))
    assert reproduce.main(['asna', '--models', 'model1', 'model3', *SMALL]) == 0
    out = capsys.readouterr().out
    assert out.count('Best epoch 1') == 3
    row = next(line for line in out.splitlines() if line.startswith('asna, ensemble SROCC'))
    assert 'no result' not in row
    assert reproduce.main(['asna', '--models', 'model1', 'model3', *SMALL]) == 0
    assert capsys.readouterr().out.startswith('4 of 4 runs are done\n')


def test_long_names_of_several_models_differ():
    names = ['a' * 100, 'b' * 100]
    assert joined(['a', 'b']) == 'a+b'
    assert joined(names[:1]) == names[0]
    assert joined(names) != joined([*names, 'c'])
    assert len(joined(names * 9)) == LONGEST + 9
