"""The losses: properties, an oracle in float64, the original's numbers."""
import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import IQAloss
from IQAloss import IQALoss

NORMALISED = ['norm-in-norm', 'min-max-norm', 'mean-norm', 'scaling', 'linearity']
SHIFT_INVARIANT = ['norm-in-norm', 'min-max-norm', 'mean-norm', 'linearity']


def batch(n=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 1, generator=generator, dtype=dtype, requires_grad=True),
            torch.rand(n, 1, generator=generator, dtype=dtype) * 100)


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
    with pytest.raises(ValueError, match='3 weights for a network with 1 heads'):
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
