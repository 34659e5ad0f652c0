"""The report of a study and the check of results: numbers against scipy, hostile names, what was tampered with."""
import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL
from mini import MINI
from numpy.testing import assert_allclose
from scipy import stats
from studies import make_set, others, outcomes, split_of, tampered, write_outcome
from test_report import in_browser

import main
from iqa_data.info import write_info
from iqa_results.figures import STYLE
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.split_file import split_hash, write_split
from iqa_studies import check, study_tables
from iqa_studies.choosing import Choice
from iqa_studies.cost import validation
from iqa_studies.outcome import Outcome
from iqa_studies.report import drawings, styles_of, validation_curves, write_study_report
from iqa_studies.study_groups import Grouping
from iqa_studies.study_tables import (
    Findings,
    StudyTable,
    across,
    beyond,
    criteria,
    quality,
    significance,
    worst_groups,
)
from IQAperformance import CRITERIA, Criterion, agreement

NASTY = '=<script>document.title="owned"</script> $x_1$ & 50% {a}|b'
NOISES = {'good': 5., 'fair': 15., 'poor': 40.}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(STYLE, 'savefig.dpi', 50)


def table(name: str, folder: str = 'report') -> list[dict[str, str]]:
    with open(f'{folder}/{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


def rows_of(made: list[Outcome], make: Callable[[Findings], StudyTable], groupings=()) -> list[dict[str, str]]:
    """A table of outcomes, without the rest of their report, which takes a hundred times as long."""
    found = make(Findings(made, groupings))
    return [dict(zip(found.header, row, strict=True)) for row in found.rows]


TRIALS = dict.fromkeys(('lr 0.1', 'lr 0.2', 'lr 0.3'))
CHOICES = [Choice('good', 'own', TRIALS, {'lr 0.1': .5, 'lr 0.2': .6, 'lr 0.3': .6}, 'SROCC'),
           Choice('fair', 'own', TRIALS, {'lr 0.1': -3., 'lr 0.3': -2.}, 'RMSE')]
CURVES = {'good': [.2, .77, .8], 'fair': [-.5, -.6, -.59], 'poor': [.1, .2, .3]}


def write_noises(made: list[Outcome], folder: str) -> None:
    write_study_report('Three noises', made, Path(folder), choices=CHOICES, note='It <cannot> tell.')


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> tuple[Path, list[Outcome]]:
    """A folder with outcomes of NOISES that have curves, and their report, which no test changes."""
    folder = tmp_path_factory.mktemp('written')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(STYLE, 'savefig.dpi', 50)
        made = outcomes(NOISES)
        for one in made:
            rows = [f'val/own/SROCC,{step},{value},{step}'
                    for step, value in enumerate(CURVES[one.setting], start=1)]
            Path(one.log, 'scalars.csv').write_text('\n'.join(['tag,step,value,time', *rows]))
        write_noises(made, 'report')
    return folder, made


@pytest.fixture
def noises(written, monkeypatch) -> list[Outcome]:
    """The outcomes of the report in the working directory."""
    monkeypatch.chdir(written[0])
    return written[1]


def page(folder: str = 'report') -> str:
    return Path(folder, 'study.html').read_text()


# The tables

def test_quality_is_scipys():
    """The mapped PLCC is at least that of a line, since the logistic holds nearly straight lines."""
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 100, 80)
    x = np.round(np.tanh((y - 50) / 30) + rng.normal(0, .1, 80), 1)  # with ties
    found = quality(x, y)
    assert_allclose([found['SROCC'], found['PLCC'], found['KROCC'], found['RMSE']],
                    [stats.spearmanr(x, y)[0], stats.pearsonr(x, y)[0], stats.kendalltau(x, y)[0],
                     np.mean((x - y) ** 2) ** .5], rtol=1e-12)
    assert found['PLCC'] < found['PLCC mapped'] < 1
    assert found['RMSE mapped'] == pytest.approx(np.std(y) * np.sqrt(1 - found['PLCC mapped'] ** 2), rel=1e-3)


