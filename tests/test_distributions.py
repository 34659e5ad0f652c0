"""Heads that predict distributions: their moments, levels and losses, and uncertainties from training to report."""
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from PIL import Image
from scipy import stats
from scipy.special import softmax
from torch.testing import assert_close

import main
import test_dataset
import test_demo
from iqa_data.crops import Crops
from iqa_data.info import read_info, write_info
from iqa_losses import distribution as losses
from iqa_networks import HEADS
from iqa_networks.distribution import Gaussian, Histogram
from iqa_networks.pretrained import load_pretrained
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.reliability import NOMINAL, coverage, reliability
from IQAloss import IQALoss
from IQAmodel import create_model, load

N, K = 6, 5


def histograms(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of a head and shares of ratings, (N, K) float64."""
    rng = np.random.RandomState(seed)
    counts = rng.randint(0, 9, (N, K)) + 1.
    return torch.tensor(rng.randn(N, K), requires_grad=True), torch.tensor(counts / counts.sum(1, keepdims=True))


# Losses

def emd_oracle(p, q, r):
    if r == 1:
        return np.mean([stats.wasserstein_distance(range(K), range(K), a, b) / K for a, b in zip(p, q, strict=True)])
    return np.mean(np.mean(np.abs(p.cumsum(1) - q.cumsum(1)) ** r, 1) ** (1 / r))


def questions(p, q):
    total = [-(q[i, k + 1:].sum() * math.log(p[i, k + 1:].sum()) + q[i, :k + 1].sum() * math.log(p[i, :k + 1].sum()))
             for i in range(N) for k in range(K - 1)]
    return np.mean(total)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(('loss', 'oracle'), [
    (losses.emd, lambda p, q: emd_oracle(p, q, 2)), (losses.coral, questions),
    (lambda logits, ratings: losses.emd(logits, ratings, 1.), lambda p, q: emd_oracle(p, q, 1)),
    (losses.soft_label, lambda p, q: stats.entropy(q, p, axis=1).mean())],
    ids=['emd', 'coral', 'emd of 1', 'soft-label'])
def test_losses_of_histograms(loss, oracle, seed):
    logits, ratings = histograms(seed)
    expected = float(oracle(softmax(logits.detach().numpy(), axis=1), ratings.numpy()))
    assert loss(logits, ratings).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, ratings), (logits,))
    exact = ratings.log().requires_grad_()
    loss(exact, ratings).backward()
    assert torch.isfinite(exact.grad).all()  # where a root has a pole
    with pytest.raises(ValueError, match=r'logits \(6, 5\) and ratings \(6, 4\): expected'):
        loss(logits, ratings[:, :4])


def test_nll_is_scipys_less_its_constant():
    x, t, v = torch.randn(3, N, 1, dtype=torch.float64)
    expected = -stats.norm.logpdf(t.numpy(), x.numpy(), np.exp(v.numpy() / 2)).mean() - math.log(2 * math.pi) / 2
    assert losses.nll(x, t, v).item() == pytest.approx(float(expected))


# Heads

@given(st.integers(0, 99))
def test_moments(seed):
    logits, _ = histograms(seed)
    head = Histogram(K)
    head.values.copy_(torch.tensor([0., 1, 3, 7, 8]))
    for raw, p in zip(logits, softmax(logits.detach().numpy(), axis=1), strict=True):
        law = stats.rv_discrete(values=([0, 1, 3, 7, 8], p))
        assert head.mean(raw.detach()).item() == pytest.approx(law.mean(), rel=1e-4)
        assert head.deviation(raw.detach()).item() == pytest.approx(law.std(), rel=1e-4)
    assert Gaussian().deviation(torch.tensor([[3., 2 * math.log(7)]])).item() == pytest.approx(7)


@given(st.floats(-20, 20).filter(lambda slope: abs(slope) > .1), st.floats(-50, 50))
def test_levels_of_ratings_are_worth_what_the_mos_says(slope, shift):
    shares = histograms()[1].float()
    mean = shares @ torch.arange(1., K + 1)[:, None]
    head = Histogram(K)
    assert torch.equal(head.fit(slope * mean + shift, mean, shares), shares)
    assert_close(shares @ head.values[:, None], slope * mean + shift, rtol=1e-3, atol=1e-2)


def test_shares_of_a_normal_distribution_have_its_mass_between_the_levels():
    mos, std = torch.tensor([[0.], [33.], [100.]]), torch.tensor([[5.], [20.], [0.]])
    head = Histogram(K)
    shares = head.fit(mos, std, None)
    assert head.values.tolist() == [0, 25, 50, 75, 100]
    edges = [-np.inf, 12.5, 37.5, 62.5, 87.5, np.inf]
    for i in range(2):
        assert_close(shares[i].double(), torch.tensor(np.diff(stats.norm.cdf(edges, mos[i].item(), std[i].item()))),
                     atol=1e-6, rtol=0)
    assert shares[2].tolist() == [0, 0, 0, 0, 1]


NETWORKS = [('mini', 48, {'use_bn_end': True}), ('cnniqa', 48, {}), ('maniqa_tiny', 128, {}),
            ('asna_bn', 32, {'img_size': 32}), ('hyperiqa', 224, {})]


@pytest.mark.parametrize('head', [name for name in HEADS if name != 'score'])
@pytest.mark.parametrize(('name', 'side', 'options'), NETWORKS, ids=[network[0] for network in NETWORKS])
def test_every_network_predicts_distributions(name, side, options, head):
    network = create_model(name, head=head, **options).eval()
    images = [torch.rand(2, 3, side, side) for _ in range(network.inputs)]
    with torch.no_grad():
        heads, measured = network(*images), network.measure(*images)
    assert {tuple(output.shape) for output in heads} == {(2, network.distribution.outputs)}
    assert [tuple(one.shape) for one in measured] == [(2, 1)] * (2 * len(heads))
    assert all((deviation > 0).all() for deviation in measured[len(heads):])
    if hasattr(network, 'local'):
        local = network.local(*images, 1)
        assert (local[0] if isinstance(local, tuple) else local).ndim == 3


@pytest.mark.parametrize(('name', 'options'), [('cnniqa', {}), ('resnet18', {'use_bn_end': True})])
@pytest.mark.parametrize('other', [{}, {'head': 'gaussian'}, {'head': 'histogram', 'levels': 3}])
@pytest.mark.parametrize('own', [{'head': 'gaussian'}, {'head': 'histogram', 'levels': 2}])
def test_weights_of_another_head_leave_the_last_layers_as_drawn(name, options, other, own, tmp_path):
    file = tmp_path / 'other.pth'
    torch.save(create_model(name, **options, **other).state_dict(), file)
    network = create_model(name, **options, **own)
    before, ends = {key: value.clone() for key, value in network.state_dict().items()}, tuple(network.last)
    message = load_pretrained(network, file)
    theirs = torch.load(file, weights_only=True)
    for key, value in network.state_dict().items():
        drawn = own != other and key.startswith((*ends, 'distribution'))
        assert torch.equal(value, before[key] if drawn else theirs[key]), key
    assert (f' stay as they were ({ends[0]}' in message) == (own != other)


def test_weights_of_another_network_still_do_not_fit(tmp_path):
    torch.save({**create_model('cnniqa').state_dict(), 'more': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='has besides more'):
        load_pretrained(create_model('cnniqa', head='gaussian'), tmp_path / 'other.pth')


def test_loss_of_heads_and_mirror_images():
    logits, ratings = (values.detach().float() for values in histograms())
    mirrored, mos, head = logits.flip(0), torch.rand(N, 1) * 4, Histogram(K)
    from iqa_runtime.labels import Labels
    loss = IQALoss('emd+mse:.5+consistency:2', beta=(1,), distribution=head)
    assert loss.needs == {'logits', 'ratings', 'y_pred', 'y', 'flipped'}
    value = loss([logits, mirrored], Labels(mos, mos, {'ratings': ratings}))
    scores = head.mean(logits)
    expected = (losses.emd(logits, ratings) + .5 * (scores - mos).square().mean()
                + 2 * (scores - head.mean(mirrored)).abs().mean())
    assert_close(value, expected)
    with pytest.raises(ValueError, match='beta has 1 weights, the network 2 heads'):
        loss([logits] * 4, Labels(mos, mos, {'ratings': ratings}))


# Reliability

def test_coverage_of_normal_errors_is_nominal():
    rng = np.random.default_rng(0)
    sq, deviation = rng.uniform(0, 100, 20000), rng.uniform(1, 9, 20000)
    pq = sq + deviation * rng.normal(size=20000)
    np.testing.assert_allclose(coverage(pq, sq, deviation), NOMINAL, atol=.02)
    found = reliability(pq, sq, deviation)
    assert found['sharpness'] == pytest.approx(5, abs=.1)
    assert found['coverage_error'] < .01
    assert reliability(pq, sq, 0 * deviation)['coverage_error'] == pytest.approx(.5)


# Commands

@pytest.fixture
def ratings(tiny) -> list[str]:
    """The tiny set with votes and counts of ratings; the options of main.py that train on it."""
    old = read_info('tiny/info.mat')
    counts = np.random.RandomState(0).multinomial(30, [.2] * 5, 24) + np.eye(5)[(old.mos // 20).astype(int)] * 20
    write_info('info.csv', old.names, old.mos, old.std, range(1, 25), np.empty((24, 0), int), votes=counts.sum(1),
               ratings=counts)
    return ['--dataset', 'info.csv', '--im_dir', 'tiny/images', *SMALL, *MINI, '-e', '1', '-bs', '8']


@pytest.mark.parametrize('words', [
    ['--head', 'histogram', '-lt', 'emd+plcc'], ['--head', 'gaussian', '-lt', 'nll+consistency', '--target', 'zscore']],
    ids=['histogram', 'gaussian'])
def test_uncertainty_from_training_to_report(ratings, words, capsys):
    performance = main.main([*ratings, *words])
    file = next(Path('checkpoints').glob('*.pth'))
    table = pd.read_csv(next(Path('results').glob('*.csv')))
    np.testing.assert_allclose(table.uncertainty, performance.uncertainty)
    assert (table.uncertainty > 0).all()
    assert 'Uncertainty: the mean standard deviation of the predictions' in file.with_suffix('.md').read_text()
    tested = test_dataset.main(['-modelfile', str(file), '--im_dir', 'tiny/images', '--no-pbar', '--report', 'r.html'])
    np.testing.assert_allclose(tested.uncertainty, performance.uncertainty, rtol=1e-4)
    assert 'sharpness' in capsys.readouterr().out
    metrics = json.loads(next(Path('results').glob('*.json')).read_text())['metrics']
    assert metrics['sharpness'] == pytest.approx(tested.uncertainty.mean())
    with Image.open(next(Path('results').glob('*-reliability.png'))) as plot:
        assert min(plot.size) > 200
    assert 'data-uncertainty="' in Path('r.html').read_text()
    test_demo.main(['-modelfile', str(file), '--img', 'tiny/images', '--csv', 'out.csv', '--json', 'out.json',
                    '--no-pbar'])
    scores = pd.read_csv('out.csv').set_index('name')
    row = scores.loc[f'tiny/images/{table.name[0]}']
    assert row.uncertainty == pytest.approx(table.uncertainty[0], rel=1e-4)
    assert row.score == pytest.approx(table.pq[0], rel=1e-4)
    lines = [json.loads(line) for line in Path('out.json').read_text().splitlines()]
    assert lines[0]['uncertainty'] == pytest.approx(scores.uncertainty.iloc[0], rel=1e-4)
    several = test_dataset.main(['-modelfile', str(file), '--im_dir', 'tiny/images', '--no-pbar', '--test_crops', '4',
                                 '--crop_size_h', '40', '--crop_size_w', '40'])
    assert (several.uncertainty > 0).all()
    assert (several.spread > 0).all()
    if 'histogram' in words:
        ratings_levels = load_checkpoint(file)['model']['distribution.values']
        assert ratings_levels.diff().min() > 0


def test_the_score_is_differentiable_and_crops_average_variances(ratings):
    main.main([*ratings, '--head', 'gaussian', '-lt', 'nll', '--target', 'zscore'])
    scorer = load(next(Path('checkpoints').glob('*.pth')))
    image = torch.rand(1, 3, 48, 64, requires_grad=True)
    scorer.score(image, as_loss=True).sum().backward()
    assert image.grad.abs().max() > 0
    pixels = (torch.rand(2, 3, 48, 64) * 255).byte()
    alone = scorer.measure_crops(pixels)[3]
    scorer.crops = Crops(1, (48, 64))
    np.testing.assert_allclose(scorer.measure_crops(pixels)[3], alone, rtol=1e-5)


@pytest.mark.parametrize(('words', 'message'), [
    (['-lt', 'emd'], '--loss_type emd needs --head histogram'), (['-lt', 'mse+nll'], '--loss_type nll needs --head'),
    (['--head', 'histogram'], '--head histogram needs a loss that trains its distribution, alone or in a sum: --l'),
    (['--head', 'gaussian', '-lt', 'mse'], '--loss_type nll'),
    (['--head', 'histogram', '-lt', 'emd', '--levels', '7'], '--levels 7: info has ratings at 5 levels'),
    (['--head', 'histogram', '-lt', 'emd', '--levels', '1'], 'expected at least 2'),
    (['--head', 'gaussian', '-lt', 'nll', '--levels', '7'], '--levels: --head gaussian takes no such option'),
    (['-lt', 'mse+consistency', '--features', 'cached', '--freeze', 'features*'], 'needs mirror images in each step'),
    (['--head', 'gaussian', '-lt', 'nll', '-valc', 'loss'], '--val_criterion loss: nll is not computed in validation')])
def test_mistakes_are_one_line(ratings, fails, words, message):
    assert message in fails(main.main, *ratings, *words)


def test_histograms_of_std_and_a_set_without(tiny, fails):
    words = [*tiny, *SMALL, *MINI, '-e', '1', '--head', 'histogram', '-lt', 'soft-label+coral']
    assert main.main([*words, '--levels', '9']).uncertainty.min() > 0
    old = read_info('tiny/info.mat')
    write_info('info.csv', old.names, old.mos, np.full(24, np.nan), range(1, 25), np.empty((24, 0), int))
    message = fails(main.main, '--dataset', 'info.csv', '--im_dir', 'tiny/images', *words[6:])
    assert '--head histogram needs counts of the ratings (columns c1 ... cK) or their standard' in message


def test_cached_features_give_the_uncertainties_of_images(ratings):
    words = [*ratings, '--head', 'histogram', '-lt', 'emd', '--freeze', 'features*', '--cache', 'ram']
    of_images, of_features = main.main(words), main.main([*words, '--features', 'cached'])
    np.testing.assert_allclose(of_features.uncertainty, of_images.uncertainty, rtol=1e-3)
