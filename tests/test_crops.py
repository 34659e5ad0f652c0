"""Crops: their places, the outputs of a network for each, and maps that are made of them."""
import json

import numpy as np
import pytest
import torch
from golden import filling, recorded
from hypothesis import given
from hypothesis import strategies as st

from iqa_data.crops import PLACES, Crops, even_crops
from iqa_data.transforms import grid_crops
from iqa_runtime.errors import UserError

SIDES = st.integers(8, 60)


def means(crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A network of two heads: the mean and the largest pixel of each crop."""
    return crops.double().mean((1, 2, 3))[:, None], crops.double().amax((1, 2, 3))[:, None]


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.RandomState(seed)
    return torch.tensor(rng.randint(0, 256, (3, height, width)), dtype=torch.uint8)


@given(SIDES, SIDES, st.sampled_from([*PLACES]), st.sampled_from([1, 4, 9, 25]), st.integers(1, 8), st.integers(1, 8))
def test_places_lie_inside(h, w, places, count, height, width):
    found = Crops(count, (height, width), places).of(picture(h, w))
    assert len(found) == count
    assert all(0 <= top <= h - height and 0 <= left <= w - width for top, left in found)


@given(SIDES, SIDES, st.integers(2, 30), st.integers(1, 8))
def test_the_grid_reaches_all_edges(h, w, count, side):
    found = even_crops(h, w, side, count)
    assert len(found) == count
    prime = all(count % i for i in range(2, count))
    tops, lefts = {top for top, _ in found}, {left for _, left in found}
    if not prime:
        assert {0, h - side} <= tops
        assert {0, w - side} <= lefts
    longer, room = (lefts, w - side) if h <= w else (tops, h - side)
    assert {0, room} <= longer


def test_one_crop_is_the_middle():
    assert even_crops(10, 21, (4, 5), 1) == [(3, 8)]


def test_five_rows_of_five_as_written_down():
    assert even_crops(384, 512, 224, 25)[::6] == [(0, 0), (40, 72), (80, 144), (120, 216), (160, 288)]
    assert grid_crops(384, 512, 224, 25) == [(i * 32, j * 57) for i in range(5) for j in range(5)]
    assert grid_crops(224, 224, 224, 25) == [(0, 0)] * 25


def test_random_places_follow_from_the_content_alone():
    image, other = picture(40, 50), picture(40, 50, seed=1)
    crops = Crops(20, (8, 9), 'random')
    assert crops.of(image) == crops.of(image.clone(memory_format=torch.contiguous_format))
    assert crops.of(image) == crops.of(image.float() / 255)
    assert crops.of(image) != crops.of(other)
    assert len(set(crops.of(image))) > 15


def test_scores_by_crops_against_a_loop():
    images = torch.stack([picture(20, 30, seed) for seed in range(3)])
    crops = Crops(6, (8, 11))
    mean, most = crops(means, images)
    assert mean.shape == most.shape == (3, 6)
    for n in range(3):
        for k, (top, left) in enumerate(even_crops(20, 30, (8, 11), 6)):
            cut = images[n].numpy()[:, top:top + 8, left:left + 11]
            assert mean[n, k] == pytest.approx(cut.mean(), rel=1e-12)
            assert most[n, k] == cut.max()


def test_both_images_of_a_pair_are_cut_at_the_same_places_of_the_distorted_one():
    reference, distorted = picture(20, 30), picture(20, 30, seed=1)

    def difference(first, second):
        return means(second.double() - first)
    crops = Crops(5, (8, 8), 'random')
    found = crops(difference, reference[None], distorted[None])[0][0]
    for value, (top, left) in zip(found, crops.of(distorted), strict=True):
        first, second = (one[:, top:top + 8, left:left + 8].double().mean() for one in (reference, distorted))
        assert float(value) == pytest.approx(float(second - first))


def test_a_batch_never_holds_more_than_a_hundred_crops():
    sizes = []

    def network(crops):
        sizes.append(len(crops))
        return means(crops)
    outputs = Crops(250, (4, 4), 'random')(network, torch.stack([picture(9, 9)] * 2))
    assert sizes == [100, 100, 50] * 2
    assert outputs[0].shape == (2, 250)
    assert torch.equal(outputs[0][0], outputs[0][1])


def test_crops_as_one_batch_are_the_same_ones():
    images = torch.stack([picture(20, 30, seed) for seed in range(3)])
    crops = Crops(9, (8, 11), 'toolbox')
    torch.testing.assert_close(means(crops.stacked(images))[0].view(3, 9), crops(means, images)[0])


def test_a_map_of_crops_is_of_its_own_scores_and_lies_where_they_do():
    image = torch.zeros(1, 3, 96, 160, dtype=torch.uint8)
    image[:, :, :, 96:] = 200
    crops = Crops(4, (32, 32))
    found = crops.local(means, image, head=0)[0]
    assert found.shape == (3, 5)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 200
    assert (found[:, :2] == 0).all()
    assert (found[:, 4] > 190).all()
    constant = torch.full((2, 3, 50, 70), 9, dtype=torch.uint8)
    torch.testing.assert_close(crops.local(means, constant, head=0), torch.full((2, 1, 2), 9., dtype=torch.float64))


# Mistakes

def test_an_image_that_is_smaller_than_a_crop_is_refused():
    with pytest.raises(UserError, match='30x20 pixels have no crops of 8x21: --enlarge'):
        Crops(4, (21, 8))(means, torch.stack([picture(20, 30)]))


@pytest.mark.parametrize(('count', 'places', 'message'), [
    (24, 'toolbox', '--test_crops 24: --crop_places toolbox needs a square number, as 25'),
    (25, 'gird', 'unknown places of crops .gird. .did you mean grid'),
])
def test_places_that_there_are_not(count, places, message):
    with pytest.raises(UserError, match=message):
        Crops(count, (224, 224), places)


# The recorded numbers

@pytest.mark.slow
def test_the_toolbox_scores_25_crops_as_recorded(shared):
    from IQAmodel import create_model
    made, numbers = filling(shared), recorded(shared, 'hyperiqa')
    case = json.loads(str(numbers['crops/case']))
    network = made.fill(create_model('hyperiqa').double(), case['salt'], case['gain']).eval()
    image = torch.tensor(made.picture(case['seed'], case['h'], case['w'])).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1).double() for v in ((.485, .456, .406), (.229, .224, .225)))
    with torch.no_grad():
        each = Crops(25, (224, 224), 'toolbox')(lambda crops: network((crops - mean) / std), image)[0]
    np.testing.assert_allclose(each[0].numpy(), numbers['crops/each'], rtol=0, atol=1e-7)
    assert float(each.mean()) == pytest.approx(float(numbers['crops/mean']), abs=1e-7)
