"""Sums of losses, losses alone in half precision, and the losses of the other families against oracles in float64."""
import doctest
import importlib
import inspect
import math
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from torch.testing import assert_close

import iqa_losses
import IQAloss
import main
from iqa_losses import loss_type, terms_of
from iqa_results.curves import read_scalars
from iqa_runtime.errors import UserError
from iqa_runtime.variants import described
from iqa_training.options import TRAIN
from IQAloss import LOSSES, IQALoss

NUMBERS = st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 100)), min_size=2, max_size=9)


def columns(pairs, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.tensor(pairs, dtype=dtype).T
    return x[:, None].clone().requires_grad_(), y[:, None]


# The other families

@given(NUMBERS, st.floats(.01, 100))
def test_huber_and_charbonnier_against_their_formulas(pairs, bend):
    x, y = columns(pairs)
    e = np.abs(np.subtract(*np.array(pairs).T))
    huber = np.where(e <= bend, e ** 2 / 2, bend * (e - bend / 2)).mean()
    assert IQAloss.huber(x, y, bend).item() == pytest.approx(huber, rel=1e-9, abs=1e-12)
    assert IQAloss.charbonnier(x, y, bend).item() == pytest.approx(np.sqrt(e ** 2 + bend ** 2).mean(), rel=1e-9)
    value = IQAloss.charbonnier(x, y, bend)
    value.backward()
    assert torch.isfinite(x.grad).all()


def test_plcc_against_numpy_and_its_ends():
    x, y = columns(np.random.default_rng(1).normal(size=(12, 2)))
    r = np.corrcoef(x.detach()[:, 0], y[:, 0])[0, 1]
    assert IQAloss.plcc(x, y).item() == pytest.approx((1 - r) / 2)
    assert torch.autograd.gradcheck(lambda x: IQAloss.plcc(x, y), (x,))
    assert IQAloss.plcc(-y, y).item() == pytest.approx(1)
    underflow = (1e-30 * torch.arange(12.)[:, None]).requires_grad_()
    for constant in (torch.ones(12, 1, requires_grad=True), torch.ones(1, 1, requires_grad=True), underflow):
        value = IQAloss.plcc(constant, y[:len(constant)].to(constant))
        value.backward()
        assert value.item() == .5
        assert not constant.grad.any()


MODULES = [IQAloss, iqa_losses, *(importlib.import_module(f'iqa_losses.{one.name}')
                                  for one in pkgutil.iter_modules(iqa_losses.__path__))]


@pytest.mark.parametrize('module', MODULES)
def test_examples_in_the_docstrings(module):
    result = doctest.testmod(module, extraglobs={'torch': torch})
    assert result.attempted
    assert result.failed == 0


@pytest.mark.parametrize(('name', 'function'), [
    (name, function) for module in MODULES for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith('_')])
def test_each_function_describes_its_parameters_and_shows_a_tensor_that_it_computes(name, function):
    documented, signature = inspect.getdoc(function), inspect.signature(function)
    assert not set(signature.parameters) - set(described(documented))
    assert '>>>' in documented or signature.return_annotation is not torch.Tensor


# Alone in half precision

def of_all(row):
    """A loss as a function of predictions and of all else that it needs, which may be the same numbers."""
    def computed(x, y):
        shares = y.float() * torch.tensor([.01, -.01]) + torch.tensor([0, 1])
        values = {'logits': x * x.new_tensor([1, -1]), 'ratings': shares}
        return row.build(**{need: values.get(need, x if need == 'y_pred' else y) for need in row.needs()})
    return computed


FUNCTIONS = {**{name: of_all(row) for name, row in LOSSES.items()}, 'bhat': lambda x, y: IQAloss.bhat(x),
             **{name: lambda x, y, name=name: getattr(IQAloss, name)(x).square().mean() for name in (
                 'normalise_by_norm', 'normalise_by_range', 'centre_by_range', 'scale_by_norm', 'standardise')}}


@pytest.mark.parametrize('name', FUNCTIONS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('spread', [0, 1e-3, 1, 100])
def test_a_loss_called_alone_computes_in_float32(name, dtype, spread):
    """In float16, eps is 0 and 1000^2 is infinite: equal predictions gave NaN, large ones infinity."""
    generator = torch.Generator().manual_seed(0)
    x = (spread * torch.randn(600, 1, generator=generator) + 3).to(dtype)
    y = (100 * torch.rand(600, 1, generator=generator)).to(dtype)
    expected = FUNCTIONS[name](x.float(), y.float())
    x.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        value = FUNCTIONS[name](x, y)
    assert value.dtype == torch.float32
    assert_close(value, expected)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all() or spread == 0  # the gradient of equal predictions is as large as 1 / eps


# Sums

@given(st.dictionaries(st.sampled_from(['mse', 'mae', 'plcc', 'huber', 'norm-in-norm', 'scaling']),
                       st.floats(1e-3, 1e3), min_size=1, max_size=4))
def test_a_sum_is_the_weighted_sum_of_its_losses(weights):
    name = '+'.join(f'{name}:{weight!r}' for name, weight in weights.items())
    assert terms_of(loss_type(name)) == weights
    options = {'p': 2, 'q': 1, 'huber_delta': 3., 'alpha': (1, .5)}
    heads, (_, y) = [columns([(i * j % 7, j) for j in range(5)], torch.float32)[0] for i in (1, 2)], columns(
        [(0, j) for j in range(5)], torch.float32)
    loss = IQALoss(name, beta=(.5, 2), **options)
    alone = {one: IQALoss(one, beta=(.5, 2), **options)(heads, (y, y)) for one in weights}
    assert_close(loss(heads, (y, y)), sum(weight * alone[one] for one, weight in weights.items()), rtol=1e-5, atol=0)
    if len(weights) > 1:
        assert list(loss.parts) == list(weights)
        for one, value in loss.parts.items():
            assert_close(value, alone[one].detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(('text', 'message'), [
    ('mse+plc', "unknown loss 'plc' (did you mean plcc?)"), ('mse+', "unknown loss ''"), ('', "unknown loss ''"),
    ('mse+plcc:0', "loss 'plcc:0': the weight '0' is not a finite number above 0"), ('mse+plcc:-1', "the weight '-1'"),
    ('mse+plcc:nan', "the weight 'nan'"), ('mse:inf', "the weight 'inf'"), ('mse+plcc:', "the weight ''"),
    ('mse:.5:.5', "the weight '.5:.5'"), ('mse+MSE', 'mse occurs twice'),
    ('Lp+norm-in-norm', 'norm-in-norm occurs twice')])
def test_bad_sums_are_one_line(text, message, fails):
    assert message in fails(TRAIN.parse, '--loss_type', text)
    with pytest.raises(UserError, match='loss'):
        IQALoss(text)


@pytest.mark.parametrize(('text', 'one'), [
    ('MSE+plcc:.50', 'mse+plcc:0.5'), ('Lp', 'norm-in-norm'), ('mse:1', 'mse'), ('mse+plcc:0.1234567', None)])
def test_a_sum_has_one_spelling(text, one):
    assert TRAIN.parse(['--loss_type', text]).loss_type == (one or text)


def test_the_monotonicity_is_a_loss_of_the_sum():
    (x, y), gamma = columns([(1, 2), (0, 3), (4, 1)], torch.float32), .3
    by_flag = IQALoss('mae', beta=(1,), monotonicity_regularization=True, gamma=gamma)([x], (y, y))
    assert_close(by_flag, IQALoss(f'mae+monotonicity:{gamma}', beta=(1,))([x], (y, y)))


def test_options_of_no_loss_are_refused_and_those_of_others_have_no_effect():
    with pytest.raises(ValueError, match='no loss takes an option r; options of losses: alpha, p'):
        IQALoss('mse', r=1)
    x, y = columns([(1, 2), (0, 3), (4, 1)], torch.float32)
    assert torch.equal(IQALoss('mse', beta=(1,), p=3)([x], (y, y)), IQAloss.mse(x, y))


def test_the_log_shows_each_loss_of_a_sum(tiny):
    words = [*tiny, *SMALL, *MINI, '-e', '1', '-bs', '5', '--device', 'cpu', '-lt', 'mse+huber:.25+plcc:2',
             '--huber_delta', '3', '--beta', '.1', '0', '1', '--logger', 'csv']
    main.main(words)
    (folder,) = Path('runs').iterdir()
    curves = {tag: np.array(points)[:, 2] for tag, points in read_scalars(folder).items() if 'train/loss' in tag}
    assert set(curves) == {'train/loss', 'train/loss/mse', 'train/loss/huber', 'train/loss/plcc'}
    total = curves['train/loss/mse'] + .25 * curves['train/loss/huber'] + 2 * curves['train/loss/plcc']
    np.testing.assert_allclose(curves['train/loss'], total, rtol=1e-5)
    assert not math.isnan(total.sum())