def test_settings_and_criteria_are_of_the_splits(noises):
    for setting in NOISES:
        values = [one.metrics['SROCC'] for one in noises if one.setting == setting]
        row, = (row for row in table('settings') if row['setting'] == setting)
        assert (row['SROCC'], row['splits']) == (f'{np.median(values):.3f}', '3')
        row, = (row for row in table('criteria') if row['setting'] == setting and row['criterion'] == 'SROCC')
        z = np.arctanh(values)
        low, high = np.tanh(stats.t.interval(.95, 2, np.mean(z), stats.sem(z)))
        assert [row[name] for name in ('mean', 'std', 'low', 'high')] == [
            f'{value:.3f}' for value in (np.mean(values), np.std(values, ddof=1), low, high)]
    assert len(table('runs')) == 9


def test_what_raters_and_pairs_say_is_of_the_splits():
    """Pair accuracy without ties is (1 + tau) / 2; criteria that need votes appear if the results have votes."""
    made = outcomes(NOISES, splits=1)
    for row in rows_of(made, beyond):
        values = [(1 + one.metrics['KROCC']) / 2 for one in made if one.setting == row['setting']]
        assert row['pair accuracy'] == f'{np.median(values):.3f}'
        assert 'RMSE*' not in row
    assert 'Not without std and votes of the ratings: RMSE*' in beyond(Findings(made)).note
    for one in made:
        file = one.result.with_suffix('.csv')
        pd.read_csv(file).assign(votes=15).to_csv(file, index=False)
    rows = rows_of(made, beyond)
    good, fair, poor = (float(row['SROCC, % of the ceiling']) for row in rows)
    assert 100 > good > fair > poor
    assert float(rows[0]['RMSE*']) < float(rows[2]['RMSE*'])


def by_hand(made: list[Outcome], groups: dict[str, str]) -> tuple[float, float, pd.Series]:
    """Medians over splits of the mean SROCC inside groups and of that between them; each group's mean over splits."""
    inside, between = [], []
    for one in made:
        table = one.predictions().assign(group=lambda table: table.image.map(groups))
        by_group = table.groupby('group')
        inside.append(pd.Series({name: stats.spearmanr(some.mos, some.score)[0] for name, some in by_group
                                 if len(some) >= 5}))
        between.append(stats.spearmanr(*by_group[['mos', 'score']].mean().to_numpy().T)[0])
    return np.median([of.mean() for of in inside]), np.median(between), pd.concat(inside, axis=1).mean(axis=1)


KINDS = [Grouping('third', 'third', '', {'own': Path('own.csv')}),
         Grouping('series', '', r'-(\d)\.png', {'own': Path('own.csv'), 'other': Path('other.csv')})]


def thirds() -> dict[str, str]:
    """Write a column `third` into the info file; return image -> third."""
    info = pd.read_csv('own.csv')
    info['third'] = [f'third {i % 3}' for i in range(len(info))]
    info.to_csv('own.csv', index=False)
    return dict(zip(info.image, info.third, strict=True))


def test_groups_are_of_the_splits_and_the_worst_is_named():
    """Of 16 tested images, a third has 4 to 8, and each series 4, too few for a correlation."""
    made = outcomes({'good': 5., 'poor': 40.})
    groups = thirds()
    rows = {(row['setting'], row['by']): row for row in rows_of(made, study_tables.groups, KINDS)}
    for setting in ('good', 'poor'):
        mean, between, of_each = by_hand([one for one in made if one.setting == setting], groups)
        row = rows[setting, 'third']
        assert [row[name] for name in ('groups', 'mean SROCC', 'SROCC between', 'worst group', 'SROCC there')] == [
            f'{len(of_each)}', f'{mean:.3f}', f'{between:.3f}', of_each.idxmin(), f'{of_each.min():.3f}']
        row = rows[setting, 'series']
        assert [row[name] for name in ('groups', 'mean SROCC', 'worst group', 'SROCC there')] == ['0', '-', '-', '-']
        assert row['SROCC between'] != '-'
    worst = [float(row['SROCC']) for row in rows_of(made, worst_groups, KINDS) if row['setting'] == 'poor']
    assert worst == sorted(worst)


