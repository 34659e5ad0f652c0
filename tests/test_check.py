"""data/check.py: its findings in a data set, and its exit status."""
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data import check
from iqa_data.info import Info, read_info


@pytest.fixture
def look(tiny, capsys):
    """Run the check on a table of these columns, the images of the tiny set; the findings by check, and the status."""
    info = read_info('tiny/info.mat')

    def call(*words: str, **columns) -> tuple[dict[str, list[tuple[str, str]]], int]:
        frame = pd.DataFrame({'image': info.names, 'mos': info.mos})
        for name, values in columns.items():
            frame[name] = values
        frame.to_csv('set.csv', index=False)
        capsys.readouterr()
        status = check.main(['set.csv', '--im_dir', 'tiny/images', '--json', *words])
        report = json.loads(capsys.readouterr().out)
        assert report['status'] == status
        found: dict = {}
        for finding in report['findings']:
            found.setdefault(finding['check'], []).append((finding['level'], finding['text']))
        assert status == any(level == 'error' for findings in found.values() for level, _ in findings)
        return found, status
    return call


def test_a_set_in_order(look, tiny, tmp_path, capsys):
    found, status = look()
    assert status == 0
    assert found['images'] == [('ok', 'all 24 can be read')]
    assert found['sizes'] == [('ok', 'width x height: 24 of 64x48')]
    assert found['std'] == [('note', '24 images have none')]
    assert found['references'] == [('ok', 'none: for no-reference networks only')]
    elsewhere = look(reference=['c.png'] * 24)[0]['references']
    assert elsewhere == [('ok', 'none of the 1 that the info file names is a file in tiny/images: for no-reference '
                          'networks only')]
    assert found['split'][0][1].startswith('14 train, 5 val, 5 test images, hash ')
    assert 'no official split' in found['split'][1][1]
    assert check.main([*tiny[1:], '--json', 'report.json']) == 0  # demo, with another info file
    table = capsys.readouterr().out.splitlines()
    assert all(line[17:25].strip() in check.LEVELS for line in table[:-1])
    assert {line[:17].strip() for line in table[:-1]} == set(check.CHECKS)
    assert table[-1].startswith('demo: ')
    assert json.loads((tmp_path / 'report.json').read_text())['dataset'] == 'demo'


def test_images_that_are_missing_broken_or_elsewhere(look, tmp_path):
    (tmp_path / 'tiny/images/03.png').unlink()
    (tmp_path / 'tiny/images/07.png').write_text('hello')
    data = (tmp_path / 'tiny/images/09.png').read_bytes()
    (tmp_path / 'tiny/images/09.png').write_bytes(data[:200])
    found, status = look()
    assert status == 1
    (_, text), = found['images']
    assert text.startswith('3 of 24 cannot be read in tiny/images: 03.png (no such file), 07.png (')
    found, _ = look('--im_dir', 'tiny')
    assert 'is --im_dir the right folder?' in found['images'][0][1]


def test_sizes_and_modes(look, tmp_path):
    Image.open('tiny/images/00.png').resize((70, 50)).convert('L').save('tiny/images/00.png')
    found, _ = look()
    assert found['sizes'][0] == ('warning', '2 sizes (23 of 64x48, 1 of 70x50): training needs --resize or '
                                            '--augmentation crop')
    assert found['sizes'][1] == ('note', '1 of mode L: converted to RGB')
    assert look('--resize')[0]['sizes'][0][0] == 'ok'


def test_duplicates(look):
    shutil.copy('tiny/images/00.png', 'tiny/images/01.png')
    parts = ['train', 'train', 'val', 'test'] * 6
    found, status = look(part=parts)
    assert status == 0
    assert found['duplicates'] == [('warning', '1 images occur more than once, with different MOS: 00.png = 01.png'),
                                   ('warning', '1 images occur more than once: 00.png = 01.png')]
    found, status = look(part=['val', *parts[1:]])
    assert status == 1
    assert found['duplicates'][0] == ('error', '1 images occur more than once, in more than one part: 00.png = 01.png')


