"""Losses of errors, agreement, pairs and soft ranks: slow oracles in float64, gradients, edges and invariances."""
import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, log_softmax
from torch.testing import assert_close

from iqa_losses import soft_ranks
from iqa_training.options import TRAIN
from IQAloss import LOSSES

N = 7
STD = np.linspace(.1, 1.3, N)
MORE = torch.tensor(STD)[:, None]  # what some losses need of each image, beside the MOS
ROOT2 = math.sqrt(2)


def phi(z):
    return stats.norm.cdf(z)


def batch(seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and MOS, (N, 1) float64; two MOS are equal."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(N, 1, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    y[4] = y[1]
    return x.requires_grad_(), y


# Oracles: functions of predictions and MOS, (N,) float64 in numpy

def order(t, i, j) -> float:
    return .5 if t[i] == t[j] else float(t[i] > t[j])


def raters(t, i, j) -> float:
    return phi((t[i] - t[j]) / math.hypot(*STD[[i, j]]))


def over_pairs(term):
    return lambda x, t: np.mean([term(x, t, i, j) for i, j in combinations(range(len(x)), 2)])


def hinge(margin):
    def oracle(x, t):
        return np.mean([max(0, (margin or t[i] - t[j]) - (x[i] - x[j]))
                        for i, j in permutations(range(len(x)), 2) if t[i] > t[j]])
    return oracle


def cross_entropy(probability, of_mos=order):
    def term(x, t, i, j):
        p, q = of_mos(t, i, j), probability(x[i] - x[j])
        return -p * math.log(q) - (1 - p) * math.log(1 - q)
    return over_pairs(term)


def infidelity(of_mos):
    def term(x, t, i, j):
        p, q = of_mos(t, i, j), phi((x[i] - x[j]) / ROOT2)
        return 1 - math.sqrt(p * q) - math.sqrt((1 - p) * (1 - q))
    return over_pairs(term)


def triplets(x, t):
    lowest, low, *_, high, highest = sorted(range(len(t)), key=lambda i: t[i])
    span = abs(x[highest] - x[lowest])
    return (max(0, abs(x[highest] - x[high]) - span + t[high] - t[lowest])
            + max(0, abs(x[lowest] - x[low]) - span + t[highest] - t[low]))


def soft(function):
    def oracle(x, t):
        z = (x - x.mean()) / x.std()
        ranks = [1 + sum(function((z[i] - z[j]) / .1) for j in range(len(z)) if j != i) for i in range(len(z))]
        return (1 - stats.pearsonr(ranks, stats.rankdata(t)).statistic) / 2
    return oracle


def sorting(x, t):
    n, total = len(x), 0
    for k, value in enumerate(sorted(t, reverse=True), start=1):
        row = log_softmax([(n + 1 - 2 * k) * x[j] - sum(abs(x[j] - x[i]) for i in range(n)) for j in range(n)])
        total -= np.mean([row[j] for j in range(n) if t[j] == value])
    return total / n


def concordance(x, t):
    return 1 - 2 * np.cov(x, t, ddof=0)[0, 1] / (x.var() + t.var() + (x.mean() - t.mean()) ** 2)


def mixture(scale):
    def oracle(x, t):
        n = len(x)
        wrong = [max(0, (x[i] - x[j]) * np.sign(t[j] - t[i])) for i in range(n) for j in range(n)]
        return (sum(wrong) / n / (n - 1) / (1 + max(wrong)) + (1 - stats.pearsonr(x, t).statistic) / 2
                + np.abs(x - t).mean() / (scale or np.ptp(t)))
    return oracle


# row -> the options of a case, and its oracle
ORACLES = [
    ('logcosh', {}, lambda x, t: np.log(np.cosh(x - t)).mean()), ('ccc', {}, concordance),
    ('rank-hinge', {}, hinge(None)), ('rank-hinge', {'hinge_margin': .5}, hinge(.5)),
    ('ranknet', {}, cross_entropy(expit)), ('ranknet', {'ranknet_scale': 3.}, cross_entropy(lambda d: expit(3 * d))),
    ('fidelity', {}, infidelity(order)), ('thurstone-bce', {}, cross_entropy(lambda d: phi(d / ROOT2))),
    ('fidelity-std', {'std': MORE}, infidelity(raters)), ('tres', {}, triplets),
    ('thurstone-bce-std', {'std': MORE}, cross_entropy(lambda d: phi(d / ROOT2), raters)),
    ('epsilon', {'interval': MORE}, lambda x, t: (np.maximum(0, np.abs(x - t) - STD) ** 2).mean()),
    ('mixed', {}, mixture(None)), ('mixed', {'mixed_scale': 90.}, mixture(90)),
    ('soft-srocc', {}, soft(expit)), ('soft-srocc', {'soft_ranks': 'erf'}, soft(phi)), ('neuralsort', {}, sorting)]
PROJECTED = ('soft-srocc', {'soft_ranks': 'projection'}, None)  # its oracle is a property, below
CASES = pytest.mark.parametrize(('name', 'options'), [case[:2] for case in (*ORACLES, PROJECTED)], ids=str)


@pytest.mark.parametrize(('name', 'options', 'oracle'), ORACLES, ids=str)
@pytest.mark.parametrize('seed', range(3))
def test_value_and_gradient(name, options, oracle, seed):
    x, y = batch(seed)
    expected = float(oracle(x.detach().numpy().ravel(), y.numpy().ravel()))
    assert LOSSES[name].build(x, y, **options).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name].build(x, y, **options), (x,))


