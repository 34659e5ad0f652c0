"""Checkpoints: they say how they were made, survive, and run nothing."""
import os
import pickle

import numpy as np
import pytest
import torch

from iqa_runtime.checkpoint import adopt, load_checkpoint, load_weights, save_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_scoring.options import TEST


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
    assert checkpoint['format'] == 1


@pytest.mark.parametrize('convert', [list, np.array, lambda values: [np.float64(v) for v in values],
                                     lambda values: list(np.array(values, np.float32))])
def test_one_of_the_original_package(tmp_path, convert):
    torch.save({'model': {'w': torch.ones(2)}, 'optimizer': {'state': {0: {'step': 3}}, 'param_groups': []},
                'amp': {'loss_scaler0': {'loss_scale': 65536.0, 'unskipped': 3}},
                'k': convert([1.5, 2, 3]), 'b': convert([4, 5, 6])}, tmp_path / 'original')
    checkpoint = load_checkpoint(tmp_path / 'original')
    assert checkpoint['k'] == [1.5, 2, 3]
    assert all(type(value) is float for value in checkpoint['b'])


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
    torch.save({'epoch': 3}, tmp_path / 'other')
    torch.save(torch.ones(3), tmp_path / 'tensor')
    torch.save({'model': {}, 'k': [1], 'b': [1], 'format': 99}, tmp_path / 'newer')
    for name, message in (('cut', 'not a checkpoint, or a corrupt one'), ('text', 'not a checkpoint'),
                          ('other', r"expected the keys model, k and b, found \['epoch'\]"),
                          ('gone', 'no such checkpoint'), ('tensor', 'found Tensor'),
                          ('newer', 'format 99, this one reads 1')):
        with pytest.raises(UserError, match=f'{name}: .*{message}'):
            load_checkpoint(tmp_path / name)


def test_weights_of_another_network():
    with pytest.raises(UserError, match=r'x.pth: the weights are not those of this network, check --architecture.*w'):
        load_weights(torch.nn.Linear(2, 1), {'model': {'w': torch.ones(2)}}, 'x.pth')


def test_options_come_from_the_checkpoint_and_conflicts_name_both():
    checkpoint = {'options': {'architecture': 'resnet18', 'resize': True}}
    args = TEST.parse(['--resize'])
    adopt(args, checkpoint, 'x.pth')
    assert args.architecture == 'resnet18'
    args = TEST.parse(['-arch', 'resnet50'])
    with pytest.raises(UserError, match=r'--architecture resnet50 conflicts with x.pth, .* trained with resnet18'):
        adopt(args, checkpoint, 'x.pth')


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
