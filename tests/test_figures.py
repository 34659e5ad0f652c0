"""The figures of the paper: drawn from the recorded curves and logs, and what happens to bad ones."""
import importlib
import json
import math

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from iqa_results import figures
from iqa_results.curves import Curve, as_curve, best, first_reaching, read_curve
from iqa_runtime.errors import UserError
from iqa_studies.published import comparisons
from iqa_training.options import TRAIN
from results_in_the_paper import (
    backbone_performance_plot,
    bhat,
    bnMSE,
    image_size_performance_plot,
    loss_performance_curves,
    lr_performance_plot,
    scatter_plots,
    sources,
    tables,
)

CURVE_SCRIPTS = {'figure1': 'loss_performance_curves', 'figure4': 'bnMSE', 'figure5_lr': 'lr_performance_plot',
                 'figure5_bs': 'batch_size_performance_plot', 'figure5_ft_lr_ratio': 'ft_lr_ratio_performance_plot',
                 'image_size': 'image_size_performance_plot'}


def script(figure: str):
    return importlib.import_module(f'results_in_the_paper.{CURVE_SCRIPTS[figure]}')


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Few pixels, to save time."""
    monkeypatch.setitem(figures.STYLE, 'savefig.dpi', 50)


def write_curve(path, values) -> None:
    rows = ''.join(f'1.5,{step},{value}\n' for step, value in enumerate(values, 1))
    path.parent.mkdir(exist_ok=True)
    path.write_text('Wall time,Step,Value\n' + rows)


def write_figure(folder, figure: str, epochs: int = 4) -> None:
    """Simulated curves for all runs of a figure: correlations that rise, RMSE that falls."""
    for i, cell in enumerate(runs_of(figure)):
        for (_, criterion), path in sources.csv_files(cell, folder).items():
            rise = (i + 1) / 10 + .5 * np.arange(epochs) / epochs
            write_curve(path, (20 - 10 * rise if criterion == 'RMSE' else rise).tolist())


def runs_of(figure: str, **given):
    return sources.planned(figure, given)[1].cells


def drawn(folder, name: str) -> bool:
    """Whether NAME.pdf, with TrueType fonts, and NAME.png are there."""
    pdf = (folder / f'{name}.pdf').read_bytes()
    return pdf.startswith(b'%PDF') and b'/Type3' not in pdf and (folder / f'{name}.png').stat().st_size > 1000


@pytest.mark.parametrize('figure', CURVE_SCRIPTS)
def test_each_figure_is_drawn_from_its_files(figure, tmp_path):
    write_figure(tmp_path / 'csv', figure)
    script(figure).main(['--csv_dir', str(tmp_path / 'csv'), '--out_dir', str(tmp_path)])
    assert drawn(tmp_path, figure)


@pytest.mark.parametrize('figure', ['figure1', *(pytest.param(name, marks=pytest.mark.slow) for name in CURVE_SCRIPTS
                                                if name not in ('figure1', 'image_size'))])
def test_each_figure_is_drawn_from_the_recorded_files(figure, tmp_path, shared, capsys):
    script(figure).main(['--csv_dir', str(shared / 'paper/csv'), '--out_dir', str(tmp_path)])
    assert drawn(tmp_path, figure)
    if figure == 'figure1':
        assert 'training SROCC MAE 10, MSE 8\n' in capsys.readouterr().out


@pytest.mark.parametrize('figure', CURVE_SCRIPTS)
def test_a_missing_file_is_named_with_the_command_that_makes_it(figure, tmp_path, fails):
    error = fails(script(figure).main, '--csv_dir', tmp_path, '--out_dir', tmp_path)
    first = runs_of(figure)[0]
    assert str(next(iter(sources.csv_files(first, tmp_path).values()))) in error
    assert f'make it with: {first.trained_by()}' in error


def test_commands_are_those_of_the_companion_paper():
    commands = [cell.trained_by() for figure in CURVE_SCRIPTS for cell in runs_of(figure)]
    for expected in ('python main.py --resize --loss_type mae --test_during_training',
                     'python main.py --resize --use_bn_end --loss_type mse',
                     'python main.py --resize -arch resnet50 --loss_type mae -lr 1e-3',
                     'python main.py --resize -arch resnet50 --ft_lr_ratio 0',
                     'python main.py'):
        assert expected in commands


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'it has: none; expected Wall time, Step, Value'),
    ('a,b\n1,2\n', 'it has: a, b'),
    ('Wall time,Step,Value\n', 'without rows'),
    ('Wall time,Step,Value\n1,1,high\n', "row 2: the Value 'high' is not a number"),
    ('Wall time,Step,Value\n1,1\n', 'row 2: the Value is empty'),
    ('Wall time,Step,Value\n1,nan,.5\n', "row 2: the Step 'nan' is not a finite number"),
    ('Wall time,Step,Value\n1,1,.5\n1,3,.6\n1,2,.7\n', 'row 4: step 2 after 3'),
])
def test_bad_curves(tmp_path, text, message):
    (tmp_path / 'x.csv').write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_curve(tmp_path / 'x.csv')
    assert 'x.csv' in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(('values', 'length'), [(['.5', '.6', 'NaN', '.7'], 2), (['.5', 'inf'], 1), (['nan'], 0)])
def test_a_curve_ends_where_it_diverged(tmp_path, values, length):
    write_curve(tmp_path / 'x.csv', values)
    curve = read_curve(tmp_path / 'x.csv')
    assert curve.diverged
    assert len(curve.epochs) == len(curve.values) == length
    assert math.isnan(best(curve, 'PLCC')) == (length == 0)


@pytest.mark.parametrize(('figure', 'values'), [
    ('figure1', ['nan']), ('figure4', ['.5']), ('figure5_lr', ['.5', 'nan']),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('figure1', ['.5', 'nan']), ('figure4', ['nan']), ('figure4', ['.5'] * 9), ('figure5_lr', ['.5', '.6'])))])
def test_runs_of_another_length_are_drawn_as_far_as_they_go(figure, values, tmp_path):
    write_figure(tmp_path / 'csv', figure)
    for path in sources.csv_files(runs_of(figure)[-1], tmp_path / 'csv').values():
        write_curve(path, values)
    script(figure).main(['--csv_dir', str(tmp_path / 'csv'), '--out_dir', str(tmp_path)])
    assert drawn(tmp_path, figure)


def notes(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_a_run_that_stopped_is_marked():
    whole, short = (Curve(np.arange(1., n + 1), np.linspace(.5, .9, n)) for n in (5, 2))
    assert notes(bnMSE.draw({'SROCC': {'MSE': whole, 'bnMSE': whole, 'Norm-in-Norm': whole}})) == []
    panel = {'MSE': whole, 'bnMSE': short, 'Norm-in-Norm': short._replace(diverged=True)}
    assert notes(bnMSE.draw({'SROCC': panel})) == ['stopped', 'diverged']
    nothing = Curve(np.array([]), np.array([]), diverged=True)
    assert notes(lr_performance_plot.draw({'MAE': {'lr 1e-3': nothing, 'lr 1e-4': whole}})) == [
        'lr 1e-3 diverged at once']
    assert len(image_size_performance_plot.draw({'PLCC': {'9x9': whole}}).axes) == 1


def recorded(figure: str, shared) -> dict:
    """The recorded curves of a figure: setting -> (part, criterion) -> curve."""
    return sources.from_files(runs_of(figure), shared / 'paper/csv', [])


def test_recorded_runs_stopped_where_the_paper_says(shared):
    stopped = []
    for figure in ('figure5_lr', 'figure5_bs', 'figure5_ft_lr_ratio'):
        study = sources.planned(figure)[0]
        for setting, curves in recorded(figure, shared).items():
            known, = study.published[setting].values()
            assert best(curves['val', 'PLCC'], 'PLCC') == pytest.approx(known, abs=6e-4)
            if curves['val', 'PLCC'].epochs[-1] < 30:
                stopped.append(setting)
    assert sorted(stopped) == ['MAE, ft_lr_ratio 1', 'MAE, lr 1e-3', 'MSE, lr 1e-3']


def test_first_reaching():
    curve = Curve(np.array([1., 2, 3]), np.array([.3, .8, .9]))
    assert first_reaching(curve, .8, 'SROCC') == 2
    assert first_reaching(curve, .95, 'SROCC') is None
    assert first_reaching(curve, .2, 'RMSE') is None
    assert first_reaching(Curve(curve.epochs, 1 - curve.values), .2, 'RMSE') == 2


def test_recorded_epochs_at_which_others_reach_norm_in_norm(shared):
    """Norm-in-Norm's first epoch is reached by MAE in epochs 9 to 11, by MSE in epochs 8 to 10."""
    curves = recorded('figure1', shared)
    reached = {'MAE': {}, 'MSE': {}}
    for panel in curves['MAE']:
        found = loss_performance_curves.epochs_to_reach({loss: curves[loss][panel] for loss in curves}, panel[1])
        for loss, epoch in found.items():
            reached[loss][panel] = epoch
    order = [(part, metric) for metric in ('SROCC', 'PLCC', 'RMSE') for part in ('train', 'val', 'test')]
    assert [reached['MAE'][panel] for panel in order] == [10, 11, 11, 9, 11, 11, 9, 11, 11]
    assert [reached['MSE'][panel] for panel in order] == [8, 8, 10, 8, 10, 10, 8, 8, 10]


