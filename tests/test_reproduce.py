"""reproduce.py: its commands, the way from training to the table, runs that are done already, failures."""
import os
import re
import runpy
import shlex
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL, make_tiny
from torch.utils.tensorboard import SummaryWriter

from iqa_results.figures import STYLE
from iqa_results.write import write_results
from iqa_runtime.checkpoint import write_tensors
from iqa_runtime.files import locked
from iqa_scoring.options import TEST
from iqa_studies import engines, jobs
from iqa_studies.cells import Cell
from iqa_studies.chains import plan_chain
from iqa_studies.found import differences
from iqa_studies.published import HEADER, Comparison, comparisons
from iqa_studies.study_file import read_study
from iqa_training.naming import run_name
from iqa_training.options import TRAIN
from IQAperformance import HeadPerformance, Performance
from results_in_the_paper import reproduce, sources

PARSERS = {'main.py': TRAIN, 'test_dataset.py': TEST}
TINY = ['--dataset', 'demo', '--im_dir', 'tiny/images', '--data_info', 'tiny/info.mat', *SMALL, '-e', '2',
        '--no-summary']


@pytest.fixture
def dry_run(capsys):
    """The lines that --dry_run prints, scripts without their folder."""
    def call(*words: str) -> list[str]:
        capsys.readouterr()
        assert reproduce.main([*words, '--dry_run']) == 0
        return capsys.readouterr().out.replace(f'{ROOT}/', '').splitlines()
    return call


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


# The commands

def test_the_commands_of_figure_1_are_those_of_the_companion_paper(empty, dry_run):
    lines = dry_run('figure1')
    assert lines == [f'python main.py --resize {loss}--test_during_training --resume auto'
                     for loss in ('--loss_type mae ', '--loss_type mse ', '')]
    for line, loss in zip(lines, ('mae', 'mse', 'norm-in-norm'), strict=True):
        published = TRAIN.parse(f'--dataset KonIQ-10k --resize --loss_type {loss} --test_during_training'.split())
        assert run_name(TRAIN.parse(line.split()[2:])) == run_name(published)
    assert not list(Path().iterdir())  # nothing was done


@pytest.mark.parametrize('words', ['all', 'image_size', 'figure1 t-test --dataset demo -arch resnet18 --weights none '
                                   '-e 8 -bs 16 -lr 1.23456789e-3 --no-pbar --data_info here.mat --num_workers 0',
                                   'table2 figureA --dataset CLIVE -optl O0 --beta 1 0 0 --log_dir logs'])
def test_every_command_is_understood(words, empty, dry_run):
    lines = dry_run(*words.split())
    assert len(set(lines)) == len(lines)
    names = []
    for line in lines:
        python, script, *options = shlex.split(line)
        assert python == 'python'
        args = PARSERS[script].parse(options)
        if script == 'main.py':
            names.append(run_name(args))
            assert args.resume == 'auto'
        elif '--trained_model_file' not in line:
            assert args.dataset == 'CLIVE'
    assert len(set(names)) == len(names)


def test_targets_share_their_runs(empty, dry_run):
    lines = dry_run('all')
    assert sum('main.py' in line for line in lines) == 94
    assert 'python main.py --resize --test_during_training --log_bhat --resume auto' in lines
    assert lines[1] == 'python test_dataset.py --dataset CLIVE --resize --loss_type mae'  # after its training
    assert dry_run('figure5', 'bhat') == dry_run('figure5_lr', 'figure5_bs', 'figure5_ft_lr_ratio', 'figureA')


def test_options_of_main_py_hold_for_all_runs(empty, dry_run):
    assert dry_run('figure1', '--dataset', 'demo', '-bs', '16', '--device', 'cpu', '--no-pbar')[0] == \
        'python main.py --dataset demo -bs 16 --device cpu --no-pbar --loss_type mae --test_during_training ' \
        '--resume auto'  # and the demo's images stay as they are
    assert '--resize ' in dry_run('figure1', '--dataset', 'demo', '-rs')[0]
    tested = dry_run('figure7', '--im_dir', 'there', '--log_dir', 'logs', '-e', '9')[1]
    assert tested == 'python test_dataset.py --dataset CLIVE --resize -e 9 --loss_type mae'
    assert dry_run('figure7', '--data_info', 'x.mat')[1].split()[2] == '--trained_model_file'
    assert dry_run('figure7', '--dataset', 'demo')[1].endswith('--trained_on demo')


