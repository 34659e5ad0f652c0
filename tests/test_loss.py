"""The losses: properties, an oracle in float64, the original's numbers."""
import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import IQAloss
from IQAloss import IQALoss

NORMALISED = ['norm-in-norm', 'min-max-norm', 'mean-norm', 'scaling', 'linearity']
SHIFT_INVARIANT = ['norm-in-norm', 'min-max-norm', 'mean-norm', 'linearity']


def batch(n=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 1, generator=generator, dtype=dtype, requires_grad=True),
            torch.rand(n, 1, generator=generator, dtype=dtype) * 100)


# those that need predictions, MOS and std alone
NAMES = [name for name, row in IQAloss.LOSSES.items() if set(row.needs()) <= {'y_pred', 'y', 'std'}]


def one_head(name, **options):
    loss = IQALoss(name, beta=(1,), **options)
    return lambda x, y: loss([x], (y, y))


@pytest.mark.parametrize('name', SHIFT_INVARIANT)
@pytest.mark.parametrize('alpha', [(1, 0), (1, .1), (0, 1)])
def test_invariant_to_an_affine_map_of_either_side(name, alpha):
    x, y = batch()
    loss = one_head(name, alpha=alpha)
    assert_close(loss(3 * x + 7, 2 * y - 5), loss(x, y), rtol=1e-4, atol=1e-5)


def test_scaling_is_invariant_to_scale_alone():
    x, y = batch()
    loss = one_head('scaling')
    assert_close(loss(3 * x, 2 * y), loss(x, y), rtol=1e-4, atol=1e-6)
    assert abs(loss(x + 7, y) - loss(x, y)) > 1e-3


@pytest.mark.parametrize('name', NORMALISED)
@pytest.mark.parametrize('p', [.5, 1, 2, 3])
@pytest.mark.parametrize('q', [1, 2])
def test_range_and_zero_at_perfect_agreement(name, p, q):
    x, y = batch()
    loss = one_head(name, p=p, q=q)
    assert 0 <= loss(x, y) <= 1
    rounding = 2e-6 if p >= 1 else 1e-3  # the root of what rounding leaves
    assert_close(loss(2 * y, y), torch.tensor(0.), atol=rounding, rtol=0)


def test_norm_in_norm_reaches_one_for_two_images_in_the_wrong_order():
    y = torch.tensor([[10.], [90.]])
    assert_close(one_head('norm-in-norm')(-y, y), torch.tensor(1.))


@pytest.mark.parametrize('name', NORMALISED)
@pytest.mark.parametrize('detach', [False, True])
def test_a_batch_of_one_gives_zero_and_zero_gradient(name, detach):
    x, y = batch(1)
    value = IQALoss(name, beta=(1,), detach=detach, monotonicity_regularization=True)([x], (y, y))
    value.backward()
    assert value.item() == 0
    assert x.grad.item() == 0


@pytest.mark.parametrize('name', NORMALISED)
def test_equal_scores_give_finite_loss_and_gradient(name):
    x, y = batch()
    value = one_head(name)(x, torch.full_like(y, 50))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()


@given(n=st.integers(2, 40), value=st.floats(-100, 100, width=32))
def test_equal_values_become_zeros_though_their_mean_is_rounded(n, value):
    equal, (x, y) = torch.full((n, 1), value), batch(n)
    for normalise in (IQAloss.normalise_by_norm, IQAloss.centre_by_range, IQAloss.standardise):
        assert not normalise(equal).any()
    for name in SHIFT_INVARIANT:
        assert_close(one_head(name)(equal, y), one_head(name)(torch.zeros(n, 1), y))
        assert_close(one_head(name)(x, equal), one_head(name)(x, torch.zeros(n, 1)))


def oracle(x, t, alpha, p, q):
    """Norm-in-Norm in float64 numpy, straight from the paper's definition."""
    def unit(values):
        values = values - values.mean()
        return values / (1e-8 + (np.abs(values) ** q).sum() ** (1 / q))
    x, t, n = unit(x), unit(t), len(x)
    scale = 2 ** max(1, 1 / q) * n ** max(0, 1 / p - 1 / q)
    rho = (x @ t) / np.sqrt((x @ x) * (t @ t))
    terms = [((np.abs(difference) ** p).sum() ** (1 / p) / scale) ** p for difference in (x - t, rho * x - t)]
    return np.dot(alpha, terms) / sum(alpha)