def test_tables_of_groups_are_checked_where_the_info_file_is(capsys):
    made = outcomes({'good': 5.})
    thirds()
    write_study_report('In groups', made, Path('report'), groupings=KINDS)
    assert 'Worst groups of images' in page()
    assert 'holds  the tables of report' in checked(capsys, 'report')[1]
    path = Path('report/groups.csv')
    path.write_text(path.read_text().replace('third,3,0.', 'third,3,1.'))
    status, text = checked(capsys, 'report')
    assert (status, 'groups.csv is not the table of these results, from row 2 on' in text) == (1, True)
    Path('own.csv').unlink()
    status, text = checked(capsys, 'report')
    assert (status, 'not looked at: the groups of images: no own.csv here' in text) == (0, True)


def test_what_was_chosen_and_how_soon_a_setting_is_near_its_end(noises):
    assert {row['setting']: (row['epochs, median'], row['SROCC of val at the end']) for row in table('speed')} == {
        'good': ('2', '0.800'), 'fair': ('2', '0.590'), 'poor': ('3', '0.300')}
    assert [[*row.values()] for row in table('chosen')] == [
        ['own', 'good', '|SROCC|', 'lr 0.2', '0.5000', '0.6000', '0.6000'],
        ['own', 'fair', 'RMSE', 'lr 0.3 (an end)', '3.0000', 'failed', '2.0000']]
    assert 'It &lt;cannot&gt; tell.' in page()
    assert 'Chosen by validation' in page()


def test_the_curve_of_two_sets_is_their_mean(tmp_path):
    rows = [f'val/{name}/SROCC,{step},{value},{step}' for name, values in {'a': [.2, .4], 'b': [.6, .9]}.items()
            for step, value in enumerate(values, start=1)]
    (tmp_path / 'scalars.csv').write_text('\n'.join(['tag,step,value,time', *rows]))
    assert_allclose(validation(tmp_path), [[1, .4], [2, .65]])
    assert not len(validation(tmp_path / 'none'))


@pytest.mark.parametrize(('settings', 'splits', 'known'), [(2, 3, True), (2, 2, False), (7, 3, False)])
def test_curves_of_few_settings_and_enough_runs_have_the_interval_of_the_mean(settings, splits, known, tmp_path):
    made = outcomes({f'setting {i}': .1 for i in range(settings)}, splits=splits)
    rng = np.random.default_rng(0)
    values = rng.uniform(.6, .9, (len(made), 2))
    for i, curve in enumerate(values):
        (tmp_path / str(i)).mkdir()
        rows = [f'val/SROCC,{step},{value},{step}' for step, value in enumerate(curve, start=1)]
        (tmp_path / str(i) / 'scalars.csv').write_text('\n'.join(['tag,step,value,time', *rows]))
    made = [replace(outcome, log=tmp_path / str(i)) for i, outcome in enumerate(made)]
    (curves,) = validation_curves(Findings(made)).values()
    assert {curve.band is not None for curve in curves.values()} == {known}
    if known:
        z = np.arctanh(values[[outcome.setting == 'setting 0' for outcome in made]])
        half = stats.t.ppf(.975, splits - 1) * z.std(0, ddof=1) / splits ** .5
        assert_allclose(curves['setting 0'].band, np.tanh([z.mean(0) - half, z.mean(0) + half]))


def test_significance_is_of_the_same_splits_and_images():
    made = outcomes(NOISES, splits=6)
    rows = {(row['setting'], row['other'], row['criterion']): row for row in rows_of(made, significance)}
    row = rows['good', 'poor', 'SROCC']
    assert row['splits'] == '6'
    assert row['Wilcoxon p'] == f'{2 / 64:.2g}'
    assert row['Wilcoxon Holm'] == f'{3 * 2 / 64:.2g}'
    assert float(row['Steiger Holm']) < .01
    assert float(row['difference']) > 0
    assert 'critical-difference' in drawings(Findings(made))


