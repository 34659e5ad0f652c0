"""Info files, splits, preprocessing, loaders."""
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.utils.data import DataLoader, Subset, random_split
from torchvision import transforms

import main
from iqa_data.augmentation import Augmentation
from iqa_data.info import Info, read_info, write_info
from iqa_data.loaders import check_images
from iqa_data.samplers import SameSize
from iqa_data.splits import split
from iqa_data.transforms import Preprocess
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN
from IQAdataset import IQADataset, get_data_loaders


@pytest.fixture
def info_file(tmp_path):
    path = tmp_path / 'info.mat'
    index = np.stack([np.random.RandomState(run).permutation(5) + 1 for run in range(3)], axis=1)
    write_info(path, ['a.png', 'ö 1.png', 'c.png', 'd', 'e', '写真.jpg'], range(6), range(6), [1, 2, 2, 3, 4, 5], index)
    return path


def test_info_files_round_trip(info_file):
    info = read_info(info_file)
    assert info.names == ['a.png', 'ö 1.png', 'c.png', 'd', 'e', '写真.jpg']
    assert info.mos.tolist() == list(range(6))
    assert info.index.shape == (5, 3)


def test_splits_are_by_content_disjoint_and_whole(info_file):
    info = read_info(info_file)
    for exp_id in range(4):
        parts = split(info, exp_id, .4, .6)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(6))
        contents = [set(info.ref_ids[rows]) for rows in parts.values()]
        assert [len(content) for content in contents] == [2, 1, 2]
        assert set(info.index[:2, exp_id % 3]) == contents[0]
    assert all(np.array_equal(split(info, 0, .4, .6)[part], split(info, 3, .4, .6)[part]) for part in parts)


def test_koniqs_ratios_give_the_official_counts():
    n = 10073
    contents = np.arange(1, n + 1)
    info = Info([f'{i}.jpg' for i in range(n)], np.ones(n), np.ones(n), contents, contents[:, None])
    assert [len(rows) for rows in split(info, 0, 7058 / n, 8058 / n).values()] == [7058, 1000, 2015]


def test_an_empty_part(info_file):
    with pytest.raises(UserError, match='leaves val empty: 5 contents with --train_ratio 0.4'):
        split(read_info(info_file), 0, .4, .5)


@pytest.mark.parametrize(('break_it', 'message'), [
    (lambda file: file.pop('index'), r'info.mat: the info file lacks index'),
    (lambda file: (file.pop('ref_ids'), file.pop('im_names')), r'lacks im_names, ref_ids'),
    (lambda file: (file.pop('ref_ids'), file.create_dataset('ref_ids', data=[[1, 2]])),
     'disagree in length: im_names 6.*ref_ids 2'),
    (lambda file: file['ref_ids'].__setitem__((0, 0), 99), 'ref_ids names 99, which is not in index'),
    (lambda file: file['subjective_scores'].__setitem__((0, 2), np.nan), 'MOS of c.png is not a finite number'),
])
def test_broken_info_files(info_file, break_it, message):
    with h5py.File(info_file, 'r+') as file:
        break_it(file)
    with pytest.raises(UserError, match=message):
        read_info(info_file)


def test_no_info_file_at_all(tmp_path):
    (tmp_path / 'text.mat').write_text('hello')
    with pytest.raises(UserError, match=r'text.mat: not a MATLAB v7.3'):
        read_info(tmp_path / 'text.mat')
    with pytest.raises(UserError, match=r'none.mat: no such info file'):
        read_info(tmp_path / 'none.mat')


@pytest.mark.parametrize(('mode', 'save'), [('L', {}), ('RGBA', {}), ('P', {}), ('LA', {}), ('1', {}), ('RGB', {})])
def test_images_of_any_mode_become_rgb(tmp_path, mode, save):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (20, 30, 3), np.uint8)).convert(mode)
    image.save(tmp_path / 'x.png', **save)
    assert Preprocess()(tmp_path / 'x.png').mode == 'RGB'
    assert np.array_equal(Preprocess()(tmp_path / 'x.png'), image.convert('RGB'))


def test_cmyk_and_16_bit(tmp_path):
    Image.new('CMYK', (30, 20), (0, 255, 0, 0)).save(tmp_path / 'cmyk.jpg')
    assert Preprocess()(tmp_path / 'cmyk.jpg').mode == 'RGB'
    Image.fromarray(np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)).save(tmp_path / 'deep.png')
    deep = np.asarray(Preprocess()(tmp_path / 'deep.png'))
    assert (deep.min(), deep.max()) == (0, 255)
    assert deep.std() > 50  # Pillow alone would clip all but 256 of the 65536 levels


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', [1, 3, 5, 6, 8, 9])  # there is no 9: it is ignored
def test_the_size_is_that_of_the_pixels(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new('RGB', (40, 20)).save(tmp_path / f'x.{suffix}', exif=exif)
    preprocess = Preprocess()
    assert preprocess.size(tmp_path / f'x.{suffix}') == preprocess.array(tmp_path / f'x.{suffix}').shape[:2]


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (30, 20)).save(tmp_path / 'turned.jpg', exif=exif)
    assert Preprocess()(tmp_path / 'turned.jpg').size == (20, 30)
    assert check_images([tmp_path / 'turned.jpg'], Preprocess()) == [(30, 20)]


