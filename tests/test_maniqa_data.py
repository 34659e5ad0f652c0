"""What MANIQA's images go through: OpenCV's bicubic filter, sorted and interleaved folds, the challenge's table."""

import numpy as np
import pytest
import torch
from conftest import SMALL
from golden import cases, filling, recorded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scored import photo

import main
from data import make_info
from iqa_data.info import Info, read_info
from iqa_data.splits import SplitPlan, choose, sorted_interleaved_folds
from iqa_data.transforms import FILTERS, INTERPOLATIONS, Preprocess, resize_cubic
from iqa_runtime.errors import UserError
from iqa_scoring.scorer import resized
from iqa_training.options import TRAIN
from iqa_training.schedules import build_schedule

# The filter


def cubic_weights(size, new):
    """(new, size): the weight of each pixel in each new one, by the definition of the filter with a = -.75."""
    def kernel(x, a=-.75):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x ** 3 - (a + 3) * x ** 2 + 1
        return a * (x ** 3 - 5 * x ** 2 + 8 * x - 4) if x < 2 else 0

    weights = np.zeros((new, size))
    for i in range(new):
        centre = (i + .5) * size / new - .5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[i, min(max(j, 0), size - 1)] += kernel(centre - j)
    return weights


@pytest.mark.parametrize('size', [(17, 23), (40, 9)])
def test_the_filter_by_its_definition(size):
    image = np.random.RandomState(0).randint(0, 256, (*size, 3), np.uint8)
    exact = np.einsum('ih,jw,hwc->ijc', cubic_weights(size[0], 20), cubic_weights(size[1], 20), image.astype(float))
    new = resize_cubic(image, 20)
    assert new.shape == (20, 20, 3)
    assert np.abs(new - exact.clip(0, 255)).max() < .501  # rounded
    assert np.array_equal(resize_cubic(Image.fromarray(image), 20), new)
    assert np.array_equal(Preprocess((20, 20), filter='cubic').of(Image.fromarray(image)), new)
    assert not np.array_equal(Preprocess((20, 20), filter='bicubic').of(Image.fromarray(image)), new)


def test_recorded_resized_pictures(shared):
    golden, systems = recorded(shared, 'maniqa'), filling(shared)
    for i, case in enumerate(cases(golden, 'resize/cases')):
        image = resize_cubic(systems.picture(case['seed'], case['h'], case['w']), case['side'])
        assert image.mean() == pytest.approx(case['mean'], abs=1e-3)
        difference = np.abs(image[::12, ::12].transpose(2, 0, 1).astype(int) - golden[f'resize/{i}/pixels'])
        assert difference.max() <= 1
        assert (difference > 0).mean() <= .001  # of 3072 values: .03 % in all of a picture


def test_every_filter_has_a_like_one_for_images_in_floating_point():
    assert list(FILTERS) == list(INTERPOLATIONS)
    image = photo(0, (60, 90))
    for name in FILTERS:
        preprocess = Preprocess((40, 50), filter=name)
        x = resized(torch.tensor(image).permute(2, 0, 1)[None].double() / 255, preprocess)[0].permute(1, 2, 0) * 255
        expected = np.asarray(preprocess.of(Image.fromarray(image))).astype(float)
        difference = np.abs(x.numpy() - expected)  # Pillow rounds and cuts between its two passes
        assert difference.mean() < (4 if name == 'lanczos' else .6)


# The folds

@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(2, 12))
def test_folds_share_the_images_out(mos, n):
    folds = sorted_interleaved_folds(np.array(mos), n)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(mos)))
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for fold in folds:
        keys = [(-mos[i], i) for i in fold]
        assert keys == sorted(keys)
    published = sorted_interleaved_folds(np.array(mos), n, 'published')
    assert all(np.array_equal(a, b) for a, b in zip(folds[::-1], published, strict=True))


