"""A run's TensorBoard curves as CSV files under the names that the figures read."""
import json
import shlex

import pytest
from torch.utils.tensorboard import SummaryWriter

from iqa_results.curves import read_curve, read_scalars
from iqa_runtime.errors import UserError
from iqa_studies.found import differences
from iqa_studies.steps import typed_number
from iqa_training.options import TRAIN
from results_in_the_paper import export_csv, sources


def options(**change) -> dict:
    """Options as options.json holds them: lists for tuples, and names that no figure asks for."""
    return json.loads(json.dumps({**{name: TRAIN.defaults[name] for name in TRAIN.names()}, 'resize': True, **change,
                                  'run_name': 'a-run'}))


def make_run(folder, curves: dict, **change):
    """A TensorBoard folder with options.json and {tag: values}, steps from 1."""
    with SummaryWriter(str(folder)) as writer:
        for tag, values in curves.items():
            for step, value in enumerate(values, 1):
                writer.add_scalar(tag, value, step)
    (folder / 'options.json').write_text(json.dumps(options(**change)))
    return folder


TAGS = [f'{part}/KonIQ-10k/{metric}' for part in ('train', 'val', 'test')
        for metric in ('SROCC', 'PLCC', 'RMSE', 'KROCC')]


@pytest.mark.parametrize(('change', 'tag', 'names'), [
    ({'loss_type': 'mae'}, 'train/KonIQ-10k/RMSE', ['loss=mae-train_KonIQ-10k_RMSE']),
    ({'loss_type': 'mse'}, 'val/KonIQ-10k/SROCC', ['loss=mse-val_KonIQ-10k_SROCC', 'MSE_SROCC']),
    ({'loss_type': 'mse', 'use_bn_end': True}, 'val/KonIQ-10k/PLCC', ['bnMSE_PLCC']),
    ({'loss_type': 'Lp'}, 'val/KonIQ-10k/SROCC', ['loss=norm-in-norm-val_KonIQ-10k_SROCC', 'Norm-in-Norm_SROCC',
                                                  'size=498x664-val_KonIQ-10k_SROCC']),
    ({'loss_type': 'mae', 'p': 2, 'q': 1}, 'test/KonIQ-10k/PLCC', ['loss=mae-test_KonIQ-10k_PLCC']),
    ({'architecture': 'resnet50', 'learning_rate': 1e-3}, 'val/KonIQ-10k/PLCC',
     ['loss=norm-in-norm-lr=1e-3-val_KonIQ-10k_PLCC']),
    ({'architecture': 'resnet50', 'loss_type': 'mae'}, 'val/KonIQ-10k/PLCC',
     ['loss=mae-lr=1e-4-val_KonIQ-10k_PLCC', 'loss=mae-bs=8-val_KonIQ-10k_PLCC',
      'loss=mae-ft_lr_ratio=0.1-val_KonIQ-10k_PLCC']),
    ({'resize': False, 'resize_size_h': 768, 'resize_size_w': 1024}, 'val/KonIQ-10k/PLCC',
     ['size=768x1024-val_KonIQ-10k_PLCC']),
    ({'loss_type': 'mae', 'weights': '/models/x.pth'}, 'val/KonIQ-10k/SROCC', ['loss=mae-val_KonIQ-10k_SROCC']),
])
def test_names_follow_from_the_options(change, tag, names):
    found = export_csv.file_names(options(**change), TAGS)
    assert sorted(found[tag]) == sorted(names)
    assert 'val/KonIQ-10k/KROCC' not in found  # no figure reads it


@pytest.mark.parametrize('change', [{'p': 2}, {'alpha': [1, .1]}, {'epochs': 2}, {'seed': 1}, {'weights': 'none'},
                                    {'exp_id': 3}, {'debug': True}, {'architecture': 'resnet18'}])
def test_a_run_that_no_figure_uses_is_named_after_itself(change):
    found = export_csv.file_names(options(**change), TAGS)
    assert found['val/KonIQ-10k/PLCC'] == ['a-run-val_KonIQ-10k_PLCC']
    assert len(found) == len(TAGS)


