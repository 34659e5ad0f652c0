"""Quality maps: flat where the image is, lower where it is degraded, and drawn on the MOS scale."""
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from scored import photo, random_checkpoint

import test_demo
from iqa_data.demo import DISTORTIONS, DRAWN
from iqa_networks.network import Network
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.errors import UserError
from iqa_scoring.mapping import Scale
from iqa_scoring.maps import colours, quality_maps, small_map, write_map, write_picture
from iqa_scoring.scorer import Scorer
from IQAloss import IQALoss
from IQAmodel import SPSP, IQAModel, load
from IQAperformance import fit_line

SCALE = Scale(np.array([10., 90]), 10, 90, True)
WIDTH, HEIGHT = 256, 192
LEARNT = ('blur', 'noise', 'resample')


def uniform(size, value=128):
    return torch.full((1, 3, *size), value, dtype=torch.uint8)


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize('network', [{}, {'pool': 'mean_std', 'P6': 3, 'P7': 2}, {'use_bn_end': True, 'pool': 'max'},
                                     {'architecture': 'alexnet'},
                                     pytest.param({'architecture': 'resnet50'}, marks=pytest.mark.slow)])
def test_the_map_of_a_uniform_image_is_flat(network, one_thread):
    scorer = load(random_checkpoint(resize=None, **network))
    for size in ((160, 200), (96, 131)):
        for window in (1, 3):
            grid = quality_maps(scorer, uniform(size), window)
            assert np.ptp(grid) < 1e-2  # MOS units, on a scale where photos differ by tens


def test_shapes_and_windows(one_thread):
    scorer = load(random_checkpoint(resize=None))
    images = torch.stack([pixels(photo(i, (100, 160))) for i in range(3)])
    grids = quality_maps(scorer, images)
    assert grids.shape == (3, 4, 5)
    np.testing.assert_allclose(grids[1:2], quality_maps(scorer, images[1:2]), atol=1e-3)
    whole = quality_maps(scorer, images, window=99)  # never larger than the map: all windows are the image
    assert np.ptp(whole, (1, 2)).max() < 1e-3


