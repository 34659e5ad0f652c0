"""The demo data set: the same every time, split by content, with scores that follow the degradation."""
import numpy as np
import pytest
from numpy.random import RandomState
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.stats import spearmanr

from iqa_data import demo
from iqa_data.info import read_info
from iqa_data.splits import SplitPlan, choose
from iqa_runtime.errors import UserError
from iqa_runtime.names import PARTS

PER_SCENE, DRAWINGS, SIZE = 4, 5, (96, 72)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A small demo data set: its info file, and what that holds."""
    path = demo.make_demo(tmp_path_factory.mktemp('demo'), PER_SCENE, DRAWINGS, SIZE)
    return path, read_info(path)


@pytest.fixture(scope='module')
def crops():
    """Pristine crops, one of each scene of a small data set."""
    made = [draw(RandomState(i), demo.CANVAS) for i, (_, _, draw) in enumerate(demo.scenes(drawings=1))]
    return [demo.crop(scene, RandomState(i), SIZE) for i, scene in enumerate(made)]


def kinds(info):
    return np.array([name.split('-')[2] for name in info.names])


def test_layout(written):
    path, info = written
    images = path.parent / 'images'
    contents = len(demo.PHOTOGRAPHS) + DRAWINGS * len(demo.DRAWN)
    assert path.name == 'demo.csv'
    assert sorted(file.name for file in images.iterdir()) == sorted(info.names)
    assert len(set(info.names)) == len(info.names) == contents * PER_SCENE
    assert_array_equal(np.bincount(info.ref_ids)[1:], np.full(contents, PER_SCENE))
    for name in info.names[::7]:
        with Image.open(images / name) as image:
            assert (image.size, image.mode, image.format) == (SIZE, 'RGB', 'PNG')


def test_same_bytes_every_time(written, tmp_path):
    path, info = written
    np.random.seed(1)  # numpy's own generator is to make no difference
    again = demo.make_demo(tmp_path, PER_SCENE, DRAWINGS, SIZE)
    assert again.read_bytes() == path.read_bytes()
    for name in info.names:
        assert (tmp_path / 'images' / name).read_bytes() == (path.parent / 'images' / name).read_bytes(), name


def test_scores(written):
    _, info = written
    assert 0 <= info.mos.min() < 30
    assert 85 < info.mos.max() <= 100
    assert info.mos.std() > 15
    assert (info.std > 0).all()
    assert abs(info.std.mean() - demo.RATER_NOISE) < 1


def test_pristine_images_score_highest(written):
    _, info = written
    pristine = kinds(info) == 'pristine'
    assert pristine.sum() == len(set(info.ref_ids))
    assert info.mos[pristine].mean() > 85
    assert all(info.mos[kinds(info) == kind].mean() < 75 for kind in demo.DISTORTIONS)
    rest = np.array([info.mos[~pristine & (info.ref_ids == ref)].max() for ref in info.ref_ids[pristine]])
    assert (info.mos[pristine] > rest - 8).all()  # 8: the raters' noise


def test_every_distortion_is_there_and_scored_by_its_strength(written):
    _, info = written
    strengths = np.array([int(name.split('-')[3][:3]) for name in info.names])
    for kind in demo.DISTORTIONS:
        chosen = kinds(info) == kind
        assert chosen.sum() > 5, kind
        assert spearmanr(strengths[chosen], info.mos[chosen]).statistic < -.85, kind


@pytest.mark.parametrize('kind', demo.DISTORTIONS)
def test_a_stronger_distortion_scores_lower(crops, kind):
    distort = demo.DISTORTIONS[kind]
    means = []
    for strength in (0, .25, .5, .75, 1):
        images = [distort(crop, strength, RandomState(i)) for i, crop in enumerate(crops)]
        assert all(image.size == SIZE and image.mode == 'RGB' for image in images)
        means.append(np.mean([demo.true_score(*pair, strength) for pair in zip(crops, images, strict=True)]))
    assert demo.SCORES[1] > means[0]
    assert (np.diff(means) < -8).all(), means
    assert means[-1] < 35


def test_true_score_ends(crops):
    assert demo.true_score(crops[0], crops[0], 0) == pytest.approx(demo.SCORES[1])
    black, white = (Image.new('RGB', SIZE, colour) for colour in ('black', 'white'))
    assert demo.true_score(white, black, 1) == pytest.approx(demo.SCORES[0], abs=.1)


def test_raters_marks_stay_in_range():
    marks = np.array([demo.rate(score, RandomState(seed)) for seed in range(50) for score in (0, 50, 100)])
    assert (marks >= 0).all()
    assert (marks[:, 0] <= 100).all()
    assert marks[1::3, 0].mean() == pytest.approx(50, abs=1)
    assert marks[1::3, 1].mean() == pytest.approx(demo.RATER_NOISE, abs=1)


def test_no_content_is_shared_between_parts(written):
    _, info = written
    listed = np.array([kind for _, kind, _ in demo.scenes(DRAWINGS)])
    parts = {part: set(info.ref_ids[rows].tolist()) for part, rows in choose(info, SplitPlan()).items()}
    assert list(parts) == list(PARTS)
    assert sorted(ref for refs in parts.values() for ref in refs) == list(range(1, len(listed) + 1))
    assert len(parts['train']) == int(.6 * len(listed))
    for part, refs in parts.items():  # a share of every kind in every part
        assert set(listed[np.array(list(refs)) - 1]) == set(listed), part


def test_any_stretch_of_the_contents_has_its_share_of_every_kind():
    order = demo.order_of_contents(['a'] * 10 + ['b'] * 20)
    assert_array_equal(np.sort(order), np.arange(1, 31))
    assert abs(int((order[:18] <= 10).sum()) - 6) <= 1


def test_larger_images_show_the_same_scenes_and_distortions(written, tmp_path):
    _, info = written
    larger = read_info(demo.make_demo(tmp_path, PER_SCENE, 1, (192, 144)))
    same = [name for name in info.names if name.split('-')[0] in [scene for scene, *_ in demo.scenes(0)]]
    assert larger.names[:len(same)] == same
    with Image.open(tmp_path / 'images' / same[0]) as image:
        assert image.size == (192, 144)


def test_an_interrupted_writing_leaves_no_info_file(written, tmp_path, monkeypatch):
    path = tmp_path / 'demo.csv'
    path.write_bytes(written[0].read_bytes())

    def interrupt(image, strength, rng):
        raise KeyboardInterrupt

    for kind in demo.DISTORTIONS:
        monkeypatch.setitem(demo.DISTORTIONS, kind, interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.make_demo(tmp_path, PER_SCENE, DRAWINGS, SIZE)
    assert not path.exists()
    assert len(list((tmp_path / 'images').iterdir())) == 1


def test_main_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    make = demo.make_demo
    monkeypatch.setattr(demo, 'make_demo', lambda out, drawings, size: make(out, 2, drawings, size))
    demo.main(['--out', str(tmp_path), '--drawings', '5', '--size', '96', '72'])
    contents = len(demo.PHOTOGRAPHS) + 5 * len(demo.DRAWN)
    out, err = capsys.readouterr()
    first, *parts = out.splitlines()
    assert first == f'{tmp_path}/demo.csv: {2 * contents} images of {contents} contents, 96x72'
    assert not err  # no progress bar in a pipe
    assert [line.split(':')[0].strip() for line in parts] == ['train', 'val', 'test']
    assert all(' MOS ' in line for line in parts)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UserError, match=r'cannot write .*demo\.csv: Not a directory'):
        demo.make_demo(tmp_path / 'file', PER_SCENE, DRAWINGS)


def test_missing_photograph_and_codec(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'cannot read .*no-such\.png.*expected it in the installed scikit-image'):
        demo.photograph('no-such.png')
    monkeypatch.setattr(demo.features, 'check', lambda name: False)
    with pytest.raises(UserError, match='JPEG 2000'):
        demo.make_demo(tmp_path)
    assert not list(tmp_path.iterdir())