def test_near_duplicates(look):
    rng = np.random.RandomState(0)
    for i in range(24):
        grey = Image.fromarray(rng.randint(0, 256, (6, 8), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
        grey.save(f'tiny/images/{i:02d}.png')
    grey.save('tiny/images/x.jpg', quality=80)
    shutil.move('tiny/images/x.jpg', 'tiny/images/02.png')  # the last one again, as JPEG
    parts = ['train', 'train', 'val', 'test'] * 6
    found, status = look(part=parts)
    assert status == 0
    assert found['near-duplicates'] == [('warning', '1 pairs look nearly the same, 1 of them in different parts: '
                                                    '02.png = 23.png')]
    found, _ = look(reference=['r' if i in (2, 23) else i for i in range(24)])
    assert found['near-duplicates'] == [('ok', 'no two contents look nearly the same')]


def test_other_colours_are_another_image(look):
    """As two blurred images of strangers, whose brightness rises in the same places."""
    rng = np.random.RandomState(0)
    for i in range(24):
        planes = [Image.fromarray(rng.randint(0, 200, (3, 4), np.uint8)) for _ in range(3)]
        Image.merge('RGB', planes).resize((64, 48), Image.Resampling.BICUBIC).save(f'tiny/images/{i:02d}.png')
    red, green, blue = Image.open('tiny/images/02.png').split()
    Image.merge('RGB', (red.point(lambda v: 255 - v), green, blue)).save('tiny/images/22.png')
    Image.merge('RGB', [plane.point(lambda v: v // 2 + 50) for plane in (red, green, blue)]).save('tiny/images/23.png')
    (_, text), = look()[0]['near-duplicates']
    assert text.endswith(': 02.png = 23.png')
    assert text.startswith('1 pairs')


@given(st.data())
def test_near_duplicates_are_those_of_a_slow_search(data):
    n = data.draw(st.integers(2, 12))
    base = np.random.RandomState(data.draw(st.integers(0, 99))).rand(64) > .5
    bits = [base ^ np.isin(np.arange(64), data.draw(st.sets(st.integers(0, 63), max_size=4))) for _ in range(n)]
    refs = np.array(data.draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)))
    parts = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    info = Info([str(i) for i in range(n)], np.ones(n), np.ones(n), refs, np.empty((3, 0), int))
    paints = [data.draw(st.integers(0, 2)) for _ in range(n)]  # of which two have the same layout of colours
    layouts = np.linalg.qr(np.random.RandomState(0).rand(192, 2))[0].T[[0, 0, 1]].astype(np.float32)
    seen = [check.Seen(digest=bytes([i]), bits=bits[i], colours=layouts[paints[i]]) for i in range(n)]
    case = check.Case(None, None, info, seen, {'train': np.flatnonzero(parts == 0), 'val': np.flatnonzero(parts)})
    ((level, text),) = check.near_duplicates(case)
    near = [(i, j) for j in range(n) for i in range(j)
            if refs[i] != refs[j] and (bits[i] ^ bits[j]).sum() <= check.NEAR and (paints[i] < 2) == (paints[j] < 2)]
    across = sum(parts[i] != parts[j] for i, j in near)
    assert level == ('warning' if across else 'note' if near else 'ok')
    if near:
        assert text.startswith(f'{len(near)} pairs look nearly the same, {across} of them')


@pytest.mark.parametrize(('mos', 'level', 'text'), [
    ([5] * 24, 'error', '5 to 5, mean 5, 1 different: all the same, nothing can be learned'),
    (list(range(24)), 'ok', '0 to 23, mean 11.5, 24 different'),
])
def test_scores(look, mos, level, text):
    assert look(mos=mos)[0]['MOS'] == [(level, text)]


def test_a_score_that_is_no_number_is_reported(look):
    found, status = look(mos=['x', *range(23)])
    assert status == 1
    assert found == {'info file': [('error', "set.csv row 2: the mos 'x' is not a finite number of usual size")]}


def test_the_direction_is_guessed(look):
    ramp = np.tile(np.linspace(0, 255, 64), (48, 1))
    for i in range(24):  # sharper and sharper
        wave = ramp / 4 + (60 - 2 * i) + (4 + 3 * i) * np.sin(np.arange(64) * .8)
        Image.fromarray(wave.clip(0, 255).astype(np.uint8)).convert('RGB').save(f'tiny/images/{i:02d}.png')
    rising = np.arange(24)
    (level, text), = look(mos=rising)[0]['direction']
    assert level == 'ok'
    assert 'so does a guess: rank correlation +' in text
    (level, text), = look(mos=rising[::-1])[0]['direction']
    assert level == 'warning'
    assert 'a guess says the opposite' in text
    assert text.endswith('or give --lower_is_better')
    assert look('--lower_is_better', mos=rising[::-1])[0]['direction'][0][0] == 'ok'
    about = [json.dumps({'higher_is_better': False}), *[''] * 23]
    assert look(mos=rising[::-1], about=about)[0]['direction'][0][0] == 'ok'
    assert 'too little to guess from' in look(mos=[5] * 24)[0]['direction'][0][1]


@pytest.mark.parametrize(('std', 'level', 'text'), [
    (.57, 'warning', 'it may be on another scale'), (12., 'ok', 'of the range of MOS'),
    (60., 'warning', 'another scale'),
])
def test_std(look, std, level, text):
    (found, message), = look(std=[std] * 24)[0]['std']
    assert found == level
    assert text in message


def test_scenes_that_only_the_names_show(look, tmp_path):
    names = [f'scene{i % 8}_{i // 8}.png' for i in range(24)]
    for i, name in enumerate(names):
        (tmp_path / f'tiny/images/{i:02d}.png').rename(tmp_path / 'tiny/images' / name)
    parts = ['train'] * 14 + ['val'] * 5 + ['test'] * 5
    level, text = look(image=names, part=parts)[0]['split'][1]
    assert level == 'warning'
    assert text.startswith("8 of 8 beginnings of names that look like scenes, as 'scene0', are in more than one part: ")
    assert 'scenes' not in str(look(image=names, part=parts, reference=names[:8] * 3)[0]['split'])
    assert len(look(image=names, part=[parts[3 * (i % 8)] for i in range(24)])[0]['split']) == 1


def test_contents_in_two_parts(look):
    found, status = look('--split', 'random', reference=[i // 2 for i in range(24)])
    assert status == 1
    assert 'of 12 contents are in more than one part: --split reference' in found['split'][1][1]
    assert look('--split', 'reference', reference=[i // 2 for i in range(24)])[1] == 0


def test_splits_that_cannot_be(look):
    found, status = look('--split', 'kfold', '--folds', '25')
    assert status == 1
    assert found['split'] == [('error', '--folds 25: expected at most one fold for each of the 24 images')]
    found, status = look(part=['train'] + ['val'] * 13 + ['test'] * 10)
    assert ('error', 'train has one image only') in found['split']


def test_room(look, monkeypatch):
    assert 'decoded images take 0.02 GB on disk' in look('--resize')[0]['disk and memory'][0][1]
    usage = shutil.disk_usage('.')
    monkeypatch.setattr(check.shutil, 'disk_usage', lambda _: usage._replace(free=10))
    assert look()[0]['disk and memory'][0][0] == 'warning'
    monkeypatch.delattr('os.sysconf')
    assert look()[0]['disk and memory'][0][0] == 'warning'


def test_nothing_to_examine(tiny, fails):
    assert 'did you mean' in fails(check.main, 'tiny/inf.mat')
    assert 'gone not found' in fails(check.main, 'demo', '--data_info', 'tiny/info.mat', '--im_dir', 'gone')


def test_it_runs_from_anywhere_with_its_exit_status(look, tmp_path, script, capsys):
    look(mos=[5] * 24)
    assert script('data/check.py', tmp_path / 'set.csv', '--im_dir', tmp_path / 'tiny/images') == 1
    assert 'all the same' in capsys.readouterr().out
