"""The commands on pairs: test_demo.py with --ref and tables, its picture and report, and what it refuses."""
import codecs
import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import TinyPairs, make_pairs
from PIL import Image

import test_demo
from iqa_runtime.checkpoint import save_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring import export, predict_all
from iqa_scoring.references import find_items, match, table_of_pairs
from IQAmodel import NETWORKS, Entry, load


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


# Which reference

def test_folders_match_by_name_or_by_content(tmp_path):
    touched(tmp_path, *(f'refs/{name}' for name in ('A0001.bmp', 'A0001_02.bmp', 'I25.BMP', 'photo.jpg', 'same.png')))
    paths = ['in/A0001_02_14.bmp', 'in/A0001_03_00.bmp', 'in/i25_01_1.bmp', 'in/photo.png', 'in/same.png']
    pairs = match(paths, str(tmp_path / 'refs'))
    assert [Path(reference).name for reference, _ in pairs] == ['A0001_02.bmp', 'A0001.bmp', 'I25.BMP', 'photo.jpg',
                                                                'same.png']
    assert [image for _, image in pairs] == paths


def test_a_folder_of_references_is_not_that_of_the_images(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for name in ('a.png', 'b.png'):
        (images / name).touch()
    (tmp_path / 'link').symlink_to(images)
    paths = [str(images / name) for name in ('a.png', 'b.png')]
    for folder in (images, tmp_path / 'link', tmp_path / 'link' / '..' / 'images'):
        with pytest.raises(UserError, match='the reference of each image is the image itself'):
            match(paths, str(folder))


def test_one_file_is_the_reference_of_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('r.png').touch()
    assert match(['a.png', 'b.png'], './r.png') == [('r.png', 'a.png'), ('r.png', 'b.png')]


def test_references_that_are_not_there_or_not_clear(tmp_path):
    touched(tmp_path, 'refs/a.png', 'refs/a.bmp')
    with pytest.raises(UserError, match='no reference for 1 of 2 images, as b.png'):
        match(['a.png', 'b.png'], str(tmp_path / 'refs'))
    with pytest.raises(UserError, match='the reference of a_1.png may be .*a.bmp or .*a.png'):
        match(['a_1.png'], str(tmp_path / 'refs'))


def test_a_table_of_pairs():
    lines = [codecs.BOM_UTF8 + b'image,reference\n', b'd 1.png, "r,1.png"\n', b'\n', b'./d 1.png,"r,1.png"\n',
             b'd2.png,r.png\n']
    assert table_of_pairs(lines) == ([('r,1.png', 'd 1.png'), ('r.png', 'd2.png')], 1)
    for rows, error in (([b'a,b,c\n'], 'row 1 has 3 cells'), ([b'a,b\n', b'a,c\n'], 'row 2: a again'),
                        ([], 'no pair on stdin'), ([b'a,\n'], 'row 1')):
        with pytest.raises(UserError, match=error):
            table_of_pairs(rows)


def test_a_no_reference_network_refuses_references():
    with pytest.raises(UserError, match='--ref r.png: this network scores images without a reference'):
        find_items(['a.png'], 'r.png', 1)
    assert find_items(['a.png'], None, 1) == (['a.png'], 0)


# The command

@pytest.fixture
def pairs(tmp_path, monkeypatch, one_thread) -> list[str]:
    """Images and references in a fresh working directory, and a trained network; the options that name it."""
    make_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NETWORKS, 'tiny_pairs', Entry(TinyPairs, 'tests'))
    network = TinyPairs()
    with torch.no_grad():
        network.linear.weight.fill_(-1.)
    save_checkpoint('tiny.pth', {
        'format': 2, 'model': network.state_dict(), 'k': [100.], 'b': [90.],
        'network': {'name': 'tiny_pairs', 'options': {}},
        'input': {'preprocessing': {'resize': None, 'first_resize': None}, 'normalise': 'none'},
        'mos': {'values': torch.linspace(10, 90, 9), 'min': 10., 'max': 90., 'higher_is_better': True}})
    return ['--trained_model_file', 'tiny.pth', '--device', 'cpu', '--no-pbar']


def scores_in(path: str) -> dict[str, float]:
    with open(path, newline='') as file:
        return {row['name']: float(row['score']) for row in csv.DictReader(file)}


