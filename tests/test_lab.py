"""The lightness of 8-bit Lab: its properties, OpenCV's recorded bytes, and the augmentation that draws it."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.color import rgb2lab

from iqa_data.augmentation import Augmentation, Lightness
from iqa_data.lab import lab_to_rgb, scale_lightness, to_lab

pixels = arrays(np.uint8, (3, 4, 3))


@given(pixels)
def test_lab_is_that_of_the_standard_within_three_levels(image):
    lightness, a, b = to_lab(image)
    exact = rgb2lab(image) * (2.55, 1, 1) + (0, 128, 128)
    np.testing.assert_allclose(np.stack([lightness, a, b], -1), exact, atol=3)


@given(st.integers(0, 255))
def test_greys_have_no_colour_and_come_back(level):
    grey = np.full((1, 1, 3), level, np.uint8)
    lightness, a, b = to_lab(grey)
    assert a.item() == b.item() == 128
    np.testing.assert_allclose(lab_to_rgb(lightness, a, b), grey, atol=1)


@given(pixels, st.floats(.3, 1.5), st.floats(.3, 1.5))
def test_more_of_the_factor_is_never_darker_and_never_wraps(image, one, other):
    dark, light = (to_lab(scale_lightness(image, factor))[0] for factor in sorted((one, other)))
    assert (light - dark >= -3).all()  # colours outside RGB are cut, which changes L a little


def test_factors_of_examples():
    def scaled(colour, factor):
        return scale_lightness(np.array([[colour]], np.uint8), factor)[0, 0].tolist()

    assert [scaled((128, 128, 128), factor) for factor in (.5, 1.5)] == [[63, 63, 63], [199, 199, 199]]
    assert [scaled((50, 100, 200), factor) for factor in (.5, 1, 1.5)] == [[0, 50, 139], [48, 101, 200],
                                                                             [122, 156, 255]]


def test_bytes_are_those_recorded_from_opencv(shared):
    recorded = np.load(shared / 'golden/systems/asna_tta.npz', allow_pickle=False)
    image = recorded['lab/bgr'][None, :, ::-1]
    np.testing.assert_array_equal(np.stack(to_lab(image), -1)[0], recorded['lab/lab'])
    for factor, scaled in zip(recorded['lab/scales'], recorded['lab/scaled'], strict=True):
        np.testing.assert_array_equal(scale_lightness(image, factor)[0, :, ::-1], scaled)


# Augmentation

@pytest.fixture
def pair() -> tuple[Image.Image, Image.Image]:
    return tuple(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)) for seed in (0, 1))


def test_a_pair_gets_one_factor(pair):
    same, other = Augmentation(('lightness',))(pair[0], pair[0])
    assert same.tobytes() == other.tobytes() != pair[0].tobytes()


def test_factors_fill_the_range():
    drawn = [Lightness().make_params([])['factor'] for _ in range(400)]
    assert .3 <= min(drawn) < .35
    assert 1.45 < max(drawn) <= 1.5


def test_lightness_p_is_the_share_of_images_that_change(pair):
    torch.manual_seed(0)
    augment = Augmentation(('lightness',), lightness_p=.5)
    changed = sum(augment(pair[0])[0].tobytes() != pair[0].tobytes() for _ in range(200))
    assert 70 < changed < 130
