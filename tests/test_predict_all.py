"""A folder of checkpoints, ours and published ones, in one command: a table of each, and their ensemble."""
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scored import photo, save_photos, saved

import test_demo
from iqa_data.transforms import resize_cubic
from iqa_networks.network import Network
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_scoring import predict_all
from IQAmodel import NETWORKS, Entry, create_model

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A fresh working directory with four images, and weight/ours.pth."""
    monkeypatch.chdir(tmp_path)
    save_photos(tmp_path / 'images', 4)
    saved(tmp_path / 'weight', architecture='mini')
    (tmp_path / 'weight' / 'checkpoint.pth').rename(tmp_path / 'weight' / 'ours.pth')


def publish(name: str, seed: int) -> Network:
    """Write a state dict as Lightning does; return the network."""
    torch.manual_seed(seed)
    network = create_model('maniqa_tiny', img_size=64).eval()
    state = {f'net.{key}': value for key, value in network.state_dict().items()}
    torch.save({'state_dict': state, 'epoch': 3, 'pytorch-lightning_version': '2.0'}, Path('weight', name))
    return network


def test_tables_of_the_challenge_and_their_ensemble(here, capsys, monkeypatch):
    monkeypatch.setitem(NETWORKS, 'maniqa_64', Entry(partial(NETWORKS['maniqa_tiny'].build, img_size=64), 'MANIQA'))
    networks = {f'64_fold{k}': publish(f'64_fold{k}.{suffix}', k) for k, suffix in enumerate(('ckpt', 'CKPT'))}
    predict_all.main(['--models', 'weight', '--img', 'images', '--device', 'cpu'])
    tables = {path.stem: pd.read_csv(path, keep_default_na=False, dtype={'img_name': str})
              for path in Path('result_csv').glob('*.csv')}
    assert sorted(tables) == ['64_fold0', '64_fold1', 'final', 'ours']
    for table in tables.values():
        assert list(table) == ['img_name', 'mos', 'comments']
        assert table['img_name'].tolist() == ['00', '01', '02', '03']
        assert table['mos'].between(0, 10).all()
    assert (tables['ours']['mos'] == 10).all()  # 20 to 80 on its own scale
    pixels = np.stack([resize_cubic(photo(i), 64) for i in range(4)])
    x = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - .5) / .5
    for stem, network in networks.items():
        with torch.no_grad():
            expected = 10 * network(x)[0][:, 0].numpy()
        np.testing.assert_allclose(tables[stem]['mos'], expected.clip(0, 10), atol=1e-4)
    out = capsys.readouterr().out
    assert '3 tables, 4 images, --how iqr: result_csv/final.csv' in out

    Path('result_csv/ours.csv').unlink()
    predict_all.main(['--models', 'weight', '--img', 'images', '--device', 'cpu', '--how', 'median'])
    assert capsys.readouterr().out.count(' exists\n') == 2


@pytest.mark.parametrize('change', ['weights', 'images', 'columns', 'no digest'])
def test_a_table_of_something_else_is_not_taken_for_this_one(here, fails, change):
    words = ['--models', 'weight', '--img', 'images', '--device', 'cpu']
    predict_all.main(words)
    table = Path('result_csv/ours.csv').read_bytes()
    if change == 'weights':
        content = load_checkpoint('weight/ours.pth')
        content['b'][0] += 1
        save_checkpoint('weight/ours.pth', content)
    elif change == 'images':
        Path('images/00.png').unlink()
    elif change == 'no digest':
        Path('result_csv/ours.csv.digest').unlink()
    more = ['--columns', 'full'] if change == 'columns' else []
    assert 'result_csv/ours.csv was made by another checkpoint' in fails(predict_all.main, *words, *more)
    assert Path('result_csv/ours.csv').read_bytes() == table
    Path('result_csv/ours.csv').unlink()
    predict_all.main([*words, *more])


def test_columns_of_the_challenge_from_test_demo(here, fails):
    words = ['--img', 'images', '--trained_model_file', 'weight/ours.pth', '--device', 'cpu', '--no-pbar', '--columns',
             'challenge']
    Path('images/00.png').rename('images/0.0.png')
    test_demo.main([*words, '--csv', 'out.csv', '--sort'])
    assert sorted(pd.read_csv('out.csv', dtype=str)['img_name']) == ['0.0', '01', '02', '03']
    assert pd.read_csv('out.csv')['comments'].unique().tolist() == ['Nice image']
    assert '--columns challenge needs --csv' in fails(test_demo.main, *words)


def test_mistakes(here, fails):
    words = ['--models', 'weight', '--img', 'images', '--device', 'cpu']
    assert 'give --models' in fails(predict_all.main, '--img', 'images')
    assert 'unrecognized arguments: -modelfile' in fails(predict_all.main, *words, '-modelfile', 'a.pth')
    assert '--models gone: No such file' in fails(predict_all.main, '--models', 'gone', '--img', 'images')
    assert '--models images: no checkpoints' in fails(predict_all.main, '--models', 'images', '--img', 'images')
    Path('images/bad.png').write_text('no image')
    assert '--img images/bad.png: ' in fails(predict_all.main, *words)
    assert not list(Path('result_csv').glob('*.csv'))
    torch.save({'a': torch.zeros(1)}, 'weight/100_fold0.pth')
    Path('images/bad.png').unlink()
    assert '100_fold0.pth: not a checkpoint of this project' in fails(predict_all.main, *words)
