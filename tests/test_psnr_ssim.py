"""PSNR and SSIM of pairs, as tables that a study takes as predictions."""
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scored import photo

from iqa_studies import psnr_ssim


@pytest.fixture
def pairs(tmp_path):
    """Write three noisy copies of a photograph, one of them without noise, and their table; return its path."""
    rng, reference = np.random.default_rng(0), photo(0, (60, 80))
    rows = ['image,mos,reference']
    for i, noise in enumerate((0, 8, 30)):
        image = (reference + rng.normal(0, noise, reference.shape)).clip(0, 255).round().astype(np.uint8)
        Image.fromarray(image).save(tmp_path / f'{i}.png')
        rows.append(f'{i}.png,{80 - noise},whole.png')
    Image.fromarray(reference).save(tmp_path / 'whole.png')
    (tmp_path / 'pairs.csv').write_text('\n'.join(rows))
    return tmp_path / 'pairs.csv'


def luminance(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert('L'), float)


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM by its formula: gaussian window of sigma 1.5, K1 = .01, K2 = .03; the border of 5 pixels is left out."""
    def mean(z):
        return gaussian_filter(z, 1.5, truncate=3.5)
    c1, c2 = (.01 * 255) ** 2, (.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(found[5:-5, 5:-5].mean())


def test_both_by_their_formulas(pairs, tmp_path, capsys):
    files = psnr_ssim.main(['--dataset', str(pairs), '--out', str(tmp_path / 'out')])
    assert '3 pairs' in capsys.readouterr().out
    found = {metric: pd.read_csv(file) for metric, file in files.items()}
    whole = luminance(tmp_path / 'whole.png')
    assert all(list(table.image) == ['0.png', '1.png', '2.png'] for table in found.values())
    assert (found['PSNR'].score[0], found['SSIM'].score[0]) == (psnr_ssim.MOST, 1)
    for i in (1, 2):
        image = luminance(tmp_path / f'{i}.png')
        wanted = 10 * math.log10(255 ** 2 / np.mean((image - whole) ** 2))
        assert found['PSNR'].score[i] == pytest.approx(wanted, rel=1e-4)
        assert found['SSIM'].score[i] == pytest.approx(ssim(whole, image), abs=1e-4)


def test_folders_of_another_system_and_names_like_formulas(pairs, tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'whole.png').rename(tmp_path / 'sub' / 'whole.png')
    (tmp_path / '1.png').rename(tmp_path / '=1.png')
    pairs.write_text('image,mos,reference\n0.png,1,sub\\whole.png\n./=1.png,2,sub/whole.png\n')
    files = psnr_ssim.main(['--dataset', str(pairs), '--out', str(tmp_path / 'out')])
    assert list(pd.read_csv(files['SSIM']).image) == ['0.png', './=1.png']


@pytest.mark.parametrize(('change', 'message'), [
    (lambda folder: Image.new('RGB', (9, 9)).save(folder / '1.png'), '1.png: 9x9 pixels, and its reference '),
    (lambda folder: [Image.new('RGB', (30, 10)).save(folder / name) for name in ('0.png', 'whole.png')],
     'of at least 11x11'),
    (lambda folder: (folder / 'whole.png').unlink(), 'whole.png'),
    (lambda folder: (folder / 'pairs.csv').write_text('image,mos\n0.png,1\n1.png,2\n'), 'has no column reference'),
    (lambda folder: (folder / 'pairs.csv').write_text('image,mos,reference\n0.png,1,whole.png\n1.png,2,\n'),
     "'', the reference of 1.png, is no file")])
def test_what_cannot_be_compared(pairs, tmp_path, capsys, change, message):
    change(tmp_path)
    with pytest.raises(SystemExit) as end:
        psnr_ssim.main(['--dataset', str(pairs), '--out', str(tmp_path / 'out')])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / 'out').glob('*.csv'))
