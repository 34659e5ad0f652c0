"""Data sets of pairs: their published files, the mix for pretraining, and pairs as ASNA's networks see them."""
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import make_info
from iqa_data.info import read_info
from iqa_data.pairs import PAIR_SETS, prepare, train_contents
from iqa_data.splits import SplitPlan, choose
from iqa_runtime.errors import UserError

HEAD = 'ref. image, distorted image A, distorted image B, raw preference for A, processed preference for A\n'


@pytest.fixture
def published(tmp_path) -> Path:
    """Tiny folders as TID2013, TID2008, PieAPP and PIPAL are published."""
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def draw(name: str, width: int, height: int) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(1, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)

    for folder, references in (('tid2013', ('I01.BMP', 'i25.bmp')), ('tid2008', ('I01.BMP', 'I02.BMP'))):
        for i, reference in enumerate(references):
            draw(f'{folder}/reference_images/{reference}', 512, 384)
            draw(f'{folder}/distorted_images/{reference[:3].lower()}_01_{i + 1}.bmp', 512, 384)
        stems = [reference[:3].upper() for reference in references]
        write(f'{folder}/mos_with_names.txt', f'5.77 {stems[0]}_01_1.bmp\n3.17 {stems[1]}_01_2.BMP\n')
    for part, number in (('train', 1), ('val', 21)):
        draw(f'PieAPPdataset/reference_images/{part}/ref_{number}.png', 256, 256)
        for i in (1, 2):
            draw(f'PieAPPdataset/distorted_images/{part}/ref_{number}/distort_{i}.png', 256, 256)
        write(f'PieAPPdataset/{part}_reference_list.txt', f'ref_{number}.png\n')
        write(f'PieAPPdataset/labels/{part}/ref_{number}_pairwise_labels.csv',
              f'{HEAD}ref_{number}.png,distort_1.png,distort_2.png,,0.73\n'
              f'ref_{number}.png,distort_1.png,ref_{number}.png,0.2,0.21\n')
    draw('PIPAL/Train_Ref/A0001.bmp', 288, 288)
    for i in (0, 1):
        draw(f'PIPAL/training_inp/Distortion_{i + 1}/A0001_0{i}_00.bmp', 288, 288)
    write('PIPAL/training_inp/Distortion_1/readme.txt', 'no image')
    write('PIPAL/Train_Label/A0001.txt', 'A0001_00_00.bmp,1570.40\nA0001_01_00.bmp,1449.05\n')
    return tmp_path


def info_of(name: str, source: Path, out: Path):
    make_info.main([name, '--source', str(source), '--out', str(out), '--partial'])
    return read_info(out)


def test_references_are_files_as_they_are_called_on_the_disk(published):
    info = info_of('tid2013', published / 'tid2013', published / 't.csv')
    assert info.references == ['I01.BMP', 'i25.bmp']
    assert info.names == ['i01_01_1.bmp', 'i25_01_2.bmp']
    info = info_of('pipal', published / 'PIPAL', published / 'p.csv')
    assert info.references == ['A0001.bmp'] * 2
    assert info.names == ['Distortion_1/A0001_00_00.bmp', 'Distortion_2/A0001_01_00.bmp']


def test_pieapp_has_a_row_for_each_comparison(published):
    info = info_of('pieapp', published / 'PieAPPdataset', published / 'p.csv')
    assert info.names == ['train/ref_1/distort_1.png'] * 2 + ['val/ref_21/distort_1.png'] * 2
    assert info.mos.tolist() == [.73, .21, .73, .21]
    assert info.part.tolist() == ['train'] * 2 + ['val'] * 2
    assert info.references[0] == 'train/ref_1.png'


def test_mistakes_in_pieapp_are_named(published, fails):
    def error() -> str:
        return fails(make_info.main, 'pieapp', '--source', folder, '--out', published / 'p.csv', '--partial')

    folder = published / 'PieAPPdataset'
    labels = folder / 'labels/val/ref_21_pairwise_labels.csv'
    labels.write_text(f'{HEAD}ref_21.png,distort_1.png,distort_2.png,.5,\n')
    assert 'ref_21_pairwise_labels.csv row 2: the processed preference for A is empty' in error()
    labels.write_text('a,b\n1,2\n')
    assert 'lacks the column distorted image A, processed preference for A' in error()
    labels.unlink()
    assert 'found no labels/val/ref_21_pairwise_labels.csv' in error()


