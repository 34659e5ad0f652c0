"""The metric: properties, scipy as the oracle, the original's numbers, the authors' recorded predictions."""
import doctest
import pickle

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from scipy import stats

import IQAperformance
from iqa_results.write import results_table
from IQAperformance import CRITERIA, Criterion, IQAPerformance, agreement, fit_line, intervals


def fill(metric, heads, mos, std, batch=7):
    """Feed (3, N) heads in the network's order: level 6, level 7, final."""
    for i in range(0, len(mos), batch):
        *outputs, mos_batch, std_batch = (torch.as_tensor(v[i:i + batch])[:, None] for v in (*heads, mos, std))
        metric.update((outputs, (mos_batch, std_batch)))
    return metric.compute()


@pytest.fixture
def sample():
    rng = np.random.RandomState(0)
    mos = rng.uniform(0, 100, 50)
    return np.stack([mos + rng.normal(0, noise, 50) for noise in (30, 20, 10)]) / 50 - 1, mos, rng.uniform(5, 15, 50)


def test_the_line_and_the_criteria_against_scipy(sample):
    heads, mos, std = sample
    result = fill(IQAPerformance('train'), heads, mos, std)
    for suffix, raw in zip(('', '1', '2'), (heads[2], heads[0], heads[1]), strict=True):
        line = stats.linregress(raw, mos)
        head = result.heads[int(suffix or 0)]
        assert (head.k, head.b) == pytest.approx((line.slope, line.intercept))
        assert head.pq == pytest.approx(line.slope * raw + line.intercept)
        assert head.raw == pytest.approx(raw)
        assert head.criteria == {name: result.criteria[f'{name}{suffix}'] for name in CRITERIA}
        assert head.criteria['PLCC'] == pytest.approx(abs(line.rvalue))
        assert head.criteria['SROCC'] == pytest.approx(stats.spearmanr(raw, mos)[0])
        assert head.criteria['KROCC'] == pytest.approx(stats.kendalltau(raw, mos)[0])
        assert head.criteria['RMSE'] == pytest.approx(np.std(mos) * np.sqrt(1 - line.rvalue ** 2))
    assert result.sq == pytest.approx(mos)
    assert result.sq_std == pytest.approx(std)
    assert (result.srocc, result.plcc, result.krocc, result.rmse) == tuple(
        result.criteria[name] for name in ('SROCC', 'PLCC', 'KROCC', 'RMSE'))


def test_status_test_applies_what_is_given_and_changes_nothing(sample):
    k, b = [2., .5, -3.], [10., 20., 30.]
    metric = IQAPerformance('test', k, b)
    result = fill(metric, *sample)
    assert (result.k, result.b) == (k, b) == ([2., .5, -3.], [10., 20., 30.])
    assert result.heads[2].pq == pytest.approx(-3 * sample[0][1] + 30)
    assert result.criteria['SROCC2'] < 0
    metric.reset()
    assert fill(metric, *sample).rmse == result.rmse


def test_without_mapping_predictions_stay(sample):
    result = fill(IQAPerformance('train', mapping=False), *sample)
    assert result.pq == pytest.approx(sample[0][2])
    assert result.k == [1, 1, 1]


def test_a_constant_prediction_is_nan_with_a_warning(sample):
    heads, mos, std = sample
    heads[2] = 3
    with pytest.warns(RuntimeWarning, match='SROCC, PLCC, KROCC not defined'):
        result = fill(IQAPerformance('train'), heads, mos, std)
    assert np.isnan(result.srocc)
    assert result.rmse == pytest.approx(np.std(mos))
    assert result.criteria['SROCC1'] > 0


def test_one_image_is_no_exception():
    with pytest.warns(RuntimeWarning, match='1 images'):
        assert np.isnan(fill(IQAPerformance(), np.ones((3, 1)), np.ones(1), np.ones(1)).plcc)


def test_nothing_seen_and_wrong_status():
    with pytest.raises(NotComputableError):
        IQAPerformance().compute()
    metric = IQAPerformance('test', [1.], [0.])
    metric.update(([torch.zeros(3)] * 2, torch.arange(3.)))
    with pytest.raises(ValueError, match='1 k and 1 b; expected both for each head of the network'):
        metric.compute()
    with pytest.raises(ValueError, match="'train' or 'test', got 'val'"):
        IQAPerformance('val')


def test_a_metric_attaches_to_an_engine_of_ignites(sample):
    heads, mos, std = sample
    engine = Engine(lambda engine, rows: {'pair': ([torch.as_tensor(head[rows]) for head in heads],
                                                   (torch.as_tensor(mos[rows]), torch.as_tensor(std[rows])))})
    IQAPerformance(output_transform=lambda output: output['pair']).attach(engine, 'performance')
    for _ in range(2):  # each run begins with no images
        attached = engine.run([range(0, 30), range(30, 50)]).metrics['performance']
        assert attached.criteria == fill(IQAPerformance(), *sample).criteria
    assert len(attached) == 50


def test_the_docstrings_examples_run():
    assert doctest.testmod(IQAperformance).attempted >= 6
    assert doctest.testmod(IQAperformance).failed == 0


