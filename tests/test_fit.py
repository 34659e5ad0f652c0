"""How an image is brought to a size: resized, padded or cropped, from files and as tensors, and in the cache."""
import numpy as np
import pytest
import torch
from PIL import Image

from iqa_data.cache import on_disk
from iqa_data.transforms import FITS, Preprocess
from iqa_runtime.errors import UserError
from iqa_scoring.scorer import resized
from main import main


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(1, 256, (height, width, 3), np.uint8)


def fitted(image: np.ndarray, fit: str, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    return np.asarray(Preprocess(size, fit=fit).of(Image.fromarray(image)))


@pytest.mark.parametrize('fit', ['resize', 'pad', 'crop'])
def test_every_fit_gives_the_size_and_leaves_what_fits(fit):
    assert fitted(photo(6, 6), fit).shape == (8, 10, 3)
    np.testing.assert_array_equal(fitted(photo(8, 10), fit), photo(8, 10))


@pytest.mark.parametrize('fit', ['pad', 'crop'])
def test_a_small_image_lies_in_the_middle_of_black(fit):
    made = fitted(photo(4, 6), fit)
    np.testing.assert_array_equal(made[2:6, 2:8], photo(4, 6))
    assert made.sum() == photo(4, 6).sum()


def test_crop_takes_the_middle_and_pads_the_other_side():
    np.testing.assert_array_equal(fitted(photo(12, 20), 'crop'), photo(12, 20)[2:10, 5:15])
    tall = fitted(photo(12, 6), 'crop')
    np.testing.assert_array_equal(tall[:, 2:8], photo(12, 6)[2:10])
    assert not tall[:, :2].any()
    assert not tall[:, 8:].any()


def test_pad_refuses_what_is_larger():
    with pytest.raises(ValueError, match='20x12 pixels cannot be padded to 10x8: --fit crop cuts them'):
        fitted(photo(12, 20), 'pad')


@pytest.mark.parametrize('fit', ['pad', 'crop'])
def test_tensors_are_fitted_as_images_are(fit):
    pixels = torch.from_numpy(photo(4, 6)).permute(2, 0, 1)[None].float()
    made = resized(pixels, Preprocess((8, 10), fit=fit))[0].permute(1, 2, 0)
    np.testing.assert_array_equal(made.numpy(), fitted(photo(4, 6), fit))


def test_an_unknown_fit_lists_the_known():
    with pytest.raises(UserError, match="unknown fit 'cropp' .did you mean crop.*resize, pad, crop"):
        Preprocess((8, 10), fit='cropp')


def test_the_cache_keeps_fits_apart(tmp_path):
    Image.fromarray(photo(4, 6)).save(tmp_path / 'a.png')
    made = [on_disk([tmp_path / 'a.png'], Preprocess((8, 10), fit=fit), tmp_path / 'cache')(tmp_path / 'a.png')
            for fit in FITS]
    assert not np.array_equal(made[0], made[1])
    assert len(list((tmp_path / 'cache').glob('*.npy'))) == len(FITS)


def test_fit_needs_a_size(fails):
    assert '--fit crop needs --resize' in fails(main, '--fit', 'crop')