def test_the_curves_of_28_settings_can_be_told_apart():
    assert len({tuple(style.values()) for style in styles_of(map(str, range(28))).values()}) == 28


def test_equal_settings_do_not_differ():
    data = make_set()
    scores = data[2] + np.random.default_rng(0).normal(0, 10, len(data[2]))
    made = [write_outcome(setting, number, scores, data) for setting in ('a', 'b') for number in range(3)]
    for row in significance(Findings(made)).rows:
        assert row[5:] == ['+0.000', '3', *['1'] * 6]


def test_settings_on_other_images_are_not_compared():
    data = make_set()
    made = [write_outcome('a', 0, data[2] + 1, data), replace(write_outcome('b', 1, data[2] + 1, data), split='0')]
    assert significance(Findings(made)).rows[0][5:] == ['-', '0', *['-'] * 6]


def test_seeds_are_averaged_within_a_split():
    data, rng, made = make_set(), np.random.default_rng(0), []
    for number in range(2):
        made += [write_outcome('a', number, data[2] + rng.normal(0, 20, len(data[2])), data, seed=seed)
                 for seed in range(3)]
    means = [np.mean([one.metrics['PLCC'] for one in made if one.split == split]) for split in ('0', '1')]
    row, = (row for row in rows_of(made, criteria) if row['criterion'] == 'PLCC')
    assert (row['splits'], row['median'], row['std']) == ('2', f'{np.mean(means):.3f}', f'{np.std(means, ddof=1):.3f}')


def test_across_data_sets():
    own, other = make_set('own'), make_set('other')
    rng = np.random.default_rng(0)
    made = [write_outcome('a', n, own[2] + rng.normal(0, 9, 80), own) for n in range(2)]
    made += [write_outcome('a', n, other[2] + rng.normal(0, 30, 80), other, part='all') for n in range(2)]
    row, = rows_of(made, across)
    assert list(row) == ['setting', 'trained on', 'own', 'other, whole']
    assert float(row['own'].split(' / ')[0]) > float(row['other, whole'].split(' / ')[0]) > 0
    assert {row['tested on'] for row in rows_of(made, study_tables.settings)} == {'own', 'other, whole'}


def test_others_predictions_are_compared_whatever_their_direction():
    made = outcomes({'a': 10.}, splits=3)
    rng = np.random.default_rng(0)
    made += others('NIQE', made, lambda mos: -np.exp(mos / 30) + rng.normal(0, .5, len(mos)))
    row = next(row for row in rows_of(made, study_tables.settings) if row['setting'] == 'NIQE')
    assert row['trained on'] == ''
    assert float(row['SROCC']) > .8
    assert (row['RMSE'], row['RMSE mapped'] != '-') == ('-', True)
    pair, = (row for row in rows_of(made, significance) if row['criterion'] == 'SROCC')
    assert (pair['setting'], pair['other'], pair['splits']) == ('a', 'NIQE', '3')


def test_one_split_has_no_interval():
    made = outcomes({'a': 10.}, splits=1)
    row = rows_of(made, criteria)[0]
    assert [row[name] for name in ('splits', 'std', 'low', 'high')] == ['1', '-', '-', '-']
    assert not rows_of(made, significance)


def test_a_constant_prediction_is_shown_as_not_defined():
    data = make_set()
    made = [write_outcome('a', n, data[2] + n if n else np.full(80, 5.), data) for n in range(3)]
    row, = rows_of(made, study_tables.settings)
    assert (row['splits'], row['SROCC']) == ('2 of 3', '1.000')


def test_no_outcome_gives_an_empty_page():
    write_study_report('Nothing yet', [], Path('report'))
    assert '0 runs of 0 settings' in page()