@pytest.mark.parametrize('alpha', [(1, 0), (1, .1), (0, 1)])
@pytest.mark.parametrize(('p', 'q'), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
def test_norm_in_norm_against_a_float64_oracle(alpha, p, q):
    x, y = batch(13, dtype=torch.float64)
    value = IQAloss.norm_loss_with_normalization(x, y, alpha, p, q)
    assert value.item() == pytest.approx(oracle(x.detach().numpy()[:, 0], y.numpy()[:, 0], alpha, p, q), rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: IQAloss.norm_loss_with_normalization(x, y, alpha, p, q), (x,))


def test_linearity_is_one_minus_plcc_over_two():
    x, y = batch(20, dtype=torch.float64)
    plcc = np.corrcoef(x.detach().numpy()[:, 0], y.numpy()[:, 0])[0, 1]
    assert IQAloss.linearity_induced_loss(x, y).item() == pytest.approx((1 - plcc) / 2)


def test_monotonicity_regularization_against_a_double_loop():
    x, y = batch(6, dtype=torch.float64)
    wrong = [max(0, (x[i] - x[j]).item() * np.sign((y[j] - y[i]).item())) for i in range(6) for j in range(6)]
    value = IQAloss.monotonicity_regularization(x, y).item()
    assert value == pytest.approx(sum(wrong) / 30 / (1 + max(wrong)))
    assert IQAloss.monotonicity_regularization(y, y).item() == 0


EVERY = [{'loss_type': name, 'monotonicity_regularization': monotone, 'alpha': (1, .5)}
         for name in NAMES for monotone in (False, True)]


@pytest.mark.parametrize('options', EVERY, ids=str)
def test_a_vector_and_a_column_are_the_same_scores(options):
    loss = IQALoss(beta=(1,), **options)
    for n, flat_x, flat_y in product((1, 2, 9), (False, True), (False, True)):
        x, y = batch(n)
        value = loss([x], (y, y))
        value.backward()
        x2 = (x[:, 0] if flat_x else x).detach().requires_grad_()
        other = loss([x2], (y[:, 0] if flat_y else y,) * 2)
        other.backward()
        assert other.item() == value.item()
        assert torch.equal(x2.grad.reshape(-1), x.grad.reshape(-1))


@pytest.mark.parametrize('options', EVERY, ids=str)
def test_other_shapes_are_refused_with_both_stated(options):
    loss = IQALoss(beta=(1,), **options)
    for predictions, mos in (
            ((4, 1), (3, 1)), ((4,), (1,)), ((1, 1), (4, 1)), ((4, 1), (1, 4)), ((1, 4), (4,)), ((4, 2), (4, 2)),
            ((4, 1), ()), ((), (4,)), ((), ()), ((4, 1, 1), (4, 1)), ((0, 1), (0, 1)), ((4, 0), (4, 1))):
        with pytest.raises(ValueError, match='expected .N, 1. or .N,., of the same N') as error:
            loss([torch.ones(predictions)], (torch.ones(mos), torch.ones(mos)))
        assert f'predictions {predictions} and MOS {mos}' in str(error.value)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_numbers_that_are_not_finite_are_named(name, bad):
    loss, (x, y) = IQALoss(name, beta=(1, 0)), batch()
    spoilt = torch.where(torch.arange(8)[:, None] == 3, bad, y)
    with pytest.raises(IQAloss.NotFiniteError, match='the MOS contain NaN or infinity'):
        loss([x, x], (spoilt, y))
    with pytest.raises(IQAloss.NotFiniteError, match='the predictions contain NaN or infinity'):
        loss([spoilt, x], (y, y))
    assert torch.isfinite(loss([x, spoilt], (y, y)))  # a head of weight 0


@pytest.mark.parametrize(('options', 'message'), [
    ({'alpha': (0, 0)}, r'alpha \(0, 0\): expected finite weights of at least 0, and one above 0'),
    ({'alpha': (2, -1)}, 'alpha'), ({'alpha': (float('nan'), 1)}, 'alpha'), ({'beta': (0, 0, 0)}, r'beta \(0, 0, 0\)'),
    ({'beta': (1, float('inf'))}, 'beta'), ({'p': 0}, 'p: 0 is out of range: at least 0.05, at most 100'),
    ({'q': -1}, 'q: -1 is out'), ({'p': float('nan')}, 'p: nan is out'), ({'q': float('inf')}, 'q: inf is out'),
    ({'alpha': (1,)}, 'alpha .1,.: expected 2 values')])
def test_arguments_that_leave_no_loss(options, message):
    with pytest.raises(ValueError, match=message):
        IQALoss(**options)
    x, y = batch()
    if 'beta' not in options:
        with pytest.raises(ValueError, match=message):
            IQAloss.norm_loss_with_normalization(x, y, **options)


@pytest.mark.parametrize(('name', 'options', 'message'), [
    ('soft-srocc', {'temperature': 0}, 'temperature: 0 is out of range: above 0'),
    ('soft-srocc', {'soft_ranks': 'exact'}, "soft_ranks: unknown soft ranks 'exact'"),
    ('rank-hinge', {'hinge_margin': -1.}, 'hinge_margin: -1.0 is out of range'),
    ('mae', {'monotonicity_regularization': True, 'gamma': -1}, r'gamma \(-1\): expected finite weights')])
def test_options_that_the_command_line_refuses(name, options, message):
    with pytest.raises(ValueError, match=message):
        IQALoss(name, **options)


def test_mos_alone_are_labels_without_std():
    x, y = batch()
    loss = IQALoss('mae+plcc', beta=(1,))
    assert loss([x], y) == loss([x], (y, y))
    with pytest.raises(IQAloss.NotFiniteError, match='the standard deviations of the ratings .column std. contain NaN'):
        IQALoss('mae+fidelity-std', beta=(1,))([x], y)
    with pytest.raises(ValueError, match='--loss_type emd needs the outputs of a histogram head'):
        IQALoss('emd', beta=(1,))([x], y)


def test_one_tensor_is_no_sequence_of_heads():
    with pytest.raises(ValueError, match=r'a sequence of heads, got one tensor \(3, 8\)'):
        IQALoss()(torch.ones(3, 8), (torch.ones(8), torch.ones(8)))


@pytest.mark.parametrize('name', NAMES)
def test_detach_holds_for_the_monotonicity_too(name):
    """With R the sum of the violations and m the largest: d (c R / (1 + m)) is c dR / (1 + m) if m is detached."""
    def gradient(**options) -> torch.Tensor:
        x, y = batch(6)
        IQALoss(name, beta=(1,), gamma=2, **options)([x], (y, y)).backward()
        return x.grad[:, 0].double()

    x, y = (values.detach().double()[:, 0] for values in batch(6))
    violation = ((x[:, None] - x) * torch.sign(y - y[:, None])).clamp_min(0)
    sign = torch.where(violation > 0, torch.sign(y - y[:, None]), 0)
    expected = 2 / 30 * (sign.sum(1) - sign.sum(0)) / (1 + violation.max())
    with_term, without = gradient(detach=True, monotonicity_regularization=True), gradient(detach=True)
    assert_close(with_term - without, expected, rtol=1e-4, atol=1e-6)
    through_max = gradient(monotonicity_regularization=True) - gradient()
    assert not torch.allclose(through_max, expected, rtol=1e-2, atol=1e-4)


def test_detach_changes_the_gradient_and_not_the_value():
    (x, y), (x2, _) = batch(), batch()
    first, second = one_head('norm-in-norm')(x, y), one_head('norm-in-norm', detach=True)(x2, y)
    first.backward()
    second.backward()
    assert_close(first, second)
    assert not torch.allclose(x.grad, x2.grad)


def test_heads_are_weighted_and_those_of_weight_zero_skipped():
    heads, (_, y) = [batch(seed=i)[0] for i in range(3)], batch()
    single = one_head('mae')
    total = IQALoss('mae', beta=(.1, 0, 2))(heads, (y, y))
    assert_close(total, .1 * single(heads[0], y) + 2 * single(heads[2], y))
    total.backward()
    assert heads[1].grad is None


def test_float32_under_autocast():
    x, y = batch()
    with torch.autocast('cpu', torch.bfloat16):
        value = one_head('mse')(x.bfloat16(), y)
    assert value.dtype == torch.float32


def test_unknown_loss_and_wrong_number_of_heads():
    with pytest.raises(ValueError, match='unknown loss .*norm-in-norm'):
        IQALoss('nin')
    with pytest.raises(ValueError, match='beta has 3 weights, the network 1 heads; expected as many'):
        IQALoss()([batch()[0]], (batch()[1],) * 2)


def test_the_originals_losses_and_gradients(shared):
    golden = np.load(shared / 'golden' / 'losses.npz', allow_pickle=False)
    for i, options in enumerate(json.loads(str(golden['cases']))):
        heads = [torch.tensor(head[:, None], requires_grad=True) for head in golden[f'{i}/heads']]
        mos = torch.tensor(golden[f'{i}/mos'][:, None])
        loss = IQALoss(**options)(heads, (mos, mos))
        loss.backward()
        gradients = np.stack([np.zeros(len(mos)) if head.grad is None else head.grad[:, 0] for head in heads])
        expected = golden[f'{i}/grads']
        assert loss.item() == pytest.approx(float(golden[f'{i}/loss']), rel=1e-3, abs=1e-7), options
        assert np.abs(gradients - expected).max() <= 1e-3 * np.abs(expected).max() + 1e-9, options
