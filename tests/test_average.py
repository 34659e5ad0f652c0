"""Several checkpoints and views as one score: means in MOS units, bounded memory, the challenge's table."""
import csv
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import TinyPairs, make_pairs, random_pair

import test_dataset as on_dataset
import test_demo
from iqa_data.transforms import Preprocess
from iqa_runtime.checkpoint import save_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring.average import Average, views_of
from iqa_scoring.scorer import Scorer
from iqa_scoring.tables import ntire
from iqa_scoring.views import VIEWS, variants
from IQAmodel import NETWORKS, Entry, create_model


def network(seed: int) -> TinyPairs:
    torch.manual_seed(seed)
    return TinyPairs()


def scorer(seed: int, k: float, b: float, **more) -> Scorer:
    return Scorer(network(seed), {'k': [k], 'b': [b]}, **more)


@pytest.fixture
def pair() -> tuple[torch.Tensor, ...]:
    return tuple((image * 255).byte() for image in random_pair())


def test_the_mean_is_taken_in_mos_units_over_networks_and_views(pair):
    scorers = [scorer(0, 10, 50), scorer(1, 1000, -3)]
    scores, raw = Average(scorers, 'asna').measure(*pair)
    for n in range(2):
        reference, distorted = (variants(image[n].permute(1, 2, 0).numpy()) for image in pair)
        expected = [one.score(d, r) for one in scorers for r, d in zip(reference, distorted, strict=True)]
        assert len(expected) == 44
        assert scores[n] == pytest.approx(np.mean(expected), abs=1e-3)
    assert raw.shape == (2, 1)


def test_without_views_one_network_is_itself(pair):
    one = scorer(0, 10, 50)
    np.testing.assert_allclose(Average([one]).measure(*pair)[0], one.measure(*pair)[0])
    images = [image[0].permute(1, 2, 0).numpy() for image in pair]
    assert Average([one, one]).score(images[1], images[0]) == pytest.approx(one.score(images[1], images[0]))


def test_gradients_of_several_networks():
    reference, distorted = random_pair()
    distorted.requires_grad_()
    average = Average([scorer(0, 10, 50), scorer(1, 7, 3)])
    average.score(distorted, reference, as_loss=True).sum().backward()
    assert distorted.grad.abs().sum() > 0
    with pytest.raises(TypeError, match='views are of 8-bit images'):
        Average([scorer(0, 1, 0)], 'asna').score(distorted, reference)


def test_networks_that_do_not_go_together():
    with pytest.raises(UserError, match='b.pth takes other images than a.pth'):
        Average([scorer(0, 1, 0), scorer(0, 1, 0, preprocess=Preprocess((8, 8)))], names=['a.pth', 'b.pth'])
    mos = {'values': torch.zeros(1), 'min': 0., 'max': 1.}
    ways = [Scorer(network(0), {'k': [1.], 'b': [0.], 'mos': {**mos, 'higher_is_better': better}})
            for better in (True, False)]
    with pytest.raises(UserError, match='higher is better for some'):
        Average(ways)


def test_one_view_is_in_memory_at_a_time():
    pixels = torch.zeros(64, 3, 96, 96, dtype=torch.uint8)
    tracemalloc.start()
    for _ in views_of([pixels, pixels], VIEWS['asna']):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2 * pixels.nbytes  # of 22


@pytest.mark.slow
def test_the_mean_of_two_networks_and_22_views_is_the_recorded(shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / 'golden/systems'))
    from fill_systems import distorted, fill, picture
    recorded = np.load(shared / 'golden/systems/asna_tta.npz', allow_pickle=False)
    reference, seed = picture(int(recorded['tta/seed'][0]), 288, 288)[..., ::-1], int(recorded['tta/seed'][1])
    images = [image[..., ::-1].copy() for image in (distorted(seed, reference), reference)]  # recorded blue first
    scorers = [Scorer(fill(create_model(one['name']), one['salt'], one['gain']), {'k': [121.35], 'b': [1449.05]})
               for one in json.loads(str(recorded['tta/nets']))]
    assert Average(scorers, 'asna').score(*images) == pytest.approx(float(recorded['tta/score']), abs=1e-3)


# Commands