def test_threads_score_and_draw_maps_at_once(one_thread):
    scorer = load(random_checkpoint(resize=None))
    images = [pixels(photo(i, (64, 96)))[None] for i in range(4)]

    def alone(i):
        return scorer.measure(images[i])[0][0], quality_maps(scorer, images[i])
    expected = [alone(i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(alone, [i % 4 for i in range(16)]))
    for i, (score, grid) in enumerate(found):
        assert score == expected[i % 4][0]
        np.testing.assert_array_equal(grid, expected[i % 4][1])
    assert {layer.padding_mode for layer in scorer.network.modules() if isinstance(layer, torch.nn.Conv2d)} == {'zeros'}


def test_a_window_is_pooled_as_an_image_is(one_thread):
    model = IQAModel('resnet18', P6=2).eval()
    x = NORMALISATIONS['imagenet'](pixels(photo(0, (96, 128)))[None])
    with torch.inference_mode():
        grid = model.local(x, window=2)
        for layer in model.features.modules():
            if isinstance(layer, torch.nn.Conv2d):
                assert layer.padding_mode == 'zeros'  # as before
                layer.padding_mode = 'replicate'
        level6, level7 = model.features(x)
        expected = model.regress(SPSP(level6[:, :, 2:6, 4:8], 2), SPSP(level7[:, :, 1:3, 2:4]))[-1]
    assert grid.shape == (1, 3, 4)
    torch.testing.assert_close(grid[0, 2, 3], expected[0, 0], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope='module')
def demo_scorer():
    """A model of the demo's scenes and distortions, trained for some seconds; and scenes that it has not seen."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.RandomState(0)
    scenes = [draw(np.random.RandomState([i, j])).resize((WIDTH, HEIGHT)) for i, draw in enumerate(DRAWN.values())
              for j in range(7)]
    unseen, seen = scenes[::7], [scene for i, scene in enumerate(scenes) if i % 7]

    def batch(n, side=64):
        images, scores = [], []
        for _ in range(n):
            left, top = rng.randint(WIDTH - side + 1), rng.randint(HEIGHT - side + 1)
            image = seen[rng.randint(len(seen))].crop((left, top, left + side, top + side))
            strength = max(0, rng.uniform(-.3, 1))
            if strength:
                image = DISTORTIONS[LEARNT[rng.randint(len(LEARNT))]](image, strength, rng)
            images.append(pixels(image))
            scores.append(90 - 80 * strength)
        return NORMALISATIONS['imagenet'](torch.stack(images)), torch.tensor(scores)[:, None]

    model, loss, steps = IQAModel('resnet18').train(), IQALoss(), 40
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        images, scores = batch(16)
        optimizer.zero_grad()
        loss(model(images), (scores, scores)).backward()
        optimizer.step()
        scheduler.step()
    images, scores = batch(48)
    with torch.inference_mode():
        k, b = fit_line(model.eval()(images)[-1][:, 0].double().numpy(), scores[:, 0].double().numpy())
    yield Scorer(model, {'k': [k], 'b': [b], 'mos': {'values': scores[:, 0], 'min': 10., 'max': 90.,
                                                     'higher_is_better': True}}), unseen
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize('kind', LEARNT)
def test_the_map_is_lower_in_the_half_that_is_degraded(demo_scorer, kind):
    scorer, scenes = demo_scorer
    half = WIDTH // 2
    for i, scene in enumerate(scenes):
        degraded = DISTORTIONS[kind](scene, .8, np.random.RandomState(i))
        for box in ((0, 0, half, HEIGHT), (half, 0, WIDTH, HEIGHT)):
            mixed = scene.copy()
            mixed.paste(degraded.crop(box), box)
            (grid,) = quality_maps(scorer, pixels(mixed)[None])
            left, right = grid[:, :4].mean(), grid[:, 4:].mean()
            bad, good = (left, right) if box[0] == 0 else (right, left)
            assert good - bad > 5


@pytest.mark.slow
def test_flat_on_a_trained_model_too(demo_scorer):
    for value in (0, 128, 255):
        assert np.ptp(quality_maps(demo_scorer[0], uniform((160, 192), value))) < 1e-2


def test_a_network_without_levels():
    class Other(Network):
        pass
    with pytest.raises(UserError, match='Other has no local features'):
        quality_maps(Scorer(Other(), {'k': [1], 'b': [0]}), uniform((64, 64)))


def test_colours_are_the_mos_scale():
    grid = np.array([[-50., 10], [90, 50]])
    norm, colormap = colours(SCALE, grid)
    assert (norm.vmin, norm.vmax, colormap.name) == (10, 90, 'RdYlBu')
    assert colours(Scale(SCALE.values, 10, 90, False), grid)[1].name == 'RdYlBu_r'
    norm, _ = colours(Scale(np.empty(0)), grid)
    assert (norm.vmin, norm.vmax) == (-50, 90)
    small = np.asarray(Image.open(io.BytesIO(small_map(grid, SCALE))))
    assert small.shape == (2, 2, 3)
    assert (small[0, 0] == small[0, 1]).all()  # below the scale is its end
    assert small[0, 1, 0] > small[0, 1, 2]  # bad is red
    assert small[1, 0, 2] > small[1, 0, 0]  # good is blue


def test_the_map_lies_over_the_image(tmp_path):
    image = np.full((120, 160, 3), 200, np.uint8)
    grid = np.repeat(np.array([[10., 10, 90, 90]]), 3, 0)
    write_map(tmp_path / 'map.png', image, grid, SCALE, 'a$b')
    drawn = np.asarray(Image.open(tmp_path / 'map.png').convert('RGB')).astype(int)
    left, right = drawn[300, 100], drawn[300, 550]
    assert left[0] - left[2] > 40  # red over grey
    assert right[2] - right[0] > 40  # blue over grey


def test_the_map_has_the_proportions_of_the_file(tmp_path):
    image, grid = np.full((96, 96, 3), 200, np.uint8), np.full((3, 3), 50.)
    heights = {}
    for shown in ((96, 96), (48, 96), None):
        write_map(tmp_path / 'map.png', image, grid, SCALE, shown=shown)
        heights[shown] = Image.open(tmp_path / 'map.png').height
    assert heights[48, 96] < .6 * heights[96, 96]
    assert heights[None] == heights[96, 96]


@pytest.mark.parametrize('size', [(20000, 10), (10, 20000), (1, 1), (30000, 1), (2000, 3000)])
def test_pictures_do_not_grow_with_the_image(size, tmp_path):
    image = np.full((*size, 3), 200, np.uint8)
    image[size[0] // 2:] = 40
    grid = np.repeat(np.linspace(10, 90, max(1, size[0] // 32))[:, None], max(1, size[1] // 32), 1)
    write_map(tmp_path / 'map.png', image, grid, SCALE)
    write_picture(tmp_path / 'picture.png', (pixels(image),), 50, SCALE)
    for name, most in (('map.png', (800, 2620)), ('picture.png', (400, 900))):
        drawn = Image.open(tmp_path / name).convert('L')
        assert drawn.width <= most[0]
        assert drawn.height <= most[1]
        assert (np.asarray(drawn) == 255).mean() < .9  # the image is no line


def test_maps_from_the_command_line(scored, tmp_path, capsys):
    images = [f'images/{i:02d}.png' for i in range(4)]
    test_demo.main(['--img', *images, *scored, '--map', 'maps', '--csv', 'out.csv', '--map_window', '1'])
    written = sorted((tmp_path / 'maps').iterdir())
    assert len(written) == 4
    assert all(path.name in (tmp_path / 'out.csv').read_text() for path in written)
    assert Image.open(written[0]).size[0] == 800
    test_demo.main(['--img', 'images/00.png', *scored, '--map', 'maps'])
    assert f'Quality map: maps/{written[0].name}' in capsys.readouterr().out