ORIGINAL = 'Namespace(alpha=[1, 0])\n' + ''.join(
    ''.join(f'bhat = {10 * head + epoch}\n' for _ in range(4) for head in (3, 1, 2)) +
    f'Gradient overflow.  Skipping step\nSave current best model @best_val_criterion (SROCC): .9 @epoch: {epoch}\n'
    for epoch in (1, 2)) + 'bhat = 7\n'


def test_bhat_of_a_log_of_the_original(tmp_path):
    (tmp_path / 'x.log').write_text(ORIGINAL)
    log = bhat.read_log(tmp_path / 'x.log')
    assert log.epochs.tolist() == [1] * 4 + [2] * 4  # the unfinished epoch is left out
    epochs, means = log.means()
    assert epochs.tolist() == [1, 2]
    assert {head: values.tolist() for head, values in means.items()} == {
        'bhat': [31, 32], 'bhat1': [11, 12], 'bhat2': [21, 22]}


def test_bhat_of_our_own_run_is_the_same(tmp_path, capsys):
    (tmp_path / 'bhat.csv').write_text('iteration,epoch,bhat,bhat1,bhat2\n' + ''.join(
        f'{4 * epoch + i},{epoch},{30 + epoch},{10 + epoch},{20 + epoch}\n' for epoch in (1, 2) for i in range(4)))
    (tmp_path / 'x.log').write_text(ORIGINAL)
    logs = [bhat.read_log(tmp_path / name) for name in ('bhat.csv', 'x.log')]
    for head in bhat.HEADS:
        assert logs[0].heads[head].tolist() == logs[1].heads[head].tolist()
    bhat.main([str(tmp_path / 'bhat.csv'), '--out_dir', str(tmp_path)])
    assert drawn(tmp_path, 'figureA1')
    assert drawn(tmp_path, 'figureA2')
    assert '8 iterations, 2 epochs of 4' in capsys.readouterr().out