@CASES
def test_the_order_of_the_batch_does_not_matter(name, options):
    turned = [values.flip(0) for values in batch()]
    of_images = {option: value.flip(0) for option, value in options.items() if value is MORE}
    assert_close(LOSSES[name].build(*batch(), **options), LOSSES[name].build(*turned, **options | of_images))


@CASES
@pytest.mark.parametrize('scores', ['one', 'equal MOS', 'equal predictions', 'all equal'])
def test_edges_are_finite(name, options, scores):
    x, y = (values.detach()[:1 if scores == 'one' else N] for values in batch())
    y = torch.full_like(y, 2) if scores in ('equal MOS', 'all equal') else y
    options = {option: value[:len(x)] if value is MORE else value for option, value in options.items()}
    x = (torch.full_like(x, .1) if scores in ('equal predictions', 'all equal') else x.clone()).requires_grad_()
    value = LOSSES[name].build(x, y, **options)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()
    documented = {'one': {'ccc': 1, 'rank-hinge': 0, 'ranknet': 0, 'fidelity': 0, 'thurstone-bce': 0, 'tres': 0,
                          'soft-srocc': .5, 'neuralsort': 0},
                  'equal predictions': {'ccc': 1, 'soft-srocc': .5, 'neuralsort': math.log(N)},
                  'equal MOS': {'ccc': 1, 'rank-hinge': 0, 'soft-srocc': .5},
                  'all equal': {'ranknet': math.log(2), 'thurstone-bce': math.log(2), 'mixed': .5}}
    if name in documented[scores] and 'mixed_scale' not in options:
        assert value.item() == pytest.approx(documented[scores][name], abs=1e-12)
    if name == 'soft-srocc':
        assert not x.grad.any()


@pytest.mark.parametrize('ranks', soft_ranks.SOFT_RANKS)
@given(seed=st.integers(0, 99), scale=st.floats(.1, 10), shift=st.floats(-9, 9))
def test_soft_srocc_tends_to_srocc_and_ignores_affine_maps(ranks, seed, scale, shift):
    x, y = (values.detach() for values in batch(seed))
    srocc = stats.spearmanr(x.numpy(), y.numpy()).statistic
    assert soft_ranks.soft_srocc(x, y, ranks, 1e-5).item() == pytest.approx((1 - srocc) / 2, abs=1e-4)
    assert_close(soft_ranks.soft_srocc(scale * x + shift, y, ranks), soft_ranks.soft_srocc(x, y, ranks))


@given(seed=st.integers(0, 99), temperature=st.floats(.1, 5))
def test_projected_ranks_are_the_nearest_point_of_the_permutahedron(seed, temperature):
    """The condition of a projection: (z - r) . (vertex - r) <= 0 for every permutation of the ranks."""
    z = batch(seed)[0].detach().flatten()[:5] * 2
    found = soft_ranks.projected_ranks(z, temperature)
    assert found.sum().item() == pytest.approx(15)
    for vertex in permutations(range(1, 6)):
        assert (z / temperature - found) @ (torch.tensor(vertex, dtype=z.dtype) - found) <= 1e-9


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_ranks_follow_scipy(values):
    assert soft_ranks.exact_ranks(torch.tensor(values)).tolist() == stats.rankdata(values).tolist()


def test_options_are_checked(fails):
    assert "unknown soft ranks 'exact'" in fails(TRAIN.parse, '-lt', 'soft-srocc', '--soft_ranks', 'exact')
    assert '--loss_type mse takes no such option' in fails(TRAIN.parse, '-lt', 'mse', '--soft_ranks', 'erf')
    assert 'out of range: above 0' in fails(TRAIN.parse, '-lt', 'rank-hinge', '--hinge_margin', '0')
    with pytest.raises(ValueError, match='unknown soft ranks'):
        soft_ranks.soft_srocc(torch.zeros(2), torch.zeros(2), 'exact')


@pytest.mark.parametrize('difference', [.5, 3, 40, 1e3, 1e5, 1e9])
def test_the_gradient_of_a_wrong_order_is_accurate_in_float32(difference):
    """The derivative of log Phi(z) is phi(z) / Phi(z), about -z - 1 / z far below 0."""
    x = torch.tensor([0., difference], requires_grad=True)
    LOSSES['thurstone-bce'].build(x, torch.tensor([1., 0.])).backward()
    z = -difference / ROOT2
    expected = stats.norm.pdf(z) / stats.norm.cdf(z) if z > -20 else -z - 1 / z
    assert x.grad[1].item() == pytest.approx(expected / ROOT2, rel=1e-4)


def test_a_pair_without_spread_is_compared_by_its_order():
    x, y = batch()
    zero = torch.zeros(N, 1, dtype=torch.float64)
    for name in ('fidelity', 'thurstone-bce'):
        assert_close(LOSSES[f'{name}-std'].build(x, y, zero), LOSSES[name].build(x, y))


@pytest.mark.parametrize(('name', 'need'), [('fidelity-std', 'std'), ('epsilon', 'interval')])
def test_other_numbers_than_predictions_are_refused(name, need):
    with pytest.raises(ValueError, match=rf'predictions \(3,\) and {need} \(2, 1\): expected'):
        LOSSES[name].build(torch.zeros(3), torch.zeros(3), torch.zeros(2, 1))
