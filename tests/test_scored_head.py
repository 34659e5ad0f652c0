"""The head that is scored is one that was trained: in results, checkpoint, report, calibration, export and maps."""
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from mini import MINI

import IQAmodel
import main
import test_dataset
import test_demo
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.checkpoint import load_checkpoint
from iqa_scoring.export import Exported
from iqa_scoring.maps import quality_maps
from IQAloss import IQALoss

HEADS = ('level 6', 'level 7', 'both levels')


@pytest.mark.parametrize(('beta', 'head'), [((.1, .1, 1), 2), ((0, 0, 3), 2), ((5, 0, .1), 2), ((1, 0, 0), 0),
                                            ((0, 1, 0), 1), ((.1, .2, 0), 1), ((2,), 0)])
def test_the_final_head_if_it_is_trained_else_that_of_the_largest_weight(beta, head):
    assert IQALoss(beta=beta).scored_head == head


@pytest.mark.parametrize(('beta', 'head'), [('1 0 0', 0), ('0 1 0', 1)])
@pytest.mark.usefixtures('one_thread')
def test_everywhere(beta, head, tiny, capsys):
    main.main([*tiny, *SMALL, *MINI, '-e', '2', '--beta', *beta.split(), '-modelfile', 'c.pth'])
    out = capsys.readouterr().out
    assert f"The head that is scored is '{HEADS[head]}', since --beta leaves 'both levels' untrained" in out
    rows = [line.split('  ')[0] for line in out.splitlines() if line.startswith(HEADS)]
    assert rows == [HEADS[head], *(name for i, name in enumerate(HEADS) if i != head)]

    checkpoint, table = load_checkpoint('c.pth'), pd.read_csv(next(Path('results').glob('*.csv')))
    assert checkpoint['head'] == head
    scorer = IQAmodel.load('c.pth')
    paths = [f'tiny/images/{name}' for name in table['name']]
    pixels = torch.stack([torch.from_numpy(scorer.preprocess.array(path).copy()) for path in paths])
    with torch.no_grad():
        raw = scorer.network(NORMALISATIONS['imagenet'](pixels.permute(0, 3, 1, 2)))[head][:, 0].numpy()
    expected = checkpoint['k'][0] * raw + checkpoint['b'][0]
    np.testing.assert_allclose(table['pq_before'], raw, rtol=1e-4)
    np.testing.assert_allclose(table['pq'], expected, rtol=1e-4)
    np.testing.assert_allclose(scorer.score(paths), expected, rtol=1e-4)
    np.testing.assert_allclose(Exported(scorer)(torch.from_numpy(
        np.stack([np.asarray(scorer.preprocess(path)) for path in paths]))), expected, rtol=1e-4)

    words = ['-modelfile', 'c.pth', '--im_dir', 'tiny/images', '--device', 'cpu', '--no-pbar']
    tested = test_dataset.main([*words, '--report', 'r.html'])
    np.testing.assert_allclose(tested.pq, expected, rtol=1e-4)
    reported = [float(score) for score in re.findall(r'<figure[^>]*?data-score="([^"]*)"', Path('r.html').read_text())]
    assert reported == pytest.approx(sorted(expected, reverse=True), rel=1e-4)
    assert test_demo.main(['--img', paths[0], *words]) == pytest.approx(expected[0], rel=1e-4)

    network, (x,) = scorer.network, scorer.network.prepare(pixels.permute(0, 3, 1, 2))
    with torch.no_grad():
        local = network.local(x, 1, head).numpy()
    np.testing.assert_allclose(quality_maps(scorer, pixels.permute(0, 3, 1, 2), 1), scorer.mapping(local), atol=.01)

    rated = sorted(str(path) for path in Path('tiny/images').glob('*.png'))
    pd.DataFrame({'image': rated, 'mos': 7 + 2 * scorer.score(rated)}).to_csv('ratings.csv', index=False)
    test_demo.main(['--calibrate', 'ratings.csv', '--out', 'new.pth', *words])
    assert load_checkpoint('new.pth')['head'] == head
    np.testing.assert_allclose(IQAmodel.load('new.pth').score(paths), 7 + 2 * expected, rtol=1e-3)
