"""Views at test time: the effect of every row of the table, and ASNA's recorded variants."""
import hashlib
import json
import sys

import numpy as np
import pytest

from iqa_scoring.views import VIEWS, scale_lightness, variants


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.mark.parametrize('views', VIEWS)
def test_views_are_8_bit_and_leave_the_image_alone(views):
    image = np.random.default_rng(0).integers(0, 256, (230, 260, 3), np.uint8)
    before = image.copy()
    made = variants(image, views)
    assert made
    assert all(view.dtype == np.uint8 and view.shape[2] == 3 for view in made)
    np.testing.assert_array_equal(image, before)


def test_none_is_the_image_itself(image):
    (view,) = variants(image, 'none')
    np.testing.assert_array_equal(view, image)


def test_asna_turns_flips_and_scales(image):
    views = variants(image)
    assert len(views) == 22
    np.testing.assert_array_equal(views[1], np.rot90(image))                # counter-clockwise
    np.testing.assert_array_equal(np.rot90(views[3]), image)
    np.testing.assert_array_equal(views[2], views[6])                       # half a turn is both flips
    np.testing.assert_array_equal(views[4], image[::-1])
    np.testing.assert_array_equal(views[5], image[:, ::-1])
    np.testing.assert_array_equal(views[9], scale_lightness(image, .3))
    np.testing.assert_array_equal(views[21], scale_lightness(image, 1.5))


def test_variants_are_those_recorded(shared, monkeypatch):
    recorded = np.load(shared / 'golden/systems/asna_tta.npz', allow_pickle=False)
    for made, kept in zip(variants(recorded['tta/small_in'][..., ::-1]), recorded['tta/small'], strict=True):
        np.testing.assert_array_equal(made[..., ::-1], kept)
    monkeypatch.syspath_prepend(str(shared / 'golden/systems'))
    from fill_systems import distorted, picture
    reference, seed = picture(int(recorded['tta/seed'][0]), 288, 288)[..., ::-1], int(recorded['tta/seed'][1])
    pair = reference, distorted(seed, reference)  # blue first, as recorded
    digests = [[hashlib.sha256(view[..., ::-1].tobytes()).hexdigest() for view in variants(image[..., ::-1])]
               for image in pair]
    assert [list(both) for both in zip(*digests, strict=True)] == json.loads(str(recorded['tta/sha256']))
    sys.modules.pop('fill_systems')