def test_a_worked_example():
    mos = [3.1, 7.0, 5.5, 5.5, 8.2, 1.0, 6.4, 2.2, 4.8, 9.0, .5, 6.4]
    expected = [[11, 7], [6, 0], [1, 8], [4, 3, 10], [9, 2, 5]]
    assert [fold.tolist() for fold in sorted_interleaved_folds(np.array(mos), 5)] == expected
    info = Info([f'{i}' for i in range(12)], np.array(mos), np.zeros(12), np.arange(1, 13), np.empty((12, 0), int))
    for i, fold in enumerate(expected):
        for order, number in (('slides', i), ('published', 4 - i)):
            parts = choose(info, SplitPlan('kfold-sorted', fold=number, fold_order=order, test_fold='none'))
            assert parts['val'].tolist() == sorted(fold)
            assert parts['train'].tolist() == sorted({*range(12)} - {*fold})
            assert 'test' not in parts
    with pytest.raises(UserError, match=r"unknown fold order 'slide' \(did you mean slides\?\)"):
        sorted_interleaved_folds(np.array(mos), 5, 'slide')


def test_recorded_folds(shared):
    for case in cases(recorded(shared, 'maniqa'), 'folds'):
        for order, key in (('published', 'shipped'), ('slides', 'seed_text')):
            folds = sorted_interleaved_folds(np.array(case['mos']), case['n_folds'], order)
            assert [fold.tolist() for fold in folds] == case[key]


def test_the_order_is_of_sorted_folds_alone(fails):
    assert '--fold_order needs --split kfold-sorted' in fails(lambda argv: TRAIN.parse(argv), '--fold_order', 'slides')


# The challenge's table

TABLE = '''img_name,img_path,mos,comments
b,./train/b.jpg,5.5,"nice, sharp"
a,./train/a.jpg,8.25,a dog
b,./train/b.jpg,5.5,"two
lines"
c,./train/c.jpg,1.809,dark
'''


def test_the_challenges_table(tmp_path, fails, capsys):
    (tmp_path / 'train.csv').write_text(TABLE)
    words = ['samsung', '--source', tmp_path, '--out', tmp_path / 's.csv']
    assert 'not the whole of samsung: 3 images, expected 54662' in fails(make_info.main, *words)
    make_info.main([*map(str, words), '--partial'])
    info = read_info(tmp_path / 's.csv')
    assert info.names == ['train/b.jpg', 'train/a.jpg', 'train/c.jpg']
    assert info.mos.tolist() == [5.5, 8.25, 1.809]
    (tmp_path / 'train.csv').write_text(TABLE + 'a,./train/a.jpg,8,a cat\n')
    assert 'train.csv row 6: train/a.jpg with the mos 8, in row 3 with 8.25' in fails(make_info.main, *words,
                                                                                     '--partial')


def test_training_with_a_fold_and_no_test_part(tiny, capsys):
    main.main([*tiny, *SMALL, '-e', '1', '--split', 'kfold-sorted', '--fold_order', 'published', '--test_fold', 'none',
               '--folds', '3', '--filter', 'cubic'])
    assert '16 train, 8 val images of demo' in capsys.readouterr().out


@pytest.mark.parametrize(('recipe', 'batch'), [('maniqa_384', 32), ('maniqa_448', 16), ('maniqa_640', 16)])
def test_recipes_of_the_ensemble(recipe, batch):
    args, side = TRAIN.parse(['--recipe', recipe, '--fold', '3']), int(recipe[-3:])
    assert (args.architecture, args.resize_size_h, args.resize_size_w, args.filter) == (recipe, side, side, 'cubic')
    assert (args.batch_size, args.fold, args.patience, args.seed) == (batch, 3, 15, 4420)
    schedule = build_schedule(args, torch.optim.Adam([torch.zeros(1)], args.learning_rate), 100)
    assert schedule.unit == 'iteration'
    for step, rate in ((0, 1e-10), (1, 5.00995e-8), (200, 1e-5), (799, 1.6853807747864839e-10), (1000, 9e-6)):
        assert 1e-5 * schedule.lr_lambdas[0](step) == pytest.approx(rate, rel=1e-9)