def test_resizing_is_pils_bilinear_after_the_500_rule(tmp_path):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 80, 3), np.uint8))
    image.save(tmp_path / 'x.png')
    expected = image.resize((50, 50), Image.Resampling.BILINEAR).resize((40, 30), Image.Resampling.BILINEAR)
    assert np.array_equal(Preprocess((30, 40), (50, 50))(tmp_path / 'x.png'), expected)
    same = Preprocess(first_resize=(60, 80))(tmp_path / 'x.png')
    assert np.array_equal(same, image)


def test_the_input_is_the_originals_bit_for_bit():
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (240, 250, 3), np.uint8))
    expected = transforms.Normalize((.485, .456, .406), (.229, .224, .225))(transforms.ToTensor()(image))
    assert torch.equal(NORMALISATIONS['imagenet'](transforms.functional.pil_to_tensor(image)[None])[0], expected)


def test_bad_images_are_counted_and_named(tmp_path):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (200, 200, 3), np.uint8))
    for kind in ('png', 'jpg'):
        image.save(tmp_path / f'good.{kind}')
        data = (tmp_path / f'good.{kind}').read_bytes()
        (tmp_path / f'cut.{kind}').write_bytes(data[:len(data) // 2])
    (tmp_path / 'text.jpg').write_text('hello')
    names = ['good.png', 'good.jpg', 'cut.png', 'cut.jpg', 'text.jpg', 'gone.png']
    with pytest.raises(UserError, match=r'4 of 6 images cannot be read: .*cut.png \(.*cut.jpg \(.*text.jpg .* 1 more'):
        check_images([tmp_path / name for name in names], Preprocess())
    with pytest.raises(UserError, match=r'gone.png \(no such file\)'):
        check_images([tmp_path / 'gone.png'], Preprocess())


def test_batches_of_one_size_cover_everything_once():
    sizes = [(1, 2), (3, 4), (1, 2), (1, 2), (3, 4)]
    sampler = SameSize(sizes, 2)
    assert list(sampler) == [[0, 2], [3], [1, 4]]
    assert len(sampler) == 3
    assert sorted(sampler.order) == list(range(5))


def options(tiny, line=''):
    return TRAIN.parse([*tiny, '--no-pbar', '--num_workers', '0', *line.split()])


def test_items_are_an_image_and_its_scores(tiny):
    dataset = get_data_loaders(options(tiny)).datasets['train']
    assert isinstance(dataset, IQADataset)
    image, (mos, std) = dataset[0]
    (image,) = image
    assert (image.shape, image.dtype) == ((3, 48, 64), torch.uint8)
    assert mos.shape == std.shape == (1,)
    assert mos.dtype == torch.float32


def test_torchs_own_tools_take_the_data_set(tiny):
    dataset = get_data_loaders(options(tiny)).datasets['train']
    rows = [3, 0, 2]
    (images,), (mos, std) = dataset.batch(rows)
    parts = random_split(dataset, [5, len(dataset) - 5])
    assert len(next(iter(DataLoader(parts[0], 5)))[1][0]) == 5
    for loader in (DataLoader(Subset(dataset, rows), 3), DataLoader(dataset, 3, sampler=rows),
                   DataLoader(Subset(Subset(dataset, rows), range(3)), 3, num_workers=1)):
        (same,), scores = next(iter(loader))
        assert torch.equal(same, images)
        assert torch.equal(torch.stack(scores), torch.stack([mos, std]))


def test_scores_that_are_all_the_same(tiny, tmp_path):
    info = read_info('tiny/info.mat')
    write_info('tiny/info.mat', info.names, np.full(24, 3.5), info.std, info.ref_ids, info.index)
    with pytest.raises(UserError, match=r'tiny/info.mat: all 14 training images have the MOS 3.5'):
        get_data_loaders(options(tiny, f'--cache disk --cache_dir {tmp_path}/decoded'))
    assert not (tmp_path / 'decoded').exists()


def test_a_batch_larger_than_the_set_is_noticed(tiny, capsys):
    for size, warned in ((14, False), (15, True)):
        assert len(get_data_loaders(options(tiny, f'-bs {size}')).training_loader()) == 1
        expected = 'WARNING: --batch_size 15 is larger than the training set of 14: an epoch is one batch'
        assert (expected in capsys.readouterr().out) == warned


def test_a_last_batch_of_one_is_dropped(tiny, capsys):
    data = get_data_loaders(options(tiny, '--train_ratio .7 --train_and_val_ratio .8 -bs 5'))  # 16 training images
    assert len(data.training_loader(fewest=2)) == 3
    assert len(data.training_loader()) == 4
    assert 'last training batch' in capsys.readouterr().out
    assert sum(len(image) for (image,), _ in data.evaluation_loader('train')) == 16


def test_augmentation_rotates_flips_and_crops():
    torch.manual_seed(0)
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 50, 3), np.uint8))
    augment = Augmentation(('rotate', 'hflip', 'crop'), crop_size_h=32, crop_size_w=24)
    (first,), (second,) = augment(image), augment(image)
    assert first.size == (24, 32)
    assert not np.array_equal(first, second)