def test_one_pair_is_scored_and_drawn(pairs, capsys):
    score = test_demo.main(['--img', 'images/c1_2.png', '--ref', 'references/c1.png', '--picture', 'out/p.png', *pairs])
    assert score == load('tiny.pth').score('images/c1_2.png', 'references/c1.png')
    assert f'image quality score {score:.4g}' in capsys.readouterr().out
    picture = np.asarray(Image.open('out/p.png'))
    assert picture.shape[1] > 1.5 * picture.shape[0]  # two panels
    assert picture.std() > 10


def test_a_folder_a_table_and_python_agree(pairs, monkeypatch, capsys):
    test_demo.main(['--img', 'images', '--ref', 'references', '--csv', 'a.csv', *pairs])
    rows = ''.join(f'images/{path.name},references/{path.name[:2]}.png\n' for path in sorted(Path('images').iterdir()))
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(f'image,reference\n{rows}'.encode())))
    test_demo.main(['--img', '-', '--csv', 'b.csv', *pairs])
    assert scores_in('a.csv') == scores_in('b.csv')
    assert len(scores_in('a.csv')) == 24
    scorer = load('tiny.pth')
    for name, score in list(scores_in('a.csv').items())[:5]:
        assert score == pytest.approx(scorer.score(name, f'references/{Path(name).name[:2]}.png'), rel=6e-6)


def test_the_report_shows_image_reference_and_difference(pairs):
    test_demo.main(['--img', 'images', '--ref', 'references', '--report', 'r.html', *pairs])
    page = Path('r.html').read_text()
    assert page.count('class="picture"') == 3 * 24
    assert 'the difference of their lightness' in page


def test_calibrated_on_pairs(pairs, capsys):
    Path('images/ratings.csv').write_text(Path('pairs.csv').read_text())
    test_demo.main(['--calibrate', 'images/ratings.csv', '--ref', 'references', '--out', 'new.pth', *pairs])
    mos = np.loadtxt('pairs.csv', delimiter=',', skiprows=1, usecols=1)
    scores = load('new.pth').score([f'images/c{i}_{k}.png' for i in range(6) for k in range(4)],
                                   [f'references/c{i}.png' for i in range(6) for _ in range(4)])
    assert np.corrcoef(scores, mos)[0, 1] > .95
    np.testing.assert_allclose(scores.mean(), mos.mean())


@pytest.mark.parametrize('output', ['--csv', '--json', '--parquet'])
def test_resume_refuses_another_reference(pairs, fails, output):
    words = [*pairs, output, 'out', '--resume']
    assert test_demo.main(['--img', 'images/c0_0.png', 'images/c0_1.png', '--ref', 'references/c0.png', *words]) == 2
    error = fails(test_demo.main, '--img', 'images', '--ref', 'references/c1.png', *words)
    assert 'images/c0_0.png was compared with references/c0.png, and now is to be with references/c1.png' in error
    assert test_demo.main(['--img', 'images', '--ref', 'references', *words]) == 22


def test_export_refuses_pairs(pairs, fails):
    words = '--torch_export', 'x.pt2', *pairs[:4]
    assert 'tiny.pth: the network compares an image with its reference' in fails(export.main, *words)


def test_networks_of_pairs_are_no_part_of_predict_all(pairs, fails):
    Path('weight').mkdir()
    Path('tiny.pth').rename('weight/tiny.pth')
    error = fails(predict_all.main, '--models', 'weight', '--img', 'images', '--device', 'cpu')
    assert 'weight/tiny.pth: it compares images with references' in error


@pytest.mark.parametrize(('words', 'error'), [
    (['--img', 'images'], 'this network compares an image with its reference: give --ref'),
    (['--img', 'images', '--ref', 'references', '--picture', 'p.png'], '--picture draws one image'),
    (['--img', 'images', '--ref', 'references', '--map', 'maps'], 'no quality maps: TinyPairs'),
    (['--img', 'images', '--ref', 'c0.png'], '--ref c0.png: no such file or folder'),
    (['--calibrate', 'pairs.csv'], 'this network compares an image with its reference'),
])
def test_mistakes_are_one_line(pairs, fails, words, error):
    assert error in fails(test_demo.main, *words, *pairs)
    assert not Path('maps').exists()
