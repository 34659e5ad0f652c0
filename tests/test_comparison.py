"""The command compare: groups of images, votes, tables beside the predictions, preferences, what is left out."""
import csv
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, make_tiny
from numpy.testing import assert_allclose

import main
import test_dataset
from iqa_data.info import read_info, write_info
from iqa_results.comparison import VALUES, difference, estimates, resamples_of, values_of
from iqa_results.facts import Facts, parts_of_names, read_preferences
from iqa_results.groups import grouped
from iqa_results.mapping import mapped
from iqa_results.read import read_predictions
from iqa_runtime.errors import UserError
from IQAperformance import CRITERIA, agreement, interval
from results_in_the_paper import compare

GENERATORS = ('glide', 'sd1.5', 'xl2.2')
NAMES = [f'{GENERATORS[i % 3]}_{i:02d}.png' for i in range(36)]


def write(path, noise: float = .4, seed: int = 0, columns=('std', 'votes')) -> str:
    """Predictions of 36 images of three generators."""
    rng = np.random.default_rng(9)
    mos, std, votes = rng.uniform(1, 5, 36), rng.uniform(.5, 1, 36), rng.integers(15, 25, 36)
    pq = mos + noise * np.random.default_rng(seed).normal(size=36)
    more = {'std': std, 'votes': votes}
    table = {'name': NAMES, 'mos': mos, 'pq': pq, **{name: more[name] for name in columns}}
    rows = [','.join(map(str, row)) for row in zip(*table.values(), strict=True)]
    path.write_text('\n'.join([','.join(table), *rows]))
    return str(path)


def output(capsys, *words: str) -> str:
    compare.main([*map(str, words), '--resamples', '100'])
    return capsys.readouterr().out


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize('sign', [1, -1])
def test_monotonic_mappings_keep_the_rank_correlations(tmp_path, sign):
    """Even of MOS like a step, whose fitted logistic is so steep that rounding makes mapped scores equal."""
    model = read_predictions(write(tmp_path / 'a.csv'))
    mos = 3 + 2 * np.sign(model.pq - np.median(model.pq)) + np.random.default_rng(1).normal(0, .1, 36)
    step = model._replace(mos=mos, pq=sign * model.pq)
    assert len(np.unique(mapped('4-parameter logistic', step.pq, mos))) < 36
    found = estimates(step, count=20)
    for name in ('SROCC', 'KROCC'):
        expected = CRITERIA[name](model.pq, mos)
        assert found['as saved'][name][0] == pytest.approx(sign * expected)
        for mapping in ('linear', '3rd-order monotonic', '4-parameter logistic'):
            assert found[mapping][name][0] == pytest.approx(expected), mapping


# Values of a model

def test_values_of_a_model_are_those_of_its_tables(tmp_path, capsys):
    model = read_predictions(write(tmp_path / 'a.csv'))
    found = values_of(model)
    assert list(found) == list(VALUES)
    tables = rows_of(output(capsys, tmp_path / 'a.csv', '--format', 'csv'))
    errors = next(row for row in tables if row[:2] == ['a', '3rd-order monotonic'] and len(row) == 7)
    assert [word.split()[0] for word in errors[3:]] == [f'{found["MAE"]:.3f}', f'{found["outlier ratio"]:.4f}',
                                                        f'{found["RMSE*"]:.3f}',
                                                        f'{found["outliers of the interval"]:.4f}']
    bare = values_of(model._replace(std=np.full(36, np.nan), votes=None))
    assert {name for name, value in bare.items() if np.isfinite(value)} == {'MAE', 'pair accuracy', 'weighted accuracy'}
    constant = values_of(model._replace(pq=np.ones(36)))
    assert constant['pair accuracy'] == .5
    assert math.isnan(constant['MAE'])


# Groups