def test_augmentation_gives_the_pixels_of_torchvisions_first_transforms():
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 50, 3), np.uint8))
    first = transforms.Compose([transforms.RandomRotation(2), transforms.RandomHorizontalFlip(.5),
                                transforms.RandomCrop((32, 24))])
    augment = Augmentation(('rotate', 'hflip', 'crop'), crop_size_h=32, crop_size_w=24)
    for seed in range(20):
        torch.manual_seed(seed)
        expected = first(image)
        torch.manual_seed(seed)
        assert np.array_equal(augment(image)[0], expected)


@pytest.mark.parametrize('part', ['rotate', 'hflip', 'vflip', 'crop', 'rot90'])
def test_the_images_of_a_pair_get_one_draw(part):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8))
    drawn = []
    for seed in range(12):
        torch.manual_seed(seed)
        one, other = Augmentation((part,), angle=20, crop_size_h=16, crop_size_w=16)(image, image)
        assert np.array_equal(one, other)
        drawn.append(np.asarray(one).tobytes())
    assert len(set(drawn)) >= (4 if part in ('rotate', 'crop', 'rot90') else 2)


def test_augmentation_is_for_training_alone(tiny):
    data = get_data_loaders(options(tiny, '--augmentation -cs_h 32 -cs_w 32'))
    (images,), _ = next(iter(data.training_loader()))
    assert images.shape[2:] == (32, 32)
    (images,), _ = next(iter(data.evaluation_loader('train')))
    assert images.shape[2:] == (48, 64)


def test_crops_and_batches_must_fit(tiny, tmp_path):
    with pytest.raises(UserError, match='crop_size_h 498 .* larger than the smallest training image, 48x64'):
        get_data_loaders(options(tiny, '--augmentation'))
    for path in (tmp_path / 'tiny' / 'images').glob('*0.png'):
        Image.open(path).resize((70, 50)).save(path)
    with pytest.raises(UserError, match=r'are of 2 sizes, from \(48, 64\) to \(50, 70\).*give --resize'):
        get_data_loaders(options(tiny))
    assert get_data_loaders(options(tiny, '--resize'))
    assert get_data_loaders(options(tiny, '-bs 1'))


@pytest.mark.parametrize('way', ['..', 'absolute', 'link', 'linked folder'])
def test_images_outside_their_folder(tiny, tmp_path, way):
    outside = tmp_path / 'secret' / 'x.png'
    outside.parent.mkdir()
    Image.new('RGB', (64, 48)).save(outside)
    images = tmp_path / 'tiny' / 'images'
    name = {'..': '../../secret/x.png', 'absolute': str(outside), 'link': 'link.png', 'linked folder': 'sub/x.png'}[way]
    (images / 'link.png').symlink_to(outside)
    (images / 'sub').symlink_to(outside.parent)
    info = read_info(tmp_path / 'tiny' / 'info.mat')
    info.names[3] = name
    write_info(tmp_path / 'tiny' / 'info.mat', info.names, info.mos, info.std, info.ref_ids, info.index)
    with pytest.raises(UserError, match=f'1 of 24 images lie outside tiny/images, as {re.escape(name)}'):
        get_data_loaders(options(tiny))
    assert get_data_loaders(options(tiny, '--allow_outside'))


def test_the_folder_of_the_images_may_be_a_link(tiny, tmp_path):
    (tmp_path / 'linked').symlink_to(tmp_path / 'tiny' / 'images')
    assert get_data_loaders(options([*tiny, '--im_dir', 'linked']))


def test_a_decompression_bomb_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(UserError, match='24 of 24 images cannot be read: .* decompression bomb'):
        get_data_loaders(options(tiny))


def test_debug_uses_five_batches_and_five_images(tiny):
    data = get_data_loaders(options(tiny, '--debug -bs 2'))
    assert {part: len(names) for part, names in data.names.items()} == {'train': 10, 'val': 5, 'test': 5}


@pytest.mark.parametrize(('words', 'message'), [
    ('--pretrained other.pth', 'does not fit the network'),
    ('-arch maniqa_tiny --img_size 64', 'images of 48x64 (h x w) for a network of 64x64'),
    ('-arch cnniqa --augmentation crop -cs_h 64 -cs_w 64', 'is larger than the smallest training image, 48x64')])
def test_what_does_not_fit_is_refused_before_images_are_decoded(words, message, tiny, fails):
    torch.save({'a': torch.zeros(1)}, 'other.pth')
    words = ['-arch', 'resnet18', '--weights', 'none', '--device', 'cpu', '-e', '1', '-bs', '4', *words.split()]
    assert message in fails(main.main, *tiny, *words)
    assert not Path('cache').exists()
