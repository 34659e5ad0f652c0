"""Model cards: what they say, from the checkpoint alone, whatever is in it."""
import hashlib
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from mini import MINI
from scored import save_photos

import main
import test_demo
from iqa_results.table_formats import places
from iqa_runtime.checkpoint import check_checkpoint, load_checkpoint, read_tensors, save_checkpoint
from iqa_runtime.split_file import split_hash
from iqa_training.card import about, card, code
from iqa_training.naming import run_name
from IQAperformance import intervals

GOOD = {'model': {'w': torch.ones(2)}, 'k': [1., 2., 3.], 'b': [0., 0., 0.]}


def printed(path, capsys) -> str:
    """What --about prints of a checkpoint."""
    capsys.readouterr()
    assert test_demo.main(['--about', str(path)]) is None
    return capsys.readouterr().out


def command_in(text: str) -> list[str]:
    """The words of the command in a card."""
    return shlex.split(text.split('```\n')[1])


def test_a_trained_model_and_its_calibration(tiny, capsys):
    words = [*tiny, *SMALL, *MINI, '-e', '2', '--beta', '0', '0', '1', '--augmentation', 'hflip']
    performance = main.main(words)
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    text = checkpoint.with_suffix('.md').read_text()
    assert printed(checkpoint, capsys) == text
    content = read_tensors(checkpoint)
    names = pd.read_csv(f'runs/{checkpoint.stem}/split.csv').image.sort_values()
    listed = hashlib.sha256(names.str.cat(sep='\n').encode() + b'\n').hexdigest()
    for line in (f'`{split_hash(content["split"])}`', f'`{listed}`', '- Data set: `demo`', '`mini`', '64x48',
                 'not human opinions', f'{content["mos"]["min"]:.4g} to {content["mos"]["max"]:.4g}, higher is better',
                 '## Intended use', '## Limits',
                 f'{performance.rmse:.{places(*content["intervals"]["test"]["RMSE"])}f} ['):
        assert line in text
    assert run_name(main.TRAIN.parse(command_in(text)[2:])) == checkpoint.stem
    checkpoint.rename('alone.pth')
    assert printed('alone.pth', capsys).splitlines()[1:] == text.splitlines()[1:]

    pd.DataFrame({'image': save_photos(Path('rated'), 20), 'mos': range(20)}).to_csv('ratings.csv', index=False)
    test_demo.main(['--calibrate', 'ratings.csv', '-modelfile', 'alone.pth', '--device', 'cpu', '--no-pbar', '--force'])
    text = Path('alone-calibrated.md').read_text()
    assert '## Calibration' in text
    assert 'MOS of the calibration ratings: 0 to 19' in text
    assert printed('alone-calibrated.pth', capsys) == text


def test_intervals_hold_the_criteria():
    rng = np.random.default_rng(0)
    mos = rng.uniform(0, 100, 200)
    found = intervals(mos + rng.normal(0, 30, 200), mos)
    narrow = intervals(mos + rng.normal(0, 3, 200), mos)
    assert found['SROCC'][0] < np.corrcoef(mos, mos + rng.normal(0, 30, 200))[0, 1] < found['SROCC'][1]
    assert narrow['RMSE'][1] < found['RMSE'][0]
    assert intervals(mos[:1], mos[:1]) == {}
    assert set(intervals(np.ones(9), mos[:9])) == {'RMSE'}


def test_a_falling_correlation_is_shown_as_its_magnitude():
    text = card({**GOOD, 'metrics': {'test': {'SROCC': -.9, 'RMSE': 2., 'PLCC': float('nan')}},
                 'intervals': {'test': {'SROCC': [-.95, .1]}}}, 'x')
    assert '| test | 0.90 [-0.10, 0.95] | - | 2.0000 | - |' in text


def test_a_checkpoint_of_the_original_package(tmp_path, capsys):
    torch.save(GOOD, tmp_path / 'old.pth')
    text = printed(tmp_path / 'old.pth', capsys)
    assert text.startswith('# Model card: `old`\n\n## Model\n\n- Weights: 2 numbers\n')
    assert '## Data' not in text
    assert '## Limits' in text


def test_text_from_a_checkpoint_is_escaped(tmp_path):
    evil = 'a`\x1b[31m\n# Title\u202e|<script>'
    save_checkpoint(tmp_path / 'x.pth', {
        **GOOD, 'dataset': evil, 'split_hash': evil, 'network': {'name': evil, 'options': {evil: evil}},
        'input': {'preprocessing': {}, 'normalise': evil}, 'metrics': {evil: {evil: 1.}, 'test': {'SROCC': evil}},
        'calibration': {'kind': evil, 'images': [evil]},
        'options': {'pool': evil, evil: evil, 'split_file': '$(touch ran)', 'augmentation': ['hflip', '--csv', 'x'],
                    'weights': 'w' * 999, 'batch_size': 4, 'resize': True}})
    text = about(tmp_path / 'x.pth')
    assert all(line.isprintable() for line in text.splitlines())
    assert not any(line.startswith('# ') for line in text.splitlines()[1:])
    assert '<script>' not in text.replace(code(evil), '').replace(code(f'{evil} {evil}'), '').replace(
        code(f'kind {evil}'), '').replace(code(f'images {evil}'), '')
    assert command_in(text) == ['python', 'main.py', '--split_file', '$(touch ran)', '--batch_size', '4', '--resize']
    assert '3 of its options are left out' in text


def test_a_card_of_many_options_is_short():
    options = {f'o{i}': 'x' * 999 for i in range(999)}
    checkpoint = check_checkpoint({**GOOD, 'network': {'name': 'n', 'options': options},
                                   'versions': dict.fromkeys(map(str, range(999)), 'v' * 999)}, 'x')
    assert len(card(checkpoint, 'n' * 999)) < 10_000


@pytest.mark.parametrize('content', [b'', b'text'])
def test_files_that_have_no_card(tmp_path, content, fails):
    (tmp_path / 'x.pth').write_bytes(content)
    assert 'x.pth: not a checkpoint' in fails(test_demo.main, '--about', tmp_path / 'x.pth')
    assert 'give either --img' in fails(test_demo.main, '--about', tmp_path / 'x.pth', '--img', 'a.png')


def test_a_run_without_a_test_part(tiny):
    main.main([*tiny, *SMALL, *MINI, '-e', '1', '--split', 'kfold', '--folds', '2', '--test_fold', 'none',
               '--trained_model_file', 'm.pth'])
    assert '| val |' in Path('m.md').read_text()
    assert 'intervals' not in load_checkpoint('m.pth')