def test_the_mix_has_every_set_on_its_own_scale(published):
    info = info_of('asna_pretrain', published, published / 'mix.csv')
    np.testing.assert_allclose(info.mos, [1, -1, 1, -1, 1, -1, 1, -1])
    assert all((published / name).is_file() for name in (*info.names, *info.references))
    assert info.about['score_mean_and_std'] == {'PieAPP': [.47, .26], 'TID2013': [4.47, 1.3], 'TID2008': [4.47, 1.3]}
    assert 'tid2008/mos_with_names.txt' in info.about['sha256']
    assert info.ref_ids[4] == info.ref_ids[6]  # I01 of TID2013 is that of TID2008
    parts = choose(info, SplitPlan())
    assert len(parts['train']) + len(parts['val']) == 8
    assert 'test' not in parts


def test_the_counts_of_the_mix_follow_from_its_contents():
    contents = [f'PieAPP/ref_{i}' for i in range(160)] + [f'TID/i{i:02d}' for i in range(1, 26)]
    train = train_contents(contents)
    pieapp = sum(content.startswith('PieAPP') for content in train)
    pairs = 483 * pieapp + (120 + 68) * (len(train) - pieapp)
    assert (pairs, 483 * 160 + 188 * 25 - pairs) == (65584, 16396)
    assert train == train_contents(contents[::-1])


def test_a_part_of_the_mix_is_not_the_whole(published, fails):
    assert ('not the whole of asna_pretrain: 8 images, expected 81980' in
            fails(make_info.main, 'asna_pretrain', '--source', published, '--out', published / 'mix.csv'))


# Prepared pairs

@pytest.mark.parametrize('name', PAIR_SETS)
def test_prepared_pairs_are_288_square(published, name):
    pairs = list(prepare(name, published))
    assert [pair[:3] for pair in pairs] == [pair[:3] for pair in prepare(name, published / PAIR_SETS[name].folder)]
    assert len(pairs) == (4 if name == 'PieAPP' else 2)
    for reference_file, file, score, reference, distorted in pairs:
        folder = published / PAIR_SETS[name].folder
        assert (folder / reference_file).is_file()
        assert (folder / file).is_file()
        assert isinstance(score, float)
        assert reference.shape == distorted.shape == (288, 288, 3)
        assert reference.dtype == distorted.dtype == np.uint8


def test_tid_is_cropped_and_pieapp_padded(published):
    _, file, _, _, distorted = next(prepare('TID2013', published))
    whole = np.asarray(Image.open(published / 'tid2013' / file))
    np.testing.assert_array_equal(distorted, whole[48:336, 112:400])
    _, file, _, _, distorted = next(prepare('PieAPP', published))
    np.testing.assert_array_equal(distorted[16:272, 16:272], np.asarray(Image.open(published / 'PieAPPdataset' / file)))
    assert not distorted[:16].any()
    assert not distorted[:, 272:].any()


def test_an_image_that_is_not_there(published):
    (published / 'tid2008/reference_images/I02.BMP').unlink()
    with pytest.raises(UserError, match='reference_images/I02 not found'):
        list(prepare('TID2008', published))
    with pytest.raises(UserError, match='unknown data set of pairs'):
        list(prepare('TID', published))


def test_prepared_pairs_are_those_recorded(shared, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / 'golden/systems'))
    import tiny_pairs
    recorded = json.loads((shared / 'golden/systems/asna_pairs.json').read_text())
    tiny_pairs.write(str(tmp_path), recorded['seed'])

    def pairs_of(name: str, root: Path):
        return ((pair[:2], pair[2], pair[3:]) for pair in prepare(name, root))

    def digest(pixels: np.ndarray) -> str:
        return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()

    made = sorted((name.lower(), *files, round(score, 9), *map(digest, images))
                  for name in PAIR_SETS for files, score, images in pairs_of(name, tmp_path))
    assert made == sorted((pair['dataset'].lower(), pair['ref'], pair['dist'], round(pair['normalised'], 9),
                           pair['ref_rgb_sha256'], pair['dist_rgb_sha256']) for pair in recorded['pairs'])