def test_groups_agree_as_their_images_do():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    groups = ['a'] * 12 + ['b'] * 14 + ['c'] * 4
    found = grouped(x, y, groups)
    assert found.inside['a'] == {'images': 12, **agreement(x[:12], y[:12])}
    assert set(found.inside) == {'a', 'b'}
    assert found.small == ['c']
    means = [[values[:12].mean(), values[12:26].mean(), values[26:].mean()] for values in (x, y)]
    assert found.between['PLCC'] == pytest.approx(np.corrcoef(means)[0, 1])
    assert found.mean('SROCC') == pytest.approx(np.mean([found.inside[g]['SROCC'] for g in 'ab']))
    assert found.worst('SROCC') == min('ab', key=lambda group: found.inside[group]['SROCC'])


def test_constant_predictions_in_a_group_are_not_defined_and_not_the_worst():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20))
    x[:10] = 3
    found = grouped(x, y, ['a'] * 10 + ['b'] * 10)
    assert math.isnan(found.inside['a']['SROCC'])
    assert found.mean('SROCC') == found.inside['b']['SROCC']
    assert found.worst('SROCC') == 'b'
    assert math.isnan(found.between['SROCC'])
    assert grouped(x[:10], y[:10], ['a'] * 10).worst('SROCC') is None