@pytest.mark.parametrize(('words', 'message'), [
    ('figure2', "unknown target 'figure2' (did you mean figure"),
    ('table3 figure1', 'expected one of: figure1, figure4'),
    ('figure1 -lt mae', '--loss_type: figure1 varies it'),
    ('all -lr 1e-3', '--learning_rate: figure5_lr varies it'),
    ('figure1', './data/KonIQ-10kinfo.mat not found, which KonIQ-10k needs: '),
    ('t-test --exp_id 3', '--exp_id: t-test varies it'),
    ('figure1 --resume auto', '--resume: the driver chooses it'),
    ('figure1 --evaluate', '--evaluate: the driver chooses it'),
    ('figure1 --jobs 0', '--jobs: 0 is out of range: at least 1'),
    ('figure1 --epocs 3', 'unrecognized arguments: --epocs 3'),
    ('figure1 -arch resnet19', "unknown architecture 'resnet19'"),
])
def test_mistakes(words, message, empty, fails):
    assert message in fails(reproduce.main, *words.split())


# The whole chain

@pytest.fixture(scope='module')
def chain(tmp_path_factory):
    """A folder in which Figure 1 was reproduced on the tiny data set, two runs at once, with what that printed."""
    folder = tmp_path_factory.mktemp('chain')
    make_tiny(folder / 'tiny')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(STYLE, 'savefig.dpi', 50)
        yield folder