@pytest.mark.parametrize(('outputs', 'scores', 'text'), [
    (torch.zeros(4, 3), torch.zeros(4), r'expected tensors \(N, 1\) or \(N,\), got \(4, 3\)'),
    ([torch.zeros(4, 1)], torch.zeros(1), 'predictions of 4 images, scores of 1'),
    ([torch.zeros(1, 1)], torch.zeros(4), 'predictions of 1 images, scores of 4'),
])
def test_shapes_that_do_not_fit_are_refused(outputs, scores, text):
    with pytest.raises(ValueError, match=text):
        IQAPerformance().update((outputs, scores))


def test_fit_line_of_a_constant():
    mos = np.array([1., 2., 6.])
    for value in (1, .1, -1e9 / 3, 1e-300, 0):  # the mean of three times .1 is not .1
        assert fit_line(np.full(3, value), mos) == (0, 3)
    assert fit_line(np.array([.1, .1, np.nextafter(.1, 1)]), mos) == (0, 3)
    k, b = fit_line(1e6 + np.array([0, 1e-3, 5e-3]), mos)
    assert (k, b) == pytest.approx((1000, 1 - 1e9), rel=1e-6)


def test_every_criterion_of_every_head_is_stored(sample):
    names = list(fill(IQAPerformance(), *sample).criteria)
    assert names == [criterion + suffix for suffix in ('', '1', '2') for criterion in CRITERIA]


@pytest.mark.parametrize('name', CRITERIA)
def test_the_merit_of_a_criterion_falls_as_predictions_get_worse(name):
    rng = np.random.default_rng(0)
    mos, noise = rng.uniform(0, 100, 200), rng.normal(0, 100, 200)
    criterion = CRITERIA[name]
    merits = [criterion.merit(float(criterion(mos + share * noise, mos))) for share in (0, .1, .3, 1)]
    assert merits == sorted(set(merits), reverse=True)
    falling = criterion.merit(float(criterion(-mos, mos)))
    assert (falling == merits[0]) == criterion.correlation


def test_a_row_of_criteria_is_all_that_another_criterion_needs(monkeypatch, sample):
    def mae(pq, sq, axis=-1):
        return np.mean(np.abs(sq - pq), axis)
    monkeypatch.setitem(CRITERIA, 'MAE', Criterion(mae, correlation=False))
    result = fill(IQAPerformance(), *sample)
    value = result.criteria['MAE']
    assert value == np.mean(np.abs(result.pq - sample[1]))
    assert agreement(np.ones(3), np.array([1., 2., 3.]))['MAE'] == 1
    low, high = intervals(result.pq, sample[1])['MAE']
    assert low < value < high
    header = results_table(result, ['both', 'level 6', 'level 7']).split()[:5]
    assert header == ['|SROCC|', '|PLCC|', 'RMSE', '|KROCC|', 'MAE']


@pytest.mark.parametrize('status', ['train', 'test'])
def test_the_originals_performance(shared, status):
    golden = np.load(shared / 'golden' / 'performance.npz', allow_pickle=False)
    final, *levels = golden['heads']
    result = fill(IQAPerformance(status, [2, .5, -3], [10, 20, 30]), [*levels, final], golden['mos'], golden['std'])
    recorded = [name.split('/')[1] for name in golden.files if name.startswith(f'{status}/')]
    assert set(recorded) >= {'SROCC', 'PLCC1', 'RMSE2', 'pq', 'k', 'b'}
    found = {'sq': result.sq, 'sq_std': result.sq_std, 'k': result.k, 'b': result.b, **result.columns(),
             **result.criteria}
    for name in recorded:
        np.testing.assert_allclose(found[name], golden[f'{status}/{name}'], rtol=1e-4, atol=1e-4, err_msg=name)


class NumpyOnly(pickle.Unpickler):
    """Reads the authors' .npy files, which are pickles, without running anything but numpy's own constructors."""

    def find_class(self, module, name):
        if (module.split('.')[0], name) not in {('numpy', n) for n in ('_reconstruct', 'ndarray', 'dtype', 'scalar')}:
            raise pickle.UnpicklingError(f'{module}.{name} is not allowed')
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


def recorded_predictions(path):
    with open(path, 'rb') as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return NumpyOnly(file, encoding='latin1').load().item()


@pytest.mark.parametrize(('dataset', 'expected'), [('KonIQ-10k', (.9371, .9465, 5.042)),
                                                   ('CLIVE', (.8342, .8492, 14.94))])
def test_the_authors_predictions_give_their_metrics_back(shared, dataset, expected):
    data = recorded_predictions(shared / 'paper' / 'npy' / f'{dataset}-Norm-in-Norm.npy')
    heads = [np.ravel(data[name]) for name in ('pq1_before', 'pq2_before', 'pq_before')]
    result = fill(IQAPerformance('test', np.ravel(data['k']), np.ravel(data['b'])), heads, np.ravel(data['sq']),
                  np.ravel(data['sq_std']))
    assert (result.srocc, result.plcc, result.rmse) == pytest.approx(expected, abs=6e-5, rel=4e-4)


def test_the_published_score_of_the_test_photo_with_the_line_of_the_right_head(shared):
    data = recorded_predictions(shared / 'paper' / 'npy' / 'CLIVE-Norm-in-Norm.npy')
    k, b = np.ravel(data['k']), np.ravel(data['b'])
    assert k[0] * -2.460024 + b[0] == pytest.approx(41.085, abs=1e-3)
    assert k[-1] * -2.460024 + b[-1] == pytest.approx(10.43, abs=5e-3)  # what the original printed