def test_groups_by_name_and_by_column_are_the_same(tmp_path, capsys):
    a, b = write(tmp_path / 'a.csv'), write(tmp_path / 'b.csv', seed=1)
    table = tmp_path / 'facts.csv'
    table.write_text('image,generator\n' + ''.join(f'{name},{name.split("_")[0]}\n' for name in NAMES[::-1]))
    by_name = output(capsys, a, b, '--by_name', '^[^_]+')
    by_column = output(capsys, a, b, '--info', table, '--by', 'generator')
    assert 'Worst groups by generator' in by_column
    numbers = [[word for word in text.split('\nBy ')[1].split() if '.' in word and word[0].isdigit()]
               for text in (by_name, by_column)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(('pattern', 'parts'), [('^[^_]+', ['a', 'b']), (r'_(\d)', ['1', '2'])])
def test_a_pattern_finds_parts_of_names(pattern, parts):
    assert parts_of_names(['a_1.png', 'b_2.png'], pattern) == parts


@pytest.mark.parametrize('pattern', ['^a', r'(a)|(b)'])
def test_a_pattern_that_finds_no_part_is_a_mistake(pattern):
    with pytest.raises(UserError, match="does not match the name 'b_2.png'"):
        parts_of_names(['a_1.png', 'b_2.png'], pattern)


def test_labels_are_what_differs_in_the_names_of_the_files(tmp_path, capsys):
    names = [f'net-{loss}-AGIQA-3K-{digest}' for loss, digest in (('mae', '1f'), ('norm-in-norm', '2e'))]
    files = [write(tmp_path / f'{name}.csv', seed=i) for i, name in enumerate(names)]
    assert 'mae-1f - norm-in-norm-2e' in (out := output(capsys, *files))
    assert 'AGIQA' not in out
    assert 'net-mae' in output(capsys, files[0])
    files.append(write(tmp_path / 'net-AGIQA-3K.csv', seed=3))  # nothing of its own
    assert all(name in output(capsys, *files) for name in names)


# What is known of the ratings

def test_without_votes_criteria_are_left_out_and_named(tmp_path, capsys):
    text = output(capsys, write(tmp_path / 'a.csv', columns=['std']))
    assert 'No RMSE*, outliers of the interval: no numbers of votes' in text
    assert 'AUC' not in text
    assert 'outlier ratio' in text
    text = output(capsys, write(tmp_path / 'b.csv', columns=[]))
    assert 'No outlier ratio, RMSE*, outliers of the interval: no standard deviations' in text


@pytest.mark.parametrize('suffix', ['csv', 'mat'])
def test_votes_come_from_the_table_an_info_file_or_the_option(tmp_path, capsys, suffix):
    whole = output(capsys, write(tmp_path / 'a.csv'))
    assert 'AUC different/similar' in whole
    model = read_predictions(tmp_path / 'a.csv')
    info = tmp_path / f'info.{suffix}'
    write_info(info, NAMES[::-1], model.mos[::-1], model.std[::-1], range(1, 37), np.empty((36, 0), int),
               votes=model.votes[::-1])
    bare = write(tmp_path / 'a.csv', columns=[])
    assert output(capsys, bare, '--info', info) == whole
    write(tmp_path / 'a.csv', columns=['std'])
    assert 'AUC different/similar' in output(capsys, bare, '--votes', '20')


def test_every_table_has_its_rows(tmp_path, capsys):
    files = [write(tmp_path / f'{name}.csv', noise, seed) for seed, (name, noise) in
             enumerate((('a', .3), ('b', .4), ('c', 1.5)))]
    rows = rows_of(output(capsys, *files, '--by_name', '^[^_]+', '--format', 'csv'))
    named = {row[0]: row for row in rows if row}
    assert {'a', 'b', 'c', 'ceiling', 'a - b', 'a - c', 'b - c', *GENERATORS} <= set(named)
    tests = [row for row in rows if row[:2] == ['a - c', 'RMSE*']]
    assert float(tests[0][4]) < .05
    assert float(tests[0][5]) >= float(tests[0][4])
    write(tmp_path / 'b.csv', .31, 5)
    best = re.search('Best by RMSE: ([ab]); not significantly worse: ([ab]).', output(capsys, *files))
    assert {best[1], best[2]} == {'a', 'b'}


def test_the_difference_of_two_models_is_of_the_same_resamples(tmp_path):
    """Against the bootstrap of the difference itself."""
    a, b = (read_predictions(write(tmp_path / f'{seed}.csv', seed=seed)) for seed in range(2))
    found = difference(a, b, *(resamples_of(model, 200) for model in (a, b)))
    for name, criterion in CRITERIA.items():
        def less(x, z, y, axis=-1, criterion=criterion):
            return criterion(x, y, axis) - criterion(z, y, axis)
        expected = [less(a.pq, b.pq, a.mos), *interval(less, a.pq, b.pq, a.mos, count=200)]
        assert_allclose(found[name]['difference'], expected, rtol=1e-9)


def test_constant_predictions_beside_a_model_are_shown_as_not_defined(tmp_path, capsys):
    files = [write(tmp_path / f'{name}.csv') for name in 'ab']
    lines = [line.split(',') for line in (tmp_path / 'a.csv').read_text().splitlines()]
    (tmp_path / 'a.csv').write_text('\n'.join(','.join([n, m, p if p == 'pq' else '3', *rest])
                                              for n, m, p, *rest in lines))
    rows = rows_of(output(capsys, *files, '--by_name', '^[^_]+', '--page', tmp_path / 'p.html', '--format', 'csv'))
    assert ['a', 'linear', 'constant predictions', '-', '-'] in rows
    assert any(row[:2] == ['a - b', 'SROCC'] and row[2] == '-' for row in rows)
    assert any(row[:2] == ['a - b', 'RMSE'] and row[2] == '-' for row in rows)  # of the mapped scores
    assert 'nan' not in ' '.join(word for row in rows for word in row)


def test_the_page_has_every_table_and_plot(tmp_path, capsys):
    files = [write(tmp_path / f'{name}.csv', seed=seed) for seed, name in enumerate('ab')]
    page = tmp_path / 'page.html'
    output(capsys, *files, '--names', 'a <b>', '$x$', '--by_name', '^[^_]+', '--page', page)
    text = page.read_text()
    for title in ('Correlations', 'Errors', 'Pairs of images', 'Differences of models', 'Tests of ITU-T P.1401',
                  'Worst groups by part of the name'):
        assert f'>{title}</h2>' in text
    assert text.count('<svg') == 4  # two ROC plots, and the worst group of each model
    assert 'different/similar analysis' in text
    assert '<b>' not in text
    assert '$x$ is worst in' in text
    write(tmp_path / 'a.csv', columns=[])
    output(capsys, files[0], '--page', page)
    assert '<svg' not in page.read_text()


def test_falling_scores_are_as_good_as_rising_ones(tmp_path, capsys):
    path = write(tmp_path / 'a.csv')
    text = output(capsys, path, '--format', 'csv')
    lines = [line.split(',') for line in (tmp_path / 'a.csv').read_text().splitlines()]
    (tmp_path / 'a.csv').write_text('\n'.join(','.join([n, m, p if p == 'pq' else str(-float(p)), *rest])
                                              for n, m, p, *rest in lines))
    turned = output(capsys, path, '--format', 'csv')
    both = [next(row for i, row in enumerate(rows) if rows[i - 1] and 'pair accuracy' in rows[i - 1])
            for rows in map(rows_of, (text, turned))]
    assert both[0] == both[1]


def test_preferences_are_read(tmp_path, capsys):
    path = write(tmp_path / 'a.csv', noise=0)
    order = np.argsort(read_predictions(path).mos)
    table = tmp_path / 'pairs.csv'
    worst, middle, best = (NAMES[order[i]] for i in (0, 18, 35))
    table.write_text(f'first,second,preference\n{best},{worst},.9\n{worst},{middle},.2\n{middle},{best},.6\n')
    text = output(capsys, path, '--preferences', table)
    assert '0.6667' in text.split('Preferences of people')[1]
    first, second, preference = read_preferences(table, NAMES)
    assert [NAMES[i] for i in (*first, *second)] == [best, worst, middle, worst, middle, best]
    assert_allclose(preference, [.9, .2, .6])


def test_runs_and_tests_write_the_votes_of_their_images(tmp_path, monkeypatch, one_thread):
    make_tiny(tmp_path / 'tiny')
    monkeypatch.chdir(tmp_path)
    info = read_info('tiny/info.mat')
    votes = np.arange(10., 34)
    write_info('tiny/votes.csv', info.names, info.mos, info.std, info.ref_ids, info.index, votes=votes)
    main.main(['--dataset', 'tiny/votes.csv', '--im_dir', 'tiny/images', '-e', '1', *SMALL])
    checkpoint = next(Path('checkpoints').glob('*.pth'))
    test_dataset.main(['--trained_model_file', str(checkpoint), '--dataset', 'tiny/votes.csv', '--im_dir',
                       'tiny/images', '--part', 'all', '--device', 'cpu', '--no-pbar', '--num_workers', '0'])
    tables = list(Path('results').glob('*.csv'))
    assert len(tables) == 2
    for table in tables:
        found = read_predictions(table)
        assert found.votes.tolist() == [votes[info.names.index(name)] for name in found.names]


# Mistakes

def test_mistakes_are_named(tmp_path, fails):
    path = write(tmp_path / 'a.csv')
    facts = tmp_path / 'facts.csv'
    facts.write_text('image,generator\n' + ''.join(f'{name},g\n' for name in NAMES[1:]))
    assert f"lacks '{NAMES[0]}'" in fails(compare.main, path, '--info', facts, '--by', 'generator')
    assert 'lacks the column nothing' in fails(compare.main, path, '--by', 'nothing')
    assert 'both name the groups' in fails(compare.main, path, '--by', 'a', '--by_name', 'b')
    assert 'no regular expression' in fails(compare.main, path, '--by_name', '(')
    assert f"does not match the name '{NAMES[0]}'" in fails(compare.main, path, '--by_name', '^x')
    assert 'have a column votes' in fails(compare.main, path, '--votes', 20)
    pairs = tmp_path / 'pairs.csv'
    for words, error in ((f'{NAMES[0]},{NAMES[0]},.5', 'compared with itself'), (f'{NAMES[0]},x.png,.5', 'x.png'),
                         (f'{NAMES[0]},{NAMES[1]},2', 'the preference is 2; expected 0..1')):
        pairs.write_text(f'first,second,preference\n{words}\n')
        assert error in fails(compare.main, path, '--preferences', pairs)


def test_facts_need_a_column_of_images(tmp_path):
    (tmp_path / 'a.csv').write_text('file,votes\na.png,3\n')
    with pytest.raises(ValueError, match='lacks the column image'):
        Facts.read(tmp_path / 'a.csv')