def test_the_images_that_chose_the_epoch_are_marked():
    row, = rows_of(outcomes({'a': 10.}, part='val'), study_tables.settings)
    assert row['tested on'] == 'own, on the validation images, which chose the epoch'


# The page

def test_names_are_escaped_everywhere():
    write_study_report(NASTY, outcomes({NASTY: 10., 'other': 20., 'third': 30.}), Path('report'))
    html = page()
    assert html.count('<script') == 1
    assert r'\$x\_1\$ \& 50\% \{a\}\textbar{}b' in Path('report/settings.tex').read_text()
    markdown = Path('report/settings.md').read_text()
    assert '<script' not in markdown
    assert r'\|b' in markdown
    assert table('settings')[0]['setting'] == f'./{NASTY}'  # which no spreadsheet computes
    assert '<title>owned' not in in_browser('report/study.html')


def test_every_number_links_to_its_runs_and_every_run_to_its_files(noises):
    html = page()
    anchors = set(re.findall(r'id="([^"]+)"', html))
    links = re.findall(r'href="([^"]+)"', html)
    assert {link[1:] for link in links if link.startswith('#')} <= anchors
    assert {f'#run-{i}' for i in range(len(noises))} <= set(links)
    for link in links:
        assert link.startswith('#') or Path('report', link).exists()
    assert noises[0].split_hash in html
    assert 'torch 2.0' in html


@pytest.mark.usefixtures('noises')
def test_nothing_comes_from_elsewhere():
    html = page()
    assert "default-src 'none'" in html
    assert all(address.startswith('data:') for address in re.findall(r'src="([^"]*)"', html))


def test_the_same_outcomes_give_the_same_files(noises):
    write_noises(noises, 'again')
    for path in Path('again').iterdir():
        assert path.read_bytes() == Path('report', path.name).read_bytes(), path.name


@pytest.mark.usefixtures('noises')
def test_tables_are_sorted_in_a_browser():
    click = '''const head = [...document.querySelectorAll('table.sortable th')].find(h => h.textContent === 'SROCC');
        head.firstElementChild.click(); open();'''
    html = in_browser('report/study.html', click)
    assert re.findall(r'<td>(good|fair|poor)</td>', html)[:3] == ['poor', 'fair', 'good']
    html = in_browser('report/study.html', click + 'head.firstElementChild.click();')
    assert re.findall(r'<td>(good|fair|poor)</td>', html)[:3] == ['good', 'fair', 'poor']


# The check

