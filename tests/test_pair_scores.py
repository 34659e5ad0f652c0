"""Scores of pairs from Python and from files: any kind of image, differentiable, and mistakes."""
import numpy as np
import pytest
import torch
from pairs import TinyPairs, random_pair
from PIL import Image

from iqa_data.transforms import Preprocess
from iqa_scoring.scorer import Scorer
from iqa_scoring.stream import Reader, difference_image, score_files


@pytest.fixture
def scorer() -> Scorer:
    torch.manual_seed(0)
    network = TinyPairs()
    with torch.no_grad():
        network.linear.weight.fill_(-1.)
    return Scorer(network, {'k': [100.], 'b': [90.]})


@pytest.fixture
def pair() -> list[np.ndarray]:
    return [(image[0].permute(1, 2, 0) * 255).byte().numpy() for image in random_pair()]


def test_every_kind_of_pair_has_the_same_score(scorer, pair, tmp_path):
    reference, distorted = pair
    paths = [tmp_path / name for name in ('r.png', 'd.png')]
    for path, pixels in zip(paths, pair, strict=True):
        Image.fromarray(pixels).save(path)
    score = scorer.score(distorted, reference)
    assert score < scorer.score(distorted, distorted)
    assert scorer.score(paths[1], paths[0]) == score
    assert scorer.score(Image.fromarray(distorted), Image.fromarray(reference)) == score
    np.testing.assert_array_equal(scorer.score([distorted, reference], [reference, reference]),
                                  [score, scorer.score(reference, reference)])
    np.testing.assert_array_equal(scorer.score(distorted[None], reference[None]), [score])
    tensors = [torch.from_numpy(pixels).permute(2, 0, 1) / 255 for pixels in (distorted, reference)]
    assert scorer.score(*tensors).item() == pytest.approx(score, rel=1e-5)


def test_the_gradient_reaches_both_images(scorer):
    scorer.network.double()
    images = [image[:, :, :3, :3].double().requires_grad_() for image in random_pair()]
    assert torch.autograd.gradcheck(lambda reference, image: scorer.score(image, reference, as_loss=True), images)


def test_mistakes_are_named(scorer, pair):
    with pytest.raises(TypeError, match=r'compares an image with its reference: score\(image, reference\)'):
        scorer.score(pair[1])
    with pytest.raises(TypeError, match='of another kind or number'):
        scorer.score(pair[1], [pair[0]])
    with pytest.raises(TypeError, match='of another kind or number'):
        scorer.score([pair[1], pair[1]], [pair[0]])
    with pytest.raises(ValueError, match='the reference has 24x19 pixels, the distorted image 24x20'):
        scorer.score(pair[1], pair[0][1:])


def test_differences_of_all_pairs_are_drawn_on_one_scale():
    grey = [Image.new('RGB', (8, 8), (level,) * 3) for level in (100, 99, 110, 120, 164, 255)]
    levels = [difference_image(grey[0], image).getpixel((0, 0)) for image in grey]
    assert levels[0] == 0 < levels[1] < levels[2]
    assert levels[3] == pytest.approx(2 * levels[2], abs=1)
    assert levels[4:] == [255, 255]


def test_files_are_read_in_pairs(scorer, pair, tmp_path):
    for name, pixels in zip(('r', 'd'), pair, strict=True):
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    Image.fromarray(pair[0][1:]).save(tmp_path / 'small.png')
    (tmp_path / 'text.png').write_text('text')
    items = [(str(tmp_path / reference), str(tmp_path / 'd.png'))
             for reference in ('r.png', 'd.png', 'small.png', 'text.png', 'none.png')]
    samples = list(score_files(scorer, items, Reader(Preprocess(), thumbnail=16), batch_size=2))
    assert samples[0].score == scorer.score(pair[1], pair[0])
    assert samples[1].score == scorer.score(pair[1], pair[1])
    assert samples[0].reference_thumbnail != samples[0].thumbnail
    assert samples[0].difference_thumbnail
    for sample, error in zip(samples[2:], ('small.png: 24x19 pixels, the image has 24x20', 'text.png: ', 'none.png: '),
                             strict=True):
        assert f'its reference {tmp_path}/{error}' in sample.error
        assert sample.score is None
