"""Options at their extremes: an answer or one line of error, never a traceback."""
import argparse
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mini import MINI

import main
import test_dataset
import test_demo
from iqa_networks.size import too_small
from iqa_scoring.options import EXPORT, SCORE, TEST
from iqa_training.options import TRAIN
from iqa_training.run import RunPlan
from IQAmodel import LinearityIQA, create_model

VALUES = ('0', '1', '-1', '2', '5e-4', '.5', '40', '101', '1000000', '1e308', '-1e308', '1e-320', 'nan', 'inf', '',
          str(2 ** 31), str(2 ** 64), '9' * 20, '9' * 5000, 'none', 'meta', 'auto', 'x', 'zscore', '\x1b[31m', '\udcff',
          'ä', '*', '../..', '/dev/null', '/proc/self/mem')
# these may cost what they ask for: processes, sockets, a compiler
COSTLY = {'compile', 'num_workers', 'list_models', 'img', 'cache_dir', 'ranker', 'recipe'}


def words_of(action: argparse.Action) -> st.SearchStrategy:
    """Return a strategy for an option with as many values as it takes."""
    least, most = {None: (1, 1), '?': (0, 1), '*': (0, 3), '+': (1, 3)}.get(action.nargs, (action.nargs, action.nargs))
    values = st.lists(st.sampled_from(VALUES), min_size=least, max_size=most)
    return st.builds(lambda name, values: [name, *values], st.sampled_from(action.option_strings), values)


def lines(command, most: int = 3) -> st.SearchStrategy:
    """Return a strategy for one to `most` options of a command, at their extremes."""
    actions = [action for name, action in command.actions.items() if name not in COSTLY and action.option_strings]
    options = st.lists(st.one_of([words_of(action) for action in actions]), min_size=1, max_size=most)
    return options.map(lambda some: [word for words in some for word in words])


def status(call, words: list[str]) -> int:
    """Call a command; return its exit status."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            call(words)
    except SystemExit as stop:
        return stop.code
    return 0


def check(call, words: list[str], capsys) -> None:
    """Call a command; its status must be 0, 2 with a line of error, or 1 if images cannot be scored."""
    capsys.readouterr()
    code = status(call, words)
    error = capsys.readouterr().err
    assert code in (0, 1, 2), (words, error)
    assert code != 2 or 'error: ' in error.splitlines()[-1], (words, error)


QUICK = {'deadline': None, 'database': None, 'suppress_health_check': list(HealthCheck), 'derandomize': True}


@pytest.mark.parametrize('command', [TRAIN, TEST, SCORE, EXPORT])
def test_any_words_parse_or_are_refused_in_one_line(command, capsys):
    @settings(max_examples=80, **QUICK)
    @given(lines(command))
    def some(words):
        check(command.parse, words, capsys)
    some()


@pytest.fixture
def short(tiny, monkeypatch, one_thread):
    """A tiny data set, and runs of two epochs at most."""
    monkeypatch.setattr(main, 'RunPlan', lambda epochs, **others: RunPlan(epochs=min(epochs, 2), **others))
    return [*tiny, *SMALL, *MINI, '-e', '1', '--debug']


def test_any_run_ends_or_is_refused_in_one_line(short, capsys):
    @settings(max_examples=24, **QUICK)
    @given(lines(TRAIN))
    def some(words):
        check(main.main, [*short, *words], capsys)
        for name in ('checkpoints', 'results', 'runs'):
            shutil.rmtree(name, ignore_errors=True)
    some()


def test_any_test_and_score_ends_or_is_refused_in_one_line(short, capsys):
    main.main([*short, '-modelfile', 'c.pth'])
    given_always = ['-modelfile', 'c.pth', '--device', 'cpu', '--no-pbar', '--num_workers', '0']

    @settings(max_examples=16, **QUICK)
    @given(lines(TEST), lines(SCORE))
    def some(test, score):
        check(test_dataset.main, [*given_always, '--im_dir', 'tiny/images', *test], capsys)
        check(test_demo.main, [*given_always, '--img', 'tiny/images', *score], capsys)
    some()


@pytest.mark.parametrize('line', [
    f'--seed {2 ** 64}', f'--seed {2 ** 64 - 1}', '-lr 1e308', '-lr 1e9', '-ag 1e300', '-q 5e-4', '-q .05', '-p 100',
    '-P6 40', '-P7 65', '-rs_h 1000000', '-rs_h 32768 -rs_w 1', '--device meta', f'-P7 {"9" * 20}', '-bs 1000000000',
    '-e 1000000000', '-accum 1000000000', '-wd 1e9', '-flr 1e9', '-g 1e9 -monoreg', '-a 1e9 1e9', '-b 1e9 1e9 1e9',
    '-augment -cs_h 32768', '-lrd 1e-320', '-olrd 1e-320', '-lrd 1 -olrd 1', '--split kfold --folds 1000000',
    f'--split_seed {2 ** 32 - 1} --split random', '--exp_id 1000000000', '--target 0 1e-320', '--target 0 1e308',
    '--target zscore 1e308 1e-320', '--keep 1000000000', '--val_every 1000000000', '--patience 1000000000'])
def test_chosen_extremes(line, short, capsys):
    check(main.main, [*short, *line.split()], capsys)
    assert not [path for path in Path().rglob('*.tmp') if path.is_file()]


def test_memory_that_cannot_be_had_is_refused_before_it_is_asked_for(short, fails):
    error = fails(main.main, *short, '-arch', 'resnext101_32x8d', '-P6', '64', '-P7', '64')
    assert 'not enough memory for resnext101_32x8d with --P6 64, --P7 64' in error


def test_images_that_are_too_small_for_the_network(short, fails):
    error = fails(main.main, *short, '-rs_h', '9', '-rs_w', '9')
    assert 'the network cannot take images of this size' in error
    assert 'see --resize_size_h and --resize_size_w' in error


@pytest.mark.parametrize('part', ['train', 'val'])
def test_a_fault_that_speaks_of_sizes_or_of_memory_is_no_limit(short, monkeypatch, part):
    forward = LinearityIQA.forward

    def faulty(self, *images):
        if self.training == (part == 'train'):
            raise RuntimeError('The size of tensor a (3) must match the size of tensor b (4) in memory')
        return forward(self, *images)
    monkeypatch.setattr(LinearityIQA, 'forward', faulty)
    with pytest.raises(RuntimeError, match='The size of tensor a'):
        main.main(short)


def test_too_little_memory(short, monkeypatch, fails):
    monkeypatch.setattr(LinearityIQA, 'forward', lambda *_: torch.empty(10 ** 15))
    assert 'not enough memory' in fails(main.main, *short)


@pytest.mark.parametrize(('name', 'fits'), [('alexnet', 63), ('svd_cnniqa_fc', 7)])
def test_the_smallest_image_that_a_network_takes(name, fits):
    network = create_model(name)
    assert not too_small(network, [torch.zeros(2, 3, fits, fits)])
    assert too_small(network, [torch.zeros(2, 3, fits - 1, fits)])
    assert network.training