@pytest.fixture
def pairs(tmp_path, monkeypatch, one_thread) -> list[str]:
    """A data set of pairs in a fresh working directory, checkpoints a.pth and b.pth; options of both commands."""
    make_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NETWORKS, 'tiny_pairs', Entry(TinyPairs, 'tests'))
    for i, name in enumerate(('a.pth', 'b.pth')):
        save_checkpoint(name, {
            'format': 2, 'model': network(i).state_dict(), 'k': [-10. * (i + 1)], 'b': [90.], 'dataset': 'pairs',
            'network': {'name': 'tiny_pairs', 'options': {}},
            'input': {'preprocessing': {'resize': None, 'first_resize': None}, 'normalise': 'none'}})
    return ['--device', 'cpu', '--no-pbar', '--trained_model_file']


def scores_in(path: str | Path, column: str = 'score') -> np.ndarray:
    with open(path, newline='') as file:
        return np.array([float(row[column]) for row in csv.DictReader(file)])


def test_the_commands_average_checkpoints(pairs, capsys):
    images = '--img', 'images', '--ref', 'references', *pairs
    for name, files in (('a', ['a.pth']), ('b', ['b.pth']), ('both', ['a.pth', 'b.pth'])):
        test_demo.main([*images, *files, '--csv', f'{name}.csv'])
    both = scores_in('both.csv')
    np.testing.assert_allclose(both, (scores_in('a.csv') + scores_in('b.csv')) / 2, rtol=1e-5)
    performance = on_dataset.main([*pairs, 'a.pth', 'b.pth', '--dataset', 'pairs.csv', '--im_dir', 'images',
                                   '--ref_dir', 'references', '--part', 'all', '--report', 'r.html'])
    np.testing.assert_allclose(performance.pq, both, rtol=1e-5)
    assert f'|SROCC| + |PLCC| {abs(performance.srocc) + abs(performance.plcc):.4f}' in capsys.readouterr().out
    assert Path('r.html').read_text().count('class="picture"') == 3 * 24
    (table,) = Path('results').glob('a+b-on-*.csv')
    np.testing.assert_allclose(scores_in(table, 'pq'), both, rtol=1e-5)


def test_the_commands_average_views(pairs):
    images = '--img', 'images', '--ref', 'references', '--views', 'asna', *pairs, 'a.pth'
    test_demo.main([*images, '--csv', 'views.csv'])
    assert 'a.pth (asna)' in Path('views.csv').read_text()
    performance = on_dataset.main(['--views', 'asna', *pairs, 'a.pth', '--dataset', 'pairs.csv', '--im_dir', 'images',
                                   '--ref_dir', 'references', '--part', 'all'])
    np.testing.assert_allclose(performance.pq, scores_in('views.csv'), rtol=1e-5)
    test_demo.main([*images[:-1], 'b.pth', 'a.pth', '--report', 'r.html'])


def test_mistakes_are_one_line(pairs, fails):
    images = '--img', 'images', '--ref', 'references'
    assert 'no quality maps: a mean of' in fails(test_demo.main, *images, '--map', 'm', *pairs, 'a.pth', 'b.pth')
    assert 'fits the scores of one checkpoint' in fails(test_demo.main, '--calibrate', 'pairs.csv', *pairs, 'a.pth',
                                                        'b.pth')
    assert '--columns ntire needs --csv' in fails(test_demo.main, *images, '--columns', 'ntire', *pairs, 'a.pth')
    assert "unknown views 'asn'" in fails(test_demo.main, *images, '--views', 'asn', *pairs, 'a.pth')


# The challenge's table

def test_lines_of_the_challenge(pairs):
    test_demo.main(['--img', 'images', '--ref', 'references', '--csv', 'output.txt', '--columns', 'ntire', *pairs,
                    'a.pth'])
    test_demo.main(['--img', 'images', '--ref', 'references', '--csv', 'full.csv', *pairs, 'a.pth'])
    lines = [line.split(',') for line in Path('output.txt').read_text().splitlines()]
    assert [name for name, _ in lines] == [f'c{i}_{k}.png' for i in range(6) for k in range(4)]
    assert [float(score) for _, score in lines] == scores_in('full.csv').tolist()


def test_the_order_is_that_recorded(shared):
    recorded = np.load(shared / 'golden/systems/asna_tta.npz', allow_pickle=False)
    given, ordered = (json.loads(str(recorded[f'ntire/{which}'])) for which in ('given', 'sorted'))
    lines = ntire([{'name': f'folder/{name}', 'score': i} for i, name in enumerate(given)])
    assert lines == [f'{name},{given.index(name)}' for name in ordered]