def call(capsys, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = reproduce.main([*words, *TINY])
    return status, capsys.readouterr().out


def test_train_export_draw_and_compare(chain, capsys, dry_run, monkeypatch):
    """Its runs share this process: they start sooner than in processes of their own, as a later test has one."""
    monkeypatch.setattr(reproduce, 'Runner', lambda free: SimpleNamespace(
        run=lambda jobs: engines.inline(jobs, chain, engines.Resources())))
    status, out = call(capsys, 'figure1', '--jobs', '2')
    assert status == 0, out
    assert out.startswith('0 of 3 runs are done\n')
    assert sorted(re.findall(r'^\[(./3)\] done in', out, re.M)) == ['1/3', '2/3', '3/3']
    assert out.count(' Epoch 2/2 ') == 3
    for path in ('figure1.pdf', 'figure1.png', 'reproduced.md'):
        assert (chain / 'results/figures-demo' / path).stat().st_size > 100
    assert len(list((chain / 'results/csv').glob('loss=*-train_demo_SROCC.csv'))) == 3
    curve = pd.read_csv(chain / 'results/csv/loss=norm-in-norm-val_demo_PLCC.csv')
    assert curve['Step'].tolist() == [1, 2]

    table = out[out.index('\ncell  '):].splitlines()[3:]
    rows = [re.split(r' {2,}', line) for line in table]
    assert [row[0] for row in rows] == [f'figure1, {loss} {metric}' for loss in ('MAE', 'MSE', 'Norm-in-Norm')
                                        for metric in ('SROCC', 'PLCC', 'RMSE')]
    result, = (pd.read_json(path, typ='series') for path in (chain / 'results').glob('*-mae-*.json'))
    assert rows[1][1:3] == ['0.919', f'{result["metrics"]["PLCC"]:.3f}']
    assert rows[1][5] == 'other data'
    assert rows[0][1] == rows[0][5] == 'not known'
    assert dry_run('figure1', *TINY) == []


def test_nothing_is_trained_twice(chain, capsys):
    (chain / 'results/figures-demo/figure1.png').unlink()
    stale = chain / 'results/csv/loss=mae-val_demo_PLCC.csv'
    stale.write_text('Wall time,Step,Value\n0,1,.123\n')  # as of a run of another setting
    status, out = call(capsys, 'figure1')
    assert status == 0
    assert out.startswith('3 of 3 runs are done\n')
    assert 'main.py' not in out
    assert (chain / 'results/figures-demo/figure1.png').exists()
    assert '.123' not in stale.read_text()


def test_a_run_that_fails_is_reported_and_the_others_are_run(chain, capsys):
    bn_mse = run_name(TRAIN.parse([*TINY, '--loss_type', 'mse', '--use_bn_end']))
    with locked(chain / 'checkpoints' / f'{bn_mse}.pth.lock'):
        status, out = call(capsys, 'figure4')
    assert status == 1
    assert out.startswith('2 of 3 runs are done\n')
    assert 'FAILED with exit status 2' in out
    failed = out[out.index('Failed:'):]
    assert 'it does the same work' in failed
    assert f'figure4 is not drawn: no curves of {bn_mse}' in failed
    rows = {line.split('  ')[0]: line for line in out.splitlines() if line.startswith('figure4')}
    assert rows['figure4, bnMSE best val PLCC'].endswith('no result')
    assert re.search(r'not known +0\.\d+ ', rows['figure4, MSE best val PLCC'])


# Results that exist, and runs that are still needed

def performance_of(mos: np.ndarray, scores: np.ndarray, **criteria: float) -> Performance:
    """A performance with criteria that do not follow from the scores."""
    criteria = {'SROCC': .9, 'PLCC': .9199, 'RMSE': 6.1, 'KROCC': .7, **criteria}
    return Performance(mos, mos, (replace(HeadPerformance.of(scores, mos), criteria=criteria),))


def make_run(cell: Cell, tags=(), first: int = 1, finished: bool = True) -> None:
    """Write what a run leaves, in the working directory: its result, its checkpoint, its log with these tags."""
    if tags:
        with SummaryWriter(str(cell.log)) as writer:
            for tag in tags:
                writer.add_scalar(tag, .5, first)
    mos = np.random.RandomState(0).uniform(0, 100, 200)
    names = [f'{i}.png' for i in range(200)]
    write_results('results', cell.training.checkpoint.stem, names, performance_of(mos, mos), {
        'options': {name: cell.options[name] for name in TRAIN.names()}, 'dataset': cell.trained_on, 'part': 'test'})
    write_tensors(cell.training.checkpoint, {'model': {}, 'k': [1.], 'b': [0.], 'options': {}, 'finished': finished})


def first(target: str, **given) -> Cell:
    return plan_chain(read_study(sources.STUDIES[target]).having(given)).cells[0]


def left(target: str, **given) -> list[str]:
    """The commands of the first run of a target, from main.py's options on."""
    job = first(target, **given).job()
    return [shlex.join(words[1:]).replace(f'{ROOT}/', '') for words in job.commands] if job else []


ALL_TAGS = [f'{part}/KonIQ-10k/{metric}' for part in ('train', 'val', 'test') for metric in ('SROCC', 'PLCC', 'RMSE')]


@pytest.mark.parametrize(('made', 'commands'), [
    ({'tags': ALL_TAGS}, []), ({'tags': ALL_TAGS, 'first': 2}, [' --again']),  # --resume would find it finished
    ({'tags': ALL_TAGS[3:6]}, [' --again']), ({'tags': ALL_TAGS[3:6], 'finished': False}, [' --resume auto'])])
def test_only_what_is_missing_is_run(made, commands, empty):
    make_run(first('figure1'), **made)
    mae = 'main.py --resize --loss_type mae --test_during_training'
    assert left('figure1') == [mae + ending for ending in commands]
    assert left('figure7')[-1:] == ['test_dataset.py --dataset CLIVE --resize --loss_type mae']
    if not commands:
        first('figure1').training.makes.unlink()  # only the result is lost
        assert left('figure1') == [f'{mae} --evaluate']


def test_bhat_from_the_first_iteration_on(empty):
    cell = first('figureA')
    make_run(cell)
    cell.log.mkdir(parents=True)
    for content in ('', 'iteration,epoch,bhat,bhat1,bhat2\n9,2,1,1,1\n'):
        (cell.log / 'bhat.csv').write_text(content)
        assert left('figureA') == ['main.py --resize --log_bhat --again']
    (cell.log / 'bhat.csv').write_text('iteration,epoch,bhat,bhat1,bhat2\n1,1,1,1,1\n')
    assert left('figureA') == []


def test_a_result_of_the_same_options_under_another_name_counts(empty):
    cell = first('figure7')
    make_run(cell)
    for path in (cell.training.makes, cell.training.makes.with_suffix('.csv'), cell.training.checkpoint):
        path.rename(path.with_stem('by-hand'))
    words, = left('figure7')
    assert words == 'test_dataset.py --trained_model_file checkpoints/by-hand.pth --dataset CLIVE --part all'
    assert len(left('figure7', opt_level='O2')) == 2  # a precision that is asked for counts


@pytest.mark.parametrize(('ours', 'verdict'), [(.9199, 'PASS'), (.9224, 'PASS'), (.9226, 'FAIL'), (.9156, 'PASS'),
                                               (.9154, 'FAIL'), (float('nan'), 'FAIL'), (None, 'no result')])
def test_verdicts(ours, verdict):
    row = Comparison('cell', 'a', 'PLCC', 'PLCC', '', .919, ours)
    assert row.verdict() == verdict
    assert len(row.words()) == len(HEADER)
    assert row._replace(known=None).verdict() == ('not known' if ours is not None else 'no result')
    assert row._replace(criterion='RMSE').verdict() == ('not judged' if ours is not None else 'no result')


@pytest.mark.parametrize(('given', 'verdict'), [
    ({}, 'PASS'), ({'opt_level': 'O0'}, 'PASS'), ({'epochs': 30}, 'PASS'), ({'epochs': 2}, 'other setting'),
    ({'train_ratio': .5}, 'other setting'), ({'dataset': 'demo', 'epochs': 2}, 'other data')])
def test_rows_have_the_interval_over_images(given, verdict, empty):
    make_run(first('figure1', **given))
    study = read_study(sources.STUDIES['figure1']).having(given)
    found = {row.label + ' ' + row.measure: row for row in comparisons(study, plan_chain(study))}
    row = found['figure1, MAE PLCC']
    assert row.words()[:4] == ['figure1, MAE PLCC', '0.919', '0.920', '+0.001']
    assert row.verdict() == verdict
    assert row.interval == pytest.approx((1, 1))
    assert found['figure1, MSE PLCC'].verdict() == 'no result'


def make_all() -> None:
    """Results, curves and logs as if all runs of all targets had been trained in the setting of the paper."""
    rng = np.random.RandomState(0)
    for cell in reproduce.in_chains([plan_chain(read_study(sources.STUDIES[name]), None, ()) for name in reproduce.ALL]
                                    )[0].trainings():
        for data, step in {cell.trained_on: cell.training, **cell.tests}.items():
            mos = rng.uniform(0, 100, 20)
            head = mos + rng.normal(0, 5, 20)
            performance = performance_of(mos, head, PLCC=.918, RMSE=5.)
            write_results('results', step.makes.stem, [f'{i}.png' for i in range(20)], performance, {
                'options': {name: cell.options[name] for name in TRAIN.names()}, 'dataset': data,
                'part': 'test' if data == cell.trained_on else 'all'})
        for path in cell.curves:
            path.parent.mkdir(exist_ok=True)
            path.write_text('Wall time,Step,Value\n0,1,.5\n0,2,.625\n')


def test_all_results_are_drawn_and_judged(tmp_path, empty, monkeypatch, capsys):
    monkeypatch.setitem(STYLE, 'savefig.dpi', 50)
    monkeypatch.setattr('iqa_studies.published.RESAMPLES', 20)
    make_all()
    words = ['figure5_lr', 'figure6', 'figure7', 'table1', 'table2', 'tableA1', 'tableA2', 't-test']
    assert reproduce.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith('78 of 78 runs are done\n')
    figures = {path.name for path in (tmp_path / 'results/figures').iterdir()}
    assert {'figure5_lr.pdf', 'figure6.pdf', 'figure7.pdf'} <= figures
    assert {f'{name}.md' for name in ('table1', 'table2', 'tableA1', 'tableA2', 't-test', 'reproduced')} <= figures
    assert 'losses' in out  # the t-test
    table = out[out.index('\ncell  '):].splitlines()[3:]
    assert len(table) == 9 + 24 + 18 + 32 + 16 + 24 + 24 + 3
    assert {line.split('  ')[-1].strip() for line in table} == {'PASS', 'FAIL', 'not known', 'not judged'}
    best = next(line for line in table if line.startswith('figure5_lr, MSE, lr 1e-5 best val PLCC'))
    assert re.split(r' {2,}', best)[1:] == ['0.805', '0.625', '-0.180', '-', 'FAIL']
    assert reproduce.main(['figure6', '--dry_run']) == 0
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('target', [*reproduce.ALL, 'image_size'])
def test_options_of_the_user_change_every_run_of_every_target(target):
    study = read_study(sources.STUDIES[target])
    own, other = (plan_chain(one, None, ()).cells for one in (study, study.having({'epochs': 2, 'seed': 3})))
    for cell, changed in zip(own, other, strict=True):
        assert {'epochs', 'seed'} == set(differences(changed.options, cell.options))


def test_a_data_set_that_is_an_info_file_is_named_after_it(tmp_path, empty, dry_run):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/info.csv').touch()
    assert ' --dataset mine/info.csv ' in dry_run('figure4', '--dataset', 'mine/info.csv')[0]
    assert 'val/info/PLCC' in first('figure4', dataset='mine/info.csv').curves.values()
    assert reproduce.folder_name('mine/info.csv') == 'figures-info'


def test_a_run_of_another_split_or_criterion_is_not_the_papers():
    for change in ({'split': 'random'}, {'target': ['zscore']}, {'normalise': 'half'}, {'patience': 3},
                   {'split': 'kfold', 'fold': 2}, {'val_criterion': 'PLCC'}):
        assert differences(change, {})
    assert not differences({'val_criterion': 'SROCC1'}, {})


@pytest.mark.parametrize(('one', 'other'), [
    ({'loss_type': 'plcc', 'p': 2.}, {'loss_type': 'plcc'}),
    ({'loss_type': 'mse+plcc:.5'}, {'loss_type': 'mse+plcc:0.5'}),
    ({'tile_size': 3}, {}), ({'gamma': .5}, {}), ({'resize_size_h': 3}, {}), ({'loss_type': 'Lp'}, {})])
def test_options_without_effect_make_no_other_run(one, other):
    assert not differences(one, other)


def test_options_that_are_not_known_here_are_compared_as_they_are():
    assert differences({'loss_type': 'mine'}, {}) == ['loss_type'] == differences({'loss_type': ['mae']}, {})


# Running

# a run that succeeds only if another one is active at the same time
MEETING = """
import os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / str(os.getpid())).touch()
for _ in range(600):
    if len(list(folder.iterdir())) == 2:
        print('gpu', os.environ['CUDA_VISIBLE_DEVICES'])
        sys.exit()
    time.sleep(.1)
sys.exit('alone')
"""


def test_runs_at_once_and_in_turn(tmp_path, capsys):
    meet = ['python', '-c', MEETING, str(tmp_path)]
    failures = jobs.Runner(jobs.slots(3, ['0', '5'])).run([
        jobs.Job([meet]), jobs.Job([['python', '-c', 'import sys; sys.exit("no luck")'], meet]),
        jobs.Job([meet])])
    out = capsys.readouterr().out
    assert sorted(re.findall(r'^\[.*gpu (.)$', out, re.M)) in (['0', '0'], ['0', '5'])  # none after the failure
    assert '[2/3] no luck\n' in out
    assert len(failures) == 1
    assert failures[0].endswith('exit status 1: no luck')
    assert jobs.slots(1, ['0', '1']) == [{}]


def test_ctrl_c_ends_the_runs_and_starts_no_other(capsys, foreground):
    stubborn = ['python', '-c', 'import time; print("began", flush=True); time.sleep(60); print("ended")']

    def interrupt() -> None:
        while capsys.readouterr().out.count('began\n') < 1:
            time.sleep(.05)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    with jobs.terminable(), pytest.raises(KeyboardInterrupt):
        jobs.Runner([{}]).run([jobs.Job([stubborn, stubborn]), jobs.Job([stubborn])])
    out = capsys.readouterr().out
    assert 'began' not in out
    assert 'ended' not in out
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_driver_is_a_script(empty, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['reproduce.py', 'figureA', '--dry_run'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'results_in_the_paper/reproduce.py'), run_name='__main__')
    assert end.value.code == 0
    assert capsys.readouterr().out == f'python {ROOT}/main.py --resize --log_bhat --resume auto\n'