def checked(capsys, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    try:
        check.main(list(words))
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, capsys.readouterr().out


@pytest.mark.usefixtures('noises')
def test_honest_results_hold(capsys):
    for words in (['report'], ['results'], [str(path) for path in Path('results').glob('*.json')]):
        status, text = checked(capsys, *words)
        assert (status, 'WRONG' in text, 'not looked at' in text) == (0, False, False), text


@pytest.mark.parametrize(('changes', 'message'), [
    ({'metrics': {'SROCC': .99}}, 'SROCC is'), ({'metrics': {'RMSE': None}}, 'RMSE is'),
    ({'split_hash': '0' * 16}, 'hash'), ({'images': 15}, 'images are predicted')])
def test_a_number_that_was_changed_is_found(changes, message, capsys):
    made = outcomes({'a': 10.}, splits=2)
    tampered(made[1].result, **changes)
    status, text = checked(capsys, 'results')
    assert status == 1
    assert text.count('WRONG') == 1
    assert message in text
    with pytest.raises(UserError, match=message):
        write_study_report('Tampered', made, Path('report'))


def test_a_prediction_that_was_changed_is_found(capsys):
    outcome, = outcomes({'a': 10.}, splits=1)
    table = outcome.result.with_suffix('.csv')
    lines = table.read_text().splitlines()
    cells = lines[3].split(',')
    lines[3] = ','.join([*cells[:3], '99.5', *cells[4:]])
    table.write_text('\n'.join(lines) + '\n')
    assert checked(capsys, str(outcome.result))[0] == 1


def edited(path: Path, column: str, change) -> None:
    """Change a column of a results table, and let its metrics follow."""
    table = pd.read_csv(path.with_suffix('.csv'))
    table[column] = change(table[column])
    table.to_csv(path.with_suffix('.csv'), index=False)
    tampered(path, metrics=agreement(table.pq.to_numpy(), table.mos.to_numpy()))


@pytest.mark.parametrize(('column', 'message'), [
    ('mos', 'the MOS of 16 images are not those of own.csv'), ('pq', 'by k, b and pq_before'),
    ('pq_before', 'by k, b and pq_before')])
def test_columns_that_were_changed_with_their_metrics_are_found(column, message, capsys):
    outcome, = outcomes({'a': 10.}, splits=1)
    edited(outcome.result, column, lambda values: values * .9 + 5)
    status, text = checked(capsys, str(outcome.result))
    assert status == 1
    assert message in text


def test_a_criterion_that_an_older_result_lacks_is_not_looked_at(capsys, monkeypatch):
    outcome, = outcomes({'a': 10.}, splits=1)
    monkeypatch.setitem(CRITERIA, 'MAE', Criterion(lambda a, b, axis=-1: abs(a - b).mean(axis), correlation=False))
    assert checked(capsys, str(outcome.result)) == (
        0, f'holds  {outcome.result}\n  (not looked at: MAE: the results do not have it)\n')


@pytest.mark.parametrize('elsewhere', [False, True])
def test_training_images_under_another_name_are_found(elsewhere, capsys):
    """Another info file names the images of the training set, or copies of them."""
    own, other = make_set('own'), make_set('other')
    for i, name in enumerate(own[1]):
        Path(name).write_bytes(bytes([i]) * 9)
    other = (other[0], [f'copy-{name}' for name in own[1]] if elsewhere else own[1], own[2])
    for name, copy in zip(own[1], other[1], strict=True):
        Path(copy).write_bytes(Path(name).read_bytes())
    write_info(other[0], other[1], own[2], np.full(len(own[2]), 10.), np.arange(len(own[2])),
               np.empty((len(own[2]), 0), int))
    outcome = write_outcome('a', 0, own[2] + 1, other, 'all')
    split = split_of(own[1], 0)
    rewritten(outcome, split)
    status, text = checked(capsys, str(outcome.result))
    assert status == 1
    assert f'{len(split["train"]) + len(split["val"])} tested images were trained on or chose the epoch' in text
    Path(other[1][0]).unlink()
    for name in split['train'] + split['val']:
        Path(name).unlink(missing_ok=True)
    if elsewhere:
        assert 'whether tested images were trained on: ' in checked(capsys, str(outcome.result))[1]


def rewritten(outcome: Outcome, split: dict[str, list[str]]) -> None:
    """Give a run another split, in its log and its results."""
    write_split(outcome.log / 'split.csv', split)
    tampered(outcome.result, split_hash=split_hash(split))


@pytest.mark.parametrize('text', ['image,part\na,night\n', 'image,part\na,train\na,test\n', 'image,part\n'])
def test_a_table_that_is_no_split_is_refused(text, fails):
    outcome, = outcomes({'a': 10.}, splits=1)
    (outcome.log / 'split.csv').write_text(text)
    assert str(outcome.log / 'split.csv') in fails(check.main, str(outcome.result))


def test_contents_and_images_that_are_trained_and_tested_are_found(capsys):
    outcome, = outcomes({'a': 10.}, splits=1)
    split = split_of(make_set()[1], 0)
    moved = split['test'].pop()
    rewritten(outcome, {**split, 'train': [*split['train'], moved]})
    status, text = checked(capsys, str(outcome.result))
    assert status == 1
    assert 'not those of the test part' in text
    assert f'1 tested images are in train too, as {moved}' in text
    assert '1 contents are in train and tested too' in text


def test_contents_of_the_validation_images_count_too(capsys):
    data = make_set()
    split = split_of(data[1], 0)
    test, val = split['test'], split['val']
    outcome = write_outcome('a', 0, data[2] + 1, data)
    swapped = {'train': split['train'], 'val': [test[0], *val[1:]], 'test': [val[0], *test[1:]]}
    rewritten(outcome, swapped)
    assert 'contents are in val and tested too' in checked(capsys, str(outcome.result))[1]
    tampered(outcome.result, options={**outcome.options, 'split': 'random'})
    assert '(not looked at: whether it holds for new contents: the split is by image, and ' in checked(
        capsys, str(outcome.result))[1]


@pytest.mark.usefixtures('noises')
def test_a_table_that_was_changed_is_found(capsys):
    shutil.copytree('report', 'changed')
    path = Path('changed/settings.csv')
    path.write_text(path.read_text().replace('0.9', '0.99', 1))
    status, text = checked(capsys, 'changed')
    assert status == 1
    assert 'settings.csv is not the table of these results, from row 2 on' in text


def test_what_cannot_be_looked_at_is_named(capsys):
    outcome, = outcomes({'a': 10.}, splits=1, part='val')
    Path('own.csv').unlink()
    status, text = checked(capsys, str(outcome.result))
    assert (status, 'no info file' in text, 'chose the epoch' in text) == (0, True, True)


def test_mistakes_are_named(fails):
    Path('empty').mkdir()
    assert 'no results in it' in fails(check.main, 'empty')
    assert 'cannot be read' in fails(check.main, 'nothing.json')
    Path('bad').mkdir()
    for text in ('{}', '[1]', '{"outcomes": [{"result": 3}]}', '{"outcomes": [{}]}'):
        Path('bad/outcomes.json').write_text(text)
        assert 'bad/outcomes.json' in fails(check.main, 'bad')


# A run

def test_of_a_training_run(tiny, one_thread, capsys):
    main.main([*tiny, *SMALL, *MINI, '-e', '2', '-bs', '8', '--trained_model_file', 'checkpoints/a.pth'])
    outcome = Outcome('mini', 'official', 0, 'demo', 'demo', Path('results/a.json'), Path('runs/a'),
                      Path('checkpoints/a.pth'))
    write_study_report('A run', [outcome], Path('report'), {'demo': Path('tiny/images')})
    assert checked(capsys, 'results/a.json', 'report')[0] == 0
    row, = table('cost')
    weights = load_checkpoint('checkpoints/a.pth')['model'].values()
    linear = sum(weight.numel() for weight in weights if weight.ndim == 2)
    convolutions = 12 * 16 * 8 * 27 + 5 * 7 * 8 * 72  # 3 x 3 of 48 x 64 pixels: 3 to 8, step 4; 8 to 8, step 2
    assert float(row['MACs, G']) * 1e9 == pytest.approx(linear + convolutions, rel=1e-3)
    assert float(row['ms a training image']) > 0
    parameters = json.loads(Path('results/a.json').read_text())['parameters']['plain']
    assert float(row['parameters, M']) == pytest.approx(parameters / 1e6, rel=1e-3)
    assert Path('report/curves.pdf').exists()


def test_scores_tested_on_a_set_of_the_other_direction_are_compared_in_one_direction():
    """Correlations of a network that was trained on MOS and tested on DMOS are positive where it agrees with people."""
    data = make_set()
    error = np.random.default_rng(0).normal(0, 10, len(data[2]))
    agrees, contradicts = write_outcome('a', 0, -data[2] + error, data), write_outcome('b', 0, data[2] + error, data)
    for outcome in (agrees, contradicts):
        tampered(outcome.result, reversed=True)
    runs = Findings([agrees, contradicts]).runs.set_index('setting')
    assert runs.SROCC['a'] == pytest.approx(stats.spearmanr(*predicted(agrees))[0] * -1)
    assert runs.SROCC['a'] > .8
    assert runs.SROCC['b'] < -.8
    assert runs.RMSE.isna().all()


def predicted(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and the MOS in the results of an outcome."""
    table = outcome.predictions()
    return table.score.to_numpy(), table.mos.to_numpy()
