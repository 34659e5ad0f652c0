"""Pairs of reference and distorted image, from the info table through training and testing."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import CONTENTS, PER_CONTENT, TinyPairs, make_pairs
from PIL import Image

from data import check
from iqa_data.info import read_info
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN
from IQAdataset import get_data_loaders
from IQAmodel import NETWORKS, Entry, create_model
from main import main
from test_dataset import main as evaluated


@pytest.fixture
def pairs(tmp_path, monkeypatch, one_thread) -> list[str]:
    """A tiny data set of pairs in a fresh working directory, and a network for it; the options of main.py."""
    make_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NETWORKS, 'tiny_pairs', Entry(TinyPairs, 'tests'))
    return ['-arch', 'tiny_pairs', '--weights', 'none', '--dataset', 'pairs.csv', '--im_dir', 'images', '--ref_dir',
            'references', '--loss_type', 'mse', '-bs', '6', '-e', '2', '-lr', '.1', '--device', 'cpu', '--no-pbar',
            '--num_workers', '0']


def options(pairs, *words: str):
    return TRAIN.parse([*pairs, *words])


@pytest.mark.parametrize('cache', ['disk', 'ram', 'none'])
def test_items_are_reference_and_distorted(pairs, cache):
    data = get_data_loaders(options(pairs, '--cache', cache), inputs=2)
    dataset = data.datasets['train']
    (reference, distorted), (mos, _) = dataset[1]
    name = data.names['train'][1]
    np.testing.assert_array_equal(reference.permute(1, 2, 0), np.asarray(Image.open(f'references/{name[:2]}.png')))
    np.testing.assert_array_equal(distorted.permute(1, 2, 0), np.asarray(Image.open(f'images/{name}')))
    assert mos.item() == 90 - 20 * int(name[3]) + int(name[1])


def test_a_no_reference_network_reads_the_distorted_image_alone(pairs):
    for path in ('references/c0.png', 'references/c1.png'):
        open(path, 'w').close()  # broken, if it were read
    data = get_data_loaders(options(pairs))
    (image,), _ = data.datasets['train'][0]
    assert image.shape == (3, 20, 24)


@pytest.mark.parametrize('name', ['resnet18', 'cnniqa', 'maniqa_tiny', 'asna_simple', 'asna_simple_a', 'asna_tiled'])
def test_the_table_of_networks_knows_how_many_images_one_compares(name):
    assert NETWORKS[name].inputs == create_model(name).inputs == 1 + name.startswith('asna')


def test_contents_are_split_whole(pairs):
    names = get_data_loaders(options(pairs), inputs=2).names
    contents = [{name[:2] for name in files} for files in names.values()]
    assert sum(map(len, contents)) == CONTENTS
    assert sum(map(len, names.values())) == CONTENTS * PER_CONTENT


def test_a_pair_is_augmented_alike(pairs):
    words = '--augmentation', 'hflip', 'vflip', 'lightness', 'crop', '-cs_h', '9', '-cs_w', '7'
    data = get_data_loaders(options(pairs, *words), inputs=2)
    images = data.datasets['train']
    images.paths = [(path, path) for _, path in images.paths]
    for (reference, distorted), _ in data.training_loader():
        assert torch.equal(reference, distorted)


def test_trained_tested_and_resumed(pairs, capsys):
    performance = main(pairs)
    assert len(performance.sq) == 2 * PER_CONTENT
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    words = '--trained_model_file', checkpoint, '--device', 'cpu', '--no-pbar', '--im_dir', 'images'
    tested = evaluated([str(word) for word in (*words, '--ref_dir', 'references')])
    np.testing.assert_allclose(tested.pq, performance.pq, rtol=1e-6)
    assert main([*pairs, '-e', '3', '--resume', 'auto']) is not None


MISTAKES = {
    'no column': ('image,mos\nc0_0.png,1\nc1_0.png,2\nc2_0.png,3\n',
                  'pairs has none: pairs.csv has no column reference'),
    'contents': ('image,mos,reference\nc0_0.png,1,sky\nc1_0.png,2,sea\nc2_0.png,3,c2.png\n',
                 "lacks 2 of 3: 'sky', the reference of c0_0.png, is no file in references"),
    'an empty cell': ('image,mos,reference\nc0_0.png,1,\nc1_0.png,2,c1.png\nc2_0.png,3,c2.png\n',
                      "lacks 1 of 3: '', the reference of c0_0.png, is no file in references"),
    'outside': ('image,mos,reference\nc0_0.png,1,../images/c0_0.png\nc1_0.png,2,c1.png\nc2_0.png,3,c2.png\n',
                'outside references'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_a_set_without_references_is_one_clear_error(pairs, fails, case):
    table, error = MISTAKES[case]
    with open('pairs.csv', 'w') as file:
        file.write(table)
    words = '--split', 'random', '--train_ratio', '.34', '--train_and_val_ratio', '.67'
    assert error in fails(main, *pairs, *words)


@pytest.mark.parametrize('folder', ['images', './images/', 'references/../images', 'link', 'links', 'absolute'])
def test_an_image_is_not_compared_with_itself(pairs, fails, folder):
    """Files count, not names: the folder of the references may be written in any way, or hold links."""
    Path('link').symlink_to('images')
    Path('links').mkdir()
    for path in Path('images').iterdir():
        os.link(path, Path('links', path.name))
    folder = str(Path('images').absolute()) if folder == 'absolute' else folder
    with open('pairs.csv', 'w') as file:
        file.write('image,mos,reference\n' + ''.join(f'c{i}_0.png,{i},c{i}_0.png\n' for i in range(6)))
    error = fails(main, *pairs, '--ref_dir', folder)
    assert 'pairs names each image as its own reference: --ref_dir names another folder' in error


def test_an_image_of_another_size_than_its_reference(pairs, fails):
    Image.new('RGB', (30, 30)).save('references/c1.png')
    assert 'its reference references/c1.png 30x30' in fails(main, *pairs)
    assert get_data_loaders(options(pairs, '--resize', '-rs_h', '16', '-rs_w', '16'), inputs=2)


# Tables

def test_a_content_column_groups_what_has_references_of_its_own(tmp_path):
    (tmp_path / 'x.csv').write_text('image,mos,reference,content\na,1,ra,s\nb,2,rb,s\nc,3,rc,t\n')
    info = read_info(tmp_path / 'x.csv')
    assert info.references == ['ra', 'rb', 'rc']
    assert info.ref_ids.tolist() == [1, 1, 2]


REPEATED = 'image,mos,reference,about\na,1,r,"{""repeated"": true}"\na,2,r,\nb,3,s,\nc,4,t,\nd,5,u,\n'


def test_an_image_comes_again_if_the_table_says_so(tmp_path):
    (tmp_path / 'x.csv').write_text(REPEATED)
    assert read_info(tmp_path / 'x.csv').names == ['a', 'a', 'b', 'c', 'd']
    (tmp_path / 'y.csv').write_text('image,mos\na,1\na,2\n')
    with pytest.raises(UserError, match='a again'):
        read_info(tmp_path / 'y.csv')


@pytest.mark.parametrize('split', ['random', 'reference', 'kfold'])
def test_all_rows_of_an_image_are_in_one_part(tmp_path, split, monkeypatch):
    from iqa_data.splits import SplitPlan, choose, rows_in_file
    from iqa_runtime.split_file import write_split
    (tmp_path / 'x.csv').write_text(REPEATED)
    info = read_info(tmp_path / 'x.csv')
    for seed in range(10):
        parts = choose(info, SplitPlan(split, train_ratio=.4, train_and_val_ratio=.7, seed=seed, folds=4))
        names = {part: [info.names[i] for i in rows] for part, rows in parts.items()}
        assert sum('a' in some for some in names.values()) == 1
        write_split(tmp_path / 'split.csv', names)
        again = rows_in_file(tmp_path / 'split.csv', info.names)
        assert all(np.array_equal(parts[part], again[part]) for part in parts)


def test_folds_by_mos_refuse_repeated_images(tmp_path):
    from iqa_data.splits import SplitPlan, choose
    (tmp_path / 'x.csv').write_text(REPEATED)
    with pytest.raises(UserError, match='puts the rows of one image into several parts'):
        choose(read_info(tmp_path / 'x.csv'), SplitPlan('kfold-sorted', folds=5))


def test_check_counts_the_references(pairs, capsys):
    check.main(['pairs.csv', '--im_dir', 'images', '--ref_dir', 'references', '--split', 'reference'])
    assert f'ok       {CONTENTS} of {CONTENTS} reference images are in references' in capsys.readouterr().out
    Path('references/c3.png').unlink()
    check.main(['pairs.csv', '--im_dir', 'images', '--ref_dir', 'references', '--split', 'reference'])
    assert "warning  5 of 6 reference images are in references, not 'c3.png'" in capsys.readouterr().out
