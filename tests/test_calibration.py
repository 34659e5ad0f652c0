"""Fitting the scores to ratings of one's own."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scored import photo, save_photos

import test_demo
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring.calibrate import calibrated, fit_logistic, leave_one_out, objections, read_ratings
from iqa_scoring.mapping import Mapping, logistic
from IQAmodel import load
from IQAperformance import fit_line

RNG = np.random.default_rng(3)
RAW = RNG.normal(2, 3, 30)
CHECKPOINT = {'k': [1.], 'b': [0.], 'mos': {'higher_is_better': True}}


def calibrate(raw, mos, kind='linear', checkpoint=CHECKPOINT):
    return calibrated(checkpoint, np.stack([raw, -raw], 1), mos, kind)


@pytest.mark.parametrize(('header', 'order'), [
    ('image,mos', 'ir'), ('MOS, Name', 'ri'), ('who,note,file,rating', 'wnir'), ('a,b', 'ir'), ('b,a', 'ri')])
def test_columns_are_guessed(tmp_path, header, order):
    (tmp_path / 'x y.png').touch()
    cells = {'i': ('x y.png', 'gone.png', 'x y.png'), 'r': ('3', '5.5', '4'), 'w': ('7', '8', '9'), 'n': ('', 'b', 'c')}
    lines = [header, *(','.join(cells[kind][row] for kind in order) for row in range(3))]
    (tmp_path / 'ratings.csv').write_text('\n'.join(lines))
    images, ratings = read_ratings(tmp_path / 'ratings.csv')
    assert images == [str(tmp_path / 'x y.png'), str(tmp_path / 'gone.png')]
    np.testing.assert_allclose(ratings, [3.5, 5.5])


@pytest.mark.parametrize(('content', 'message'), [
    ('', ': expected a column of images and one of ratings, found none'),
    ('a,b\nx,y\n', ': expected a column of images and one of ratings, found a, b'),
    ('image,mos\nx,1\ny,good\n', " row 3: the mos 'good' is not a finite number"),
    ('image,mos\nx,\ny,2\n', ' row 2: the mos is empty'),
    ('mos\n1\n', ': expected a column of images')])
def test_a_broken_table(tmp_path, content, message):
    (tmp_path / 'ratings.csv').write_text(content)
    with pytest.raises(UserError, match=f'ratings.csv{message}'):
        read_ratings(tmp_path / 'ratings.csv')
    with pytest.raises(UserError, match='gone.csv: no such file'):
        read_ratings('gone.csv')


@pytest.mark.parametrize('parameters', [(90, 10, 2, 1.5), (5, 1, 0, 1), (10, 90, 3, 2)])
def test_a_logistic_is_found_again(parameters):
    np.testing.assert_allclose(fit_logistic(RAW, logistic(RAW, *parameters)), parameters, rtol=.01, atol=.01)


@pytest.mark.parametrize('far', [1e5, -1e5])
def test_a_score_that_is_far_off_does_not_move_a_logistic(far):
    mos = logistic(RAW, 90, 10, 2, 1.5)
    fitted = fit_logistic(np.append(RAW, far), np.append(mos, logistic(far, 90, 10, 2, 1.5)))
    np.testing.assert_allclose(fitted, (90, 10, 2, 1.5), rtol=.02, atol=.05)


def test_a_logistic_of_a_line_stays_finite():
    fitted = Mapping('logistic', fit_logistic(RAW, 3 * RAW + 1))(RAW)
    assert np.abs(fitted - (3 * RAW + 1)).max() < .1 * np.ptp(3 * RAW)


@pytest.mark.parametrize('kind', ['linear', 'logistic'])
def test_leave_one_out_leaves_one_out(kind):
    mos = logistic(RAW, 90, 10, 2, 1.5) + RNG.normal(0, 3, 30)
    before = leave_one_out(kind, RAW, mos)
    mos[4] += 1000
    after = leave_one_out(kind, RAW, mos)
    assert after[4] == pytest.approx(before[4])
    assert abs(after[5] - before[5]) > 1


def test_a_line():
    mos = 4 * RAW + 20 + RNG.normal(0, 1, 30)
    new, report, against = calibrate(RAW, mos)
    assert against == []
    assert 'mapping' not in new
    assert (new['k'][0], new['b'][0]) == fit_line(RAW, mos)
    assert new['k'][1] == pytest.approx(-new['k'][0])
    assert (new['mos']['min'], new['mos']['max']) == (mos.min(), mos.max())
    assert new['mos']['higher_is_better'] is True
    assert CHECKPOINT['k'] == [1.]
    assert report['fitted']['RMSE'] < report['leave-one-out']['RMSE'] < 1.5
    assert report['before']['RMSE'] > 10


def test_the_direction_turns_with_the_ratings():
    assert calibrate(RAW, 50 - 3 * RAW)[0]['mos']['higher_is_better'] is False
    turned = {**CHECKPOINT, 'mos': {'higher_is_better': False}}
    assert calibrate(RAW, 50 - 3 * RAW, checkpoint=turned)[0]['mos']['higher_is_better'] is True


@pytest.mark.parametrize(('n', 'mos', 'message'), [(19, RAW, '19 rated images, expected at least 20'),
                                                   (30, np.ones(30), 'are equal')])
def test_too_little(n, mos, message):
    with pytest.raises(UserError, match=message):
        calibrate(RAW[:n], mos[:n])


@pytest.mark.parametrize('kind', ['linear', 'logistic'])
def test_a_new_checkpoint(scored, capsys, kind):
    paths = save_photos(Path('rated'), 24)
    scores = load(scored[1]).score(paths)
    mos = 1 + 4 / (1 + np.exp(-(scores - scores.mean()) / scores.std()))
    pd.DataFrame({'image': [Path(path).name for path in paths], 'mos': mos}).to_csv('rated/ratings.csv', index=False)
    words = ['--calibrate', 'rated/ratings.csv', '--calibration', kind, '--out', 'new.pth', *scored]
    rmse = test_demo.main(words)
    out = capsys.readouterr().out
    assert f'{kind} calibration on 24 images' in out
    assert f'leave-one-out{"":2}' in out
    assert rmse < (.01 if kind == 'logistic' else .3)
    scorer = load('new.pth')
    assert np.abs(scorer.score(paths) - mos).max() < (.01 if kind == 'logistic' else .6)
    assert scorer.scale.high == pytest.approx(mos.max())
    score = test_demo.main(['--img', paths[3], '--trained_model_file', 'new.pth', *scored[2:]])
    assert score == pytest.approx(scorer.score(photo(3)), abs=1e-4)
    assert load_checkpoint('new.pth')['calibration']['images'] == 24


def test_some_rated_images_are_gone(scored, capsys, fails):
    paths = save_photos(Path('rated'), 21)
    mos = [*load(scored[1]).score(paths), 50]
    pd.DataFrame({'image': [*paths, 'gone.png'], 'mos': mos}).to_csv('ratings.csv', index=False)
    words = ['--calibrate', 'ratings.csv', *scored]
    with pytest.raises(SystemExit) as stop:
        test_demo.main([*words, '--out', 'new.pth'])
    assert stop.value.code == 1
    assert 'gone.png: no such file' in capsys.readouterr().err
    assert Path('new.pth').exists()
    assert 'would overwrite --trained_model_file' in fails(test_demo.main, *words, '--out', scored[1])


@pytest.mark.parametrize(('noise', 'worse'), [(.1, False), (.5, False), (3, True), (30, True)])
def test_worse_is_what_leave_one_out_ranks_worse(noise, worse):
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1, 60)
    _, report, against = calibrate(raw, raw + rng.normal(0, noise, 60))
    assert any('SROCC of images that are left out' in one for one in against) == worse
    assert len(objections({name: {'SROCC': np.nan, 'RMSE': np.nan} for name in report}, raw, turned=False)) == 2


@pytest.mark.parametrize('kind', ['linear', 'logistic'])
@pytest.mark.parametrize('slope', [-3, -.1, .1, 3])
def test_a_ranking_that_is_turned_over_is_objected_to(kind, slope):
    for checkpoint in (CHECKPOINT, {**CHECKPOINT, 'k': [-2.]}):
        against = calibrate(RAW, 50 + slope * RAW, kind, checkpoint)[2]
        assert any('reverses the ranking' in one for one in against) == (slope * checkpoint['k'][0] < 0)
        assert len(against) <= 1


@pytest.mark.parametrize('seed', range(8))
def test_a_calibration_is_held_against_the_mean_of_the_other_ratings(seed):
    rng = np.random.default_rng(seed)
    raw, mos = rng.normal(0, 1, 40), rng.normal(50, 10, 40)
    _, report, against = calibrate(raw, mos)
    of_mean = np.sqrt(np.mean([(mos[i] - np.delete(mos, i).mean()) ** 2 for i in range(40)]))
    no_better = report['leave-one-out']['RMSE'] >= of_mean
    assert any(f'no better than {of_mean:.4g} of the mean' in one for one in against) == no_better


def test_ratings_that_have_nothing_to_do_with_the_scores(scored, fails, capsys):
    paths = save_photos(Path('rated'), 24)
    order = np.argsort(load(scored[1]).score(paths))
    mos = np.empty(24)
    mos[order] = np.arange(24) % 2 + np.arange(24) / 100  # low, high, low, high
    pd.DataFrame({'image': [Path(path).name for path in paths], 'mos': mos}).to_csv('ratings.csv', index=False)
    words = ['--calibrate', 'ratings.csv', '--im_dir', 'rated', '--out', 'new.pth', *scored]
    error = fails(test_demo.main, *words)
    assert 'the calibration makes things worse: the SROCC of images that are left out of the fit is' in error
    assert not Path('new.pth').exists()
    test_demo.main([*words, '--force'])
    assert 'WARNING: the calibration makes things worse' in capsys.readouterr().out
    assert Path('new.pth').exists()


def test_rated_images_lie_in_im_dir(scored, tmp_path, capsys):
    ratings = tmp_path / 'folder/ratings.csv'
    ratings.parent.mkdir()
    ratings.write_text('image,mos\na.png,1\nb.png,2\n')
    for name in ('folder/a.png', 'b.png'):
        Path(name).touch()
    assert read_ratings(ratings)[0] == [str(ratings.parent / 'a.png'), 'b.png']
    assert read_ratings(ratings, 'photos')[0] == ['photos/a.png', 'b.png']
    with pytest.raises(SystemExit, match='2'):
        test_demo.main(['--calibrate', str(ratings), '--im_dir', 'photos', *scored])
    error = capsys.readouterr().err
    assert 'photos/a.png: no such file' in error
    assert 'error: --calibrate: 0 rated images, expected at least 20' in error
