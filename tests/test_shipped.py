"""The model that comes with the toolkit: when it scores, and what it is."""
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from scored import photo, saved
from skimage import data

import test_demo
from iqa_runtime.checkpoint import load_checkpoint
from iqa_scoring import shipped
from iqa_scoring.options import SCORE
from iqa_training.naming import checkpoint_file
from IQAmodel import load

WORDS = ['--device', 'cpu', '--img', 'photo.png']
SHIPPED = shipped.MODEL


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    """An empty folder with a photograph, and a small model in the place of the shipped one."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(0)).save('photo.png')
    monkeypatch.setattr(shipped, 'MODEL', tmp_path / saved(tmp_path))
    return tmp_path


def test_it_scores_if_no_model_is_named_and_says_so(here, capsys):
    score = test_demo.main(WORDS)
    assert score == pytest.approx(load(shipped.MODEL).score('photo.png'))
    assert 'the model that comes with the toolkit' in capsys.readouterr().err


@pytest.mark.parametrize('img', [['nothere.png'], ['shipped.txt'], ['.', '--recursive', '--ref', 'photo.png'],
                                 ['nothere.png', 'shipped.txt']])
def test_a_mistake_is_the_only_line(here, capsys, img):
    """No image is scored, and nothing is printed about the scores."""
    (here / 'shipped.txt').write_text('no image')
    with pytest.raises(SystemExit):
        test_demo.main(['--device', 'cpu', '--img', *img])
    out, err = capsys.readouterr()
    assert 'comes with the toolkit' not in err
    assert len(img) > 1 or err.count('\n') == 1
    assert 'percentile' not in out


@pytest.mark.parametrize('words', [['--trained_model_file', 'none.pth'], ['-arch', 'resnet18'], ['--dataset', 'demo'],
                                   ['--loss_type', 'mse']])
def test_whoever_describes_a_run_gets_no_other(here, capsys, words):
    with pytest.raises(SystemExit) as end:
        test_demo.main([*WORDS, *words])
    assert end.value.code == 2
    assert 'comes with the toolkit' not in capsys.readouterr().err


def test_ones_own_run_of_the_default_options_goes_first(here, capsys):
    own = here / 'checkpoints'
    own.mkdir()
    (own / checkpoint_file(SCORE.parse(WORDS)).name).write_bytes(shipped.MODEL.read_bytes())
    test_demo.main(WORDS)
    assert 'comes with the toolkit' not in capsys.readouterr().err


def test_without_it_the_error_is_that_of_a_missing_run(here, monkeypatch, capsys):
    monkeypatch.setattr(shipped, 'MODEL', here / 'none.pth')
    with pytest.raises(SystemExit):
        test_demo.main(WORDS)
    assert 'no checkpoint of a run with these options' in capsys.readouterr().err


def test_the_shipped_file(one_thread):
    """It is small, is what its description says, and ranks a photograph above a blurred copy."""
    assert SHIPPED.stat().st_size < 12e6
    assert SHIPPED.with_suffix('.md').is_file()
    checkpoint = load_checkpoint(SHIPPED)
    assert (checkpoint['dataset'], checkpoint['network']['name']) == ('AGIQA-3K', 'timm/tf_efficientnet_lite0')
    assert all(tensor.dtype == torch.float16 for tensor in checkpoint['model'].values() if tensor.ndim > 1)
    cat = Image.fromarray(data.chelsea())
    blurred = cat.resize((45, 30)).resize(cat.size)
    sharp, blurred = load(SHIPPED).score([cat, blurred])
    assert sharp > blurred


def test_the_shipped_file_ranks_images_as_people_do(shared, one_thread):
    """On some test images, whose prompts it has not seen, the correlation is near that of its card."""
    names = sorted(load_checkpoint(SHIPPED)['split']['test'])[::8]
    folder = shared / 'real' / 'AGIQA-3K'
    if not folder.is_dir():
        pytest.skip('needs ../shared/real, images that people rated')
    mos = pd.read_csv(folder / 'data.csv').set_index('name')['mos_quality']
    scores = load(SHIPPED).score([folder / 'images' / name for name in names])
    assert spearmanr(scores, mos[names])[0] > .7
