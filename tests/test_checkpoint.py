"""Checkpoints: they say how they were made, survive, and run nothing."""
import math
import os
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_runtime.checkpoint import (
    CHECKS,
    check_checkpoint,
    checksum,
    load_checkpoint,
    load_weights,
    read_tensors,
    save_checkpoint,
)
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_training.card import card


class Payload:
    """What a hostile file would run when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / 'c.pth', {'model': {'w': torch.ones(2)}, 'k': [1., 2., 3.], 'b': [0., 0., 0.]})
    checkpoint = load_checkpoint(tmp_path / 'c.pth')
    assert checkpoint['k'] == [1, 2, 3]
    assert {'python', 'torch', 'torchvision'} <= set(checkpoint['versions'])
    assert read_tensors(tmp_path / 'c.pth')['format'] == 2


@pytest.mark.parametrize('convert', [list, np.array, lambda values: [np.float64(v) for v in values],
                                     lambda values: list(np.array(values, np.float32))])
def test_one_of_the_original_package(tmp_path, convert):
    torch.save({'model': {'w': torch.ones(2)}, 'optimizer': {'state': {0: {'step': 3}}, 'param_groups': []},
                'amp': {'loss_scaler0': {'loss_scale': 65536.0, 'unskipped': 3}},
                'k': convert([1.5, 2, 3]), 'b': convert([4, 5, 6])}, tmp_path / 'original')
    checkpoint = load_checkpoint(tmp_path / 'original')
    assert checkpoint['k'] == [1.5, 2, 3]
    assert all(type(value) is float for value in checkpoint['b'])


@pytest.mark.parametrize('kind', [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_numbers_that_no_network_has(tmp_path, kind):
    save_checkpoint(tmp_path / 'c.pth', {'model': {'w': torch.ones(2).to(kind)}, 'k': [1.], 'b': [0.]})
    with pytest.raises(UserError, match=f'c.pth: model: expected numbers of 16, 32 or 64 bits, but w has {kind}'):
        load_checkpoint(tmp_path / 'c.pth')


def test_a_hostile_file_runs_nothing(tmp_path):
    for name, content in (('whole', Payload(tmp_path / 'ran')),
                          ('inside', {'model': {}, 'k': Payload(tmp_path / 'ran'), 'b': [1]})):
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=f'{name}: not a checkpoint .*mkdir'):
            load_checkpoint(tmp_path / name)
    (tmp_path / 'plain').write_bytes(pickle.dumps(Payload(tmp_path / 'ran')))
    with pytest.raises(UserError, match='plain: not a checkpoint'):
        load_checkpoint(tmp_path / 'plain')
    assert not (tmp_path / 'ran').exists()


def test_files_that_are_none(tmp_path):
    torch.save({'model': {}, 'k': [1], 'b': [1]}, tmp_path / 'good')
    data = (tmp_path / 'good').read_bytes()
    (tmp_path / 'cut').write_bytes(data[:len(data) // 2])
    (tmp_path / 'text').write_text('hello')
    (tmp_path / 'empty').write_bytes(b'')
    torch.save({'epoch': 3}, tmp_path / 'other')
    torch.save(torch.ones(3), tmp_path / 'tensor')
    torch.save({'model': {}, 'k': [1], 'b': [1], 'format': 99}, tmp_path / 'newer')
    for name, message in (('empty', 'not a checkpoint'), ('cut', 'not a checkpoint, or a corrupt one'),
                          ('text', 'not a checkpoint'),
                          ('other', r"expected the keys model, k and b, found \['epoch'\]"), ('gone', 'no such file'),
                          ('tensor', 'found Tensor'), ('newer', 'format 99, this one reads 2')):
        with pytest.raises(UserError, match=f'{name}: .*{message}'):
            load_checkpoint(tmp_path / name)


def test_weights_of_another_network():
    with pytest.raises(UserError, match=r'x.pth: the weights are not those of this network, check --architecture.*w'):
        load_weights(torch.nn.Linear(2, 1), {'model': {'w': torch.ones(2)}}, 'x.pth')


GOOD = {'model': {'w': torch.ones(2)}, 'k': [1., 2., 3.], 'b': [0., 0., 0.]}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2 ** 70, 2 ** 70) | st.floats() | st.text(max_size=5)
    | st.sampled_from([torch.ones(2), torch.tensor(float('nan')), torch.zeros(0), torch.ones(1, dtype=torch.int8)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 3), inner,
                                                                max_size=3), max_leaves=5)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from([*sorted(CHECKS), 'format']), value=ODD)
def test_any_value_is_taken_or_refused_in_one_line(key, value):
    message = ''
    try:
        checkpoint = check_checkpoint({**GOOD, key: value}, 'x.pth')
    except UserError as error:
        message = str(error)
    if message:
        assert 'x.pth: ' in message
        assert key in message
        assert '\n' not in message
    else:
        assert all(np.isfinite(checkpoint['k']))
        assert all(line.isprintable() for line in card(checkpoint, 'x').splitlines())


@pytest.mark.parametrize(('change', 'message'), [
    ({'k': 'abc'}, 'k: expected a list, each item a finite number'), ({'k': None}, 'k: expected a list'),
    ({'k': []}, 'k: expected a list'), ({'k': [1., 2.]}, 'k has 2 values and b 3'),
    ({'b': [0., math.nan, 0.]}, 'b: expected a finite number'), ({'options': []}, 'options: expected a dictionary'),
    ({'preprocessing': 3}, 'preprocessing: expected a dictionary'),
    ({'preprocessing': {'resize': (0, 5)}}, 'preprocessing: expected a side in pixels'),
    ({'mos': [1]}, 'mos: expected a dictionary with values, min, max, higher_is_better'),
    ({'mos': {'values': torch.ones(2), 'min': 1., 'max': 1., 'higher_is_better': 'false'}}, 'mos: expected true or f'),
    ({'intervals': {'test': {'SROCC': [.9, .8]}}}, 'intervals: expected the two ends of an interval'),
    ({'mapping': {'name': 'linear'}}, 'mapping: expected a dictionary with name, parameters'),
    ({'model': {'w': torch.tensor([1., math.inf])}}, 'model: expected finite numbers, but w contains NaN or infinity'),
    ({'split': {'train': [1]}}, 'split: expected a text'), ({'epoch': -3}, 'epoch: expected a whole number'),
    ({'format': 'new'}, 'format: expected a whole number'),
    ({'options': {'architecture': 3}}, 'options: architecture: expected a text')])
def test_values_that_are_not_as_documented(change, message):
    with pytest.raises(UserError, match=re.escape(f'x.pth: {message}')):
        check_checkpoint({**GOOD, **change}, 'x.pth')


def test_keys_that_are_not_known_are_left_out():
    assert set(check_checkpoint({**GOOD, 'csv': 'out.csv', 'optimizer': {}}, 'x.pth')) == set(GOOD)


def test_format_1_is_read_as_format_2():
    one = check_checkpoint({**GOOD, 'format': 1, 'options': {'architecture': 'resnet18', 'P6': 2, 'seed': 1},
                            'preprocessing': {'resize': (48, 64), 'first_resize': None}, 'metrics': {'test': {}}}, 'x')
    assert one['network'] == {'name': 'resnet18', 'options': {'P6': 2}}
    assert one['input'] == {'preprocessing': {'resize': (48, 64), 'first_resize': None}, 'normalise': 'imagenet'}
    assert one['finished'] is True


def test_a_checksum_sees_a_flipped_bit():
    content = {'model': {'w': torch.arange(6.), 'n': torch.tensor(3)}, 'random': [1, 'x', None], 'k': {'a': 2.5}}
    same = {**content, 'model': {'w': torch.arange(6.), 'n': torch.tensor(3)}}
    assert checksum(content) == checksum(same)
    same['model']['w'].view(torch.int32)[3] ^= 1
    assert checksum(content) != checksum(same)
    for other in ({**content, 'k': {'a': 2.5000001}}, {**content, 'random': [1, 'y', None]},
                  {**content, 'model': {'w': torch.arange(6.).view(2, 3), 'n': torch.tensor(3)}}):
        assert checksum(content) != checksum(other)


def test_a_failed_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / 'file'
    path.write_text('before')

    def disk_full():
        with replacing(path) as temporary:
            temporary.write_text('half')
            raise OSError(28, 'No space left on device')
    with pytest.raises(UserError, match=r'cannot write .*file: No space left'):
        disk_full()
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match='cannot write'), replacing(path / 'below' / 'a' / 'file'):
        pass