def test_base_makes_figures_of_another_setting():
    run = options(dataset='demo', architecture='resnet18', epochs=5, loss_type='mse')
    base = export_csv.base_of(['dataset=demo', 'architecture=resnet18', 'epochs=5'])
    assert base == {'dataset': 'demo', 'architecture': 'resnet18', 'epochs': 5}
    names = export_csv.file_names(run, ['val/demo/SROCC'], base)['val/demo/SROCC']
    assert names == ['loss=mse-val_demo_SROCC', 'MSE-demo_SROCC']
    with pytest.raises(UserError, match='expected NAME=VALUE'):
        export_csv.base_of(['depth=5'])


def test_export_is_read_back_by_the_figures(tmp_path):
    values = [.5, .625, .75]
    make_run(tmp_path / 'run', {'val/KonIQ-10k/SROCC': values, 'train/loss': [3, 2]}, loss_type='mae')
    written = export_csv.export(tmp_path / 'run', tmp_path / 'csv')
    assert [path.name for path in written] == ['loss=mae-val_KonIQ-10k_SROCC.csv']
    lines = written[0].read_text().splitlines()
    assert lines[0] == 'Wall time,Step,Value'
    assert lines[1].endswith(',1,0.5')
    cell = sources.planned('figure1')[1].cells[0]
    curve = read_curve(sources.csv_files(cell, tmp_path / 'csv')['val', 'SROCC'])
    assert curve.values.tolist() == values
    assert curve.epochs.tolist() == [1, 2, 3]


def test_a_step_written_twice_counts_once(tmp_path):
    make_run(tmp_path, {'train/loss': [1, 2, 3]})
    with SummaryWriter(str(tmp_path), filename_suffix='.resumed') as writer:
        writer.add_scalar('train/loss', 5, 3, walltime=1e10)
        writer.add_scalar('train/loss', 4, 4, walltime=1e10)
    curve = read_scalars(tmp_path)['train/loss']
    assert [(step, value) for _, step, value in curve] == [(1, 1), (2, 2), (3, 5), (4, 4)]


def test_bad_run_folders(tmp_path, fails, capsys):
    assert 'options.json not found' in fails(export_csv.main, tmp_path / 'nothing')
    (tmp_path / 'options.json').write_text('{')
    assert 'as JSON' in fails(export_csv.main, tmp_path)
    (tmp_path / 'options.json').write_text('[]')
    assert 'run_name' in fails(export_csv.main, tmp_path)
    (tmp_path / 'options.json').write_text(json.dumps(options()))
    assert 'no TensorBoard event file' in fails(export_csv.main, tmp_path)
    make_run(tmp_path, {'train/loss': [1]})
    assert 'no curve to export' in fails(export_csv.main, tmp_path)
    make_run(tmp_path, {'val/KonIQ-10k/SROCC': [.5]})
    export_csv.main([str(tmp_path), '--csv_dir', str(tmp_path / 'csv')])
    assert 'Norm-in-Norm_SROCC.csv' in capsys.readouterr().out


@pytest.mark.parametrize('study', sources.STUDIES)
def test_main_py_understands_the_command_of_every_run(study, tmp_path, monkeypatch):
    """The command that a missing file names trains exactly the run of that file."""
    monkeypatch.chdir(tmp_path)
    for cell in sources.planned(study)[1].cells:
        words = shlex.split(cell.trained_by())
        assert words[:2] == ['python', 'main.py']
        args = TRAIN.parse(words[2:])
        assert differences(args.values, cell.options) == []
        assert args.test_during_training == (study == 'figure1')


@pytest.mark.parametrize(('value', 'text'), [(1e-3, '1e-3'), (1e-4, '1e-4'), (2.5e-5, '2.5e-5'), (0, '0'),
                                             (.01, '0.01'), (.1, '0.1'), (1, '1'), (16, '16'),
                                             (.00123456781, '0.00123456781')])
def test_numbers_in_names(value, text):
    assert typed_number(value) == text