@pytest.mark.parametrize(('name', 'text', 'message'), [
    ('x.log', 'nothing\n', 'expected lines with `bhat'),
    ('x.log', 'bhat = 1\nbhat = 2\n@epoch: 1\n', '2 b-hat in epoch 1; expected 3 for each iteration'),
    ('x.log', 'bhat = 1\nbhat = 2\nbhat = 2\n@epoch: 1\n@epoch: 2\n', '0 b-hat in epoch 2'),
    ('x.log', 'bhat = tensor(1)\n@epoch: 1\n', 'line 1: expected a number'),
    ('x.csv', '', 'it has: none'),
    ('x.csv', 'iteration,epoch,bhat\n1,1,2\n', 'lacks the column bhat1, bhat2'),
    ('x.csv', 'iteration,epoch,bhat,bhat1,bhat2\n', 'no iterations'),
    ('x.csv', 'iteration,epoch,bhat,bhat1,bhat2\n1,1,a,1,1\n', "row 2: the bhat 'a' is not a number"),
    ('x.csv', None, 'python main.py --resize --log_bhat'),
])
def test_bad_bhat_logs(tmp_path, fails, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    error = fails(bhat.main, tmp_path / name, '--out_dir', tmp_path)
    assert name in error
    assert message in error


def test_recorded_bhat(shared):
    """883 iterations in each epoch, from the log; its last batch, of 2 images instead of 8, has half the norm."""
    log = bhat.read_log(shared / 'paper/bhat.log')
    assert np.unique(log.epochs, return_counts=True)[1].tolist() == [883] * 30
    _, means = log.means()
    assert [means[head][-1] for head in bhat.HEADS] == pytest.approx([6.502, 2.486, 3.305], abs=1e-3)
    for values in log.heads.values():
        batches = values.reshape(30, 883)[10:]
        assert np.median(batches[:, -1] / batches[:, -2]) == pytest.approx(.5, abs=.01)


def test_figure7_from_the_recorded_predictions(shared, tmp_path):
    scatter_plots.main(['--npy_dir', str(shared / 'paper/npy'), '--out_dir', str(tmp_path)])
    assert drawn(tmp_path, 'figure7')


def test_figure6_shows_the_paper_alone_where_nothing_is_measured(tmp_path, capsys):
    backbone_performance_plot.main(['--result_dir', str(tmp_path / 'none'), '--out_dir', str(tmp_path)])
    assert drawn(tmp_path, 'figure6')
    out = capsys.readouterr().out
    assert 'python main.py --resize -arch resnet34 --loss_type mse\n' in out
    assert 'python test_dataset.py --dataset CLIVE --resize -arch resnet18\n' in out
    figure = backbone_performance_plot.draw(comparisons(*sources.planned('figure6')))
    assert sum(len(ax.patches) for ax in figure.axes) == 24
    assert '.947' in notes(figure)


def test_the_numbers_of_the_paper_agree_with_each_other():
    known = {}
    for name in (*tables.SHOWN, 'figure1'):
        study, plan = sources.planned(name)
        for row in comparisons(study, plan):
            assert row.known is None or 0 < row.known < (20 if row.criterion == 'RMSE' else 1)
            cell = next(cell for cell in plan.cells if cell.setting == row.setting)
            if row.known is not None:
                key = (cell.training.checkpoint.stem, row.data, row.criterion)
                assert known.setdefault(key, row.known) == row.known, (name, row)
    assert len(known) == 44


# Where the scripts look if no folder is named

@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A repository without results, whose results_in_the_paper/ is the current folder."""
    here = tmp_path / 'results_in_the_paper'
    here.mkdir()
    monkeypatch.setattr(sources, 'HERE', here)
    monkeypatch.chdir(here)
    return tmp_path


@pytest.mark.parametrize('place', ['results/csv', 'results_in_the_paper/csv', 'results_in_the_paper/results/csv'])
@pytest.mark.parametrize('outside', [False, True])
def test_curves_are_found_in_their_places(place, outside, elsewhere, monkeypatch, capsys):
    (elsewhere / place).mkdir(parents=True)
    write_figure(elsewhere / place, 'figure4')
    if outside:
        (elsewhere / 'x').mkdir()
        monkeypatch.chdir(elsewhere / 'x')
        if place == 'results_in_the_paper/results/csv':  # where a run would have been started there
            (elsewhere / 'x/results').symlink_to(elsewhere / 'results_in_the_paper/results')
    script('figure4').main([])
    assert 'Curves of ' in capsys.readouterr().out
    assert drawn(elsewhere / 'results/figures', 'figure4')


def write_log(folder, cell, values) -> None:
    with SummaryWriter(str(folder)) as writer:
        for tag in cell.curves.values():
            for step, value in enumerate(values, 1):
                writer.add_scalar(tag, value, step)
    options = {name: cell.options[name] for name in TRAIN.names()}
    (folder / 'options.json').write_text(json.dumps({**options, 'run_name': folder.name}))


def test_curves_are_read_from_the_logs_of_runs(elsewhere, capsys, fails):
    runs = runs_of('figure4')
    for i, run in enumerate(runs):
        write_log(elsewhere / f'runs/{i}', run, [.1 * i, .5])
    (elsewhere / 'runs/broken').mkdir()
    (elsewhere / 'runs/broken/options.json').write_text('{')
    curves = sources.read_figure('figure4', bnMSE.FIGURE4.parse([]))
    assert capsys.readouterr().out == 'Curves of the logs in runs/\n'
    for i, run in enumerate(runs):
        assert curves[run.setting]['val', 'PLCC'].values == pytest.approx([.1 * i, .5])
    (elsewhere / 'runs/1/options.json').unlink()
    error = fails(script('figure4').main)
    assert 'MSE_SROCC.csv, a curve of figure4, is not found' in error


@pytest.mark.parametrize(('module', 'wanted', 'command', 'published'), [
    ('loss_performance_curves', 'loss=mae-train_KonIQ-10k_SROCC.csv', '--loss_type mae --test_during_training', 'csv/'),
    ('scatter_plots', 'the predictions of figure7', 'python main.py --resize --loss_type mae', 'npy/'),
    ('bhat', 'bhat.csv of a run', 'python main.py --resize --log_bhat', 'bhat.log')])
def test_what_is_missing_is_said_with_both_ways_to_get_it(module, wanted, command, published, elsewhere, fails):
    error = fails(importlib.import_module(f'results_in_the_paper.{module}').main)
    assert wanted in error
    assert command in error
    assert f'or put {published}, which the original package has in its results_in_the_paper, into ' in error
    for place in ('../runs' if module == 'bhat' else '../results', published.rstrip('/')):
        assert place in error


def test_bhat_takes_the_latest_run_and_else_the_published_log(elsewhere, capsys):
    (elsewhere / 'results_in_the_paper/bhat.log').write_text(ORIGINAL)
    bhat.main([])
    assert 'b-hat of bhat.log\n' in capsys.readouterr().out
    assert drawn(elsewhere / 'results/figures', 'figureA1')
    (elsewhere / 'runs/a').mkdir(parents=True)
    (elsewhere / 'runs/a/bhat.csv').write_text('iteration,epoch,bhat,bhat1,bhat2\n1,1,3,1,2\n')
    bhat.main([])
    assert 'b-hat of ../runs/a/bhat.csv\n' in capsys.readouterr().out


@pytest.mark.parametrize('name', [*list(CURVE_SCRIPTS.values())[:-1], 'scatter_plots', 'bhat'])  # all in the paper
def test_the_published_files_are_found_where_the_readme_says(name, shared, elsewhere):
    for place in ('csv', 'npy', 'bhat.log'):
        (elsewhere / 'results_in_the_paper' / place).symlink_to(shared / 'paper' / place)
    importlib.import_module(f'results_in_the_paper.{name}').main([])
    assert len(list((elsewhere / 'results/figures').glob('*.pdf'))) == (2 if name == 'bhat' else 1)


def test_the_band_of_a_curve_is_drawn_and_lies_on_the_axis():
    curve = as_curve(np.arange(1., 4), np.array([.8, .85, .86]))
    low, high = np.array([.4, .7, .8]), np.array([.9, .95, .97])
    panel = {'plain': curve, 'with a band': curve._replace(band=np.stack([low, high]))}
    (ax,) = figures.draw_panels({'set': panel}, {name: {} for name in panel}, figures.PAGE, 2.6).axes
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert {*low, *high} <= {*heights}
    assert ax.get_ylim()[0] < heights.min() < heights.max() < ax.get_ylim()[1]


@pytest.mark.parametrize(('low', 'high'), [(.74, .78), (.76, .7601), (.3, .45), (-.2, .2), (-.7, -.5), (.1, .98)])
def test_the_axis_of_correlations_fits_the_curves_and_has_ticks(low, high):
    curve = as_curve(np.arange(1., 4), np.array([low, (low + high) / 2, high]))
    (ax,) = figures.draw_panels({'set': {'one': curve}}, {'one': {}}, figures.PAGE, 2.6).axes
    bottom, top = ax.get_ylim()
    assert bottom < low < high < top
    assert np.arctanh(top) - np.arctanh(bottom) < max(.31, 1.2 * (np.arctanh(high) - np.arctanh(low)))
    assert 2 <= len(ax.get_yticks()) <= 9
    assert all(bottom <= tick <= top for tick in ax.get_yticks())


@pytest.mark.parametrize('count', [1, 3, 9, 29])
def test_the_legend_of_panels_lies_inside_the_figure_and_leaves_room_for_them(count):
    names = [f'LinearityIQA, thurstone-bce-{i}, batches of 64' for i in range(count)]
    curve = as_curve(np.arange(1., 4), np.array([.7, .8, .75]))
    figure = figures.draw_panels({'set': dict.fromkeys(names, curve)}, {name: {} for name in names}, figures.PAGE, 2.6)
    figure.canvas.draw()
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= legend.x0 <= legend.x1 <= whole.x1
    assert legend.y1 <= whole.y1
    assert figure.axes[0].get_window_extent().height > 1.2 * figure.dpi
