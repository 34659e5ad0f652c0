"""Published models: they score as their checkpoint does, run nothing, and are refused if anything in them is wrong."""
import fnmatch
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from PIL import Image
from safetensors.torch import load_file, save_file
from scored import photo, save_photos

import hubconf
import IQAmodel
import main
import test_dataset
import test_demo
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.files import sha256
from iqa_runtime.hub import parts_of
from iqa_runtime.published import CONFIG, HASH, WEIGHTS
from iqa_runtime.split_file import split_hash
from iqa_scoring import publish
from iqa_scoring.scorer import load_scorer
from iqa_studies import check
from iqa_training.naming import run_name

pytestmark = pytest.mark.usefixtures('one_thread')
SPLIT = {'train': ['00.png', '01.png'], 'val': ['a/02.png'], 'test': ['=03.png']}
NETWORKS = {'mini': {'pool': 'maxmin', 'P7': 2}, 'cnniqa': {}, 'svd_cnniqa_conv': {},
            'hyperiqa': {'backbone': 'timm/test_resnet.r160_in1k'}, 'maniqa_tiny': {'img_size': 64},
            'asna_simple_a': {'img_size': 48}}


def checkpoint_of(name: str = 'mini', half: bool = False, **options) -> dict:
    """A checkpoint of a random network of that name, with all that a training run writes."""
    network = IQAmodel.create_model(name, **options)
    count, state = len(network.heads), network.state_dict()
    state = {key: value.half() if half and value.ndim > 1 else value for key, value in state.items()}
    side = network.side or 48
    return {'model': state, 'network': {'name': name, 'options': options}, 'head': count - 1,
            'input': {'preprocessing': {'resize': (side, side), 'filter': 'cubic'}, 'normalise': network.normalise},
            'k': [1 / 3] * count, 'b': [50.1] * count, 'target': {'shift': 0., 'scale': 1.}, 'split': SPLIT,
            'split_hash': split_hash(SPLIT), 'dataset': 'mine', 'epoch': 3, 'finished': True,
            'options': {'architecture': name, 'epochs': 3, 'dataset': '/home/me/mine.csv', 'weights': '/home/me/w.pth'},
            'mos': {'values': torch.tensor([1.1, 2.7, 99.3]), 'min': 1.1, 'max': 99.3, 'higher_is_better': True},
            'metrics': {'val': {'SROCC': .5, 'RMSE': 3.}, 'test': {'SROCC': .4, 'PLCC': float('nan'), 'RMSE': 4.}},
            'intervals': {'test': {'SROCC': [.1, .6]}}}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A fresh working directory with photo.png and the checkpoint c.pth of a small network."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(0)).save('photo.png')
    save_checkpoint('c.pth', checkpoint_of())
    return tmp_path


@pytest.fixture
def model(here) -> Path:
    """The folder of the published c.pth."""
    publish.main(['c.pth', '--to', 'model'])
    return here / 'model'


def with_config(folder: Path, change) -> None:
    """Replace the content of a config.json by what `change` returns of it; None: by the content, changed in place."""
    config = json.loads((folder / CONFIG).read_text())
    new = change(config)
    (folder / CONFIG).write_text(json.dumps(config if new is None else new))


def with_weights(folder: Path, change) -> None:
    """Change the tensors of a model.safetensors as `with_config`, and the hash in the config with them."""
    state = load_file(folder / WEIGHTS)
    new = change(state)
    save_file(state if new is None else new, folder / WEIGHTS)
    with_config(folder, lambda config: config.update({HASH: sha256(folder / WEIGHTS).hex()}))


def without(name: str):
    """A change that leaves an item out."""
    return lambda items: {key: value for key, value in items.items() if key != name}


@pytest.mark.parametrize(('name', 'half'), [('mini', True), *((name, False) for name in NETWORKS)])
def test_every_network_scores_as_its_checkpoint(here, name, half):
    save_checkpoint('net.pth', checkpoint_of(name, half, **NETWORKS[name]))
    assert publish.main(['net.pth', '--to', 'out/net']) == 'out/net'
    one, other = load_checkpoint('net.pth'), load_checkpoint('out/net')
    assert one['model'].keys() == other['model'].keys()
    for key, tensor in one['model'].items():
        assert tensor.dtype == other['model'][key].dtype
        assert torch.equal(tensor, other['model'][key])
    images = [photo(i) for i in range(2)]
    scorer = IQAmodel.load('net.pth')
    pair = images[:scorer.inputs]
    assert hubconf.linearity_iqa(here / 'out' / 'net').score(*pair) == scorer.score(*pair)
    assert 'score(\'photo.jpg\'' + ", 'reference.jpg'" * (len(pair) - 1) + ')' in Path('out/net/README.md').read_text()


def test_all_that_a_checkpoint_says_is_published_but_folders(model):
    one, other = load_checkpoint('c.pth'), load_checkpoint(model)
    assert torch.equal(one.pop('mos')['values'], other.pop('mos')['values'])
    assert one.pop('model').keys() == other.pop('model').keys()
    assert one.pop('options') == {**other.pop('options'), 'dataset': '/home/me/mine.csv', 'weights': '/home/me/w.pth'}
    assert np.isnan(one['metrics']['test'].pop('PLCC'))
    assert other['metrics']['test'].pop('PLCC') is None
    assert one == other
    for file in model.iterdir():
        assert b'/home' not in file.read_bytes()
    assert all(file.stat().st_mode == (model / CONFIG).stat().st_mode for file in model.iterdir())


def test_several_data_sets_keep_their_lines_and_splits(here):
    one = checkpoint_of()
    other = {'k': [2.] * 3, 'b': [-1.] * 3, 'mos': {**one['mos'], 'values': torch.ones(2), 'min': 1., 'max': 1.},
             'metrics': {'test': {'RMSE': 1.}}, 'split': {'train': ['00.png'], 'test': ['b/01.png']}}
    sets = {'mine': {key: one[key] for key in ('k', 'b', 'mos', 'metrics', 'split')}, 'the other/one': other}
    save_checkpoint('two.pth', {**one, 'sets': sets, 'dataset': 'mine+the other/one'})
    publish.main(['two.pth', '--to', 'two'])
    found, expected = load_checkpoint('two'), load_checkpoint('two.pth')
    assert found['split'] == found['sets']['mine']['split'] == SPLIT
    assert found['sets']['the other/one']['split'] == other['split']
    for name in sets:
        assert found['sets'][name]['mos'].pop('values').tolist() == expected['sets'][name]['mos'].pop('values').tolist()
        assert found['sets'][name]['mos'] == expected['sets'][name]['mos']
        lines = [IQAmodel.load(path, line_of=name).score('photo.png') for path in ('two', 'two.pth')]
        assert lines[0] == lines[1]


def test_it_is_taken_wherever_a_checkpoint_is(model, capsys):
    words = ['--img', 'photo.png', '--device', 'cpu', '--no-pbar', '--num_workers', '0', '--csv']
    score = test_demo.main([*words, 'a.csv', '--trained_model_file', 'c.pth'])
    assert test_demo.main([*words, 'b.csv', '--trained_model_file', 'model']) == score
    rows = [pd.read_csv(file).drop(columns=['model', 'digest']) for file in ('a.csv', 'b.csv')]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    assert test_demo.main([*words, 'd.csv', '--trained_model_file', 'model', 'c.pth']) == pytest.approx(score)
    capsys.readouterr()
    test_demo.main(['--about', 'model'])
    assert capsys.readouterr().out.startswith('# Model card: `model`')


def test_it_is_where_training_begins(model, tmp_path, capsys):
    args = main.TRAIN.parse([*MINI, '--pretrained', 'model', '--device', 'cpu'])
    state = IQAmodel.build_model(args).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_checkpoint('c.pth')['model'].items())


# Predictions, and the check of the card

@pytest.fixture
def trained(tiny, capsys) -> Path:
    """A trained network with all its files, published in the folder `model`."""
    main.main([*tiny, *SMALL, *MINI, '-e', '1', '--name', 'run', '--test_crops', '2', '--crop_size_h', '48',
               '--crop_size_w', '48'])
    publish.main(['run', '--to', 'model', '--license', 'mit'])
    assert capsys.readouterr().err == ''
    return Path('model')


def test_the_card_is_checked_by_its_predictions(trained, capsys):
    names = {path.name for path in trained.iterdir()}
    assert names == {WEIGHTS, CONFIG, 'split.csv', 'README.md', 'recipe.txt', 'predictions.csv'}
    check.main(['model'])
    assert capsys.readouterr().out.count('holds') == 2
    shutil.move('runs', 'elsewhere')  # the folder is complete
    (run,) = Path('checkpoints').glob('*.pth')
    recipe = ['--recipe', 'model/recipe.txt', '--name', 'run']
    assert run_name(main.TRAIN.parse(recipe)) == run.stem
    assert test_dataset.main(['-modelfile', 'model', '--device', 'cpu', '--no-pbar', '--num_workers', '0', '--im_dir',
                              'tiny/images', '--data_info', 'tiny/info.mat']).srocc == pytest.approx(
        load_checkpoint('model')['metrics']['test']['SROCC'])


def changed(path: str, old: str, new: str) -> None:
    """Replace a text that a file must hold."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def test_every_wrong_number_is_found(trained, capsys):
    content = load_checkpoint(trained)
    rmse, (low, _) = content['metrics']['test']['RMSE'], content['intervals']['test']['RMSE']
    row = Path('model/predictions.csv').read_text().splitlines()[1]
    mos = row.split(',')[1]
    shown = next(line for line in Path('model/README.md').read_text().splitlines() if re.match(r'\|[^|]*test \|', line))
    for file, old, new, found in (
            (CONFIG, f'"RMSE": {rmse!r}', f'"RMSE": {rmse + 1e-6!r}', 'RMSE is'),
            (CONFIG, f'"RMSE": [{low!r}', f'"RMSE": [{low - 1e-6!r}', 'the interval of RMSE'),
            (CONFIG, content['split_hash'], '0' * 16, 'the split has the hash'),
            ('predictions.csv', mos, f'{float(mos) + 1}', 'by the predictions'),
            ('predictions.csv', row + '\n', '', 'the tested images are not'),
            ('README.md', f'value: {round(rmse, 4)}', f'value: {round(rmse + .001, 4)}', 'in the description'),
            ('README.md', shown, shown.replace('.', '.9', 1), 'the table lacks the row')):
        shutil.copytree('model', 'changed')
        changed(f'changed/{file}', old, new)
        with pytest.raises(SystemExit) as end:
            check.main(['changed'])
        assert end.value.code == 1
        assert found in (text := capsys.readouterr().out), text
        shutil.rmtree('changed')


@pytest.mark.parametrize('description', ['', '---\n- a\n---\n', '---\nmodel-index: 3\n---\n', '---\n',
                                         '---\na: [\n---\n', '---\nmodel-index: [{results: [{metrics: [3]}]}]\n---\n'])
def test_a_readme_of_another_form_is_named(model, description, fails):
    (model / 'README.md').write_text(description)
    assert 'README.md' in fails(check.main, 'model')


def test_predictions_of_other_weights_are_left_out(trained, capsys):
    (table,) = Path('results').glob('run-*.csv')
    lines = table.read_text().splitlines()
    table.write_text('\n'.join(lines[:-1]) + '\n')
    publish.main(['run', '--to', 'other'])
    assert 'is of other weights' in capsys.readouterr().err
    assert not Path('other/predictions.csv').exists()
    table.unlink()
    publish.main(['run', '--to', 'other', '--overwrite'])
    assert 'not found; python test_dataset.py writes it' in capsys.readouterr().err
    check.main(['other'])
    assert 'published without predictions' in capsys.readouterr().out


def test_the_hub_understands_the_card(trained):
    card = pytest.importorskip('huggingface_hub').ModelCard.load('model/README.md')
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    metrics = load_checkpoint(trained)['metrics']['test']
    assert found == {name: pytest.approx(abs(metrics[name]) if name != 'RMSE' else metrics[name], abs=5e-5)
                     for name in found}
    assert {'SROCC', 'PLCC', 'RMSE', 'KROCC'} == set(found)
    assert card.data.license == 'mit'
    assert card.data.datasets == ['demo']
    assert 'image-quality-assessment' in card.data.tags


# Folders that are refused

@pytest.mark.parametrize(('change', 'message'), [
    (lambda folder: (folder / CONFIG).unlink(), 'model: no config.json in it; expected a folder that linearity-iqa'),
    (lambda folder: (folder / WEIGHTS).rename(folder / 'model.pth'), 'model: no model.safetensors in it'),
    (lambda folder: with_config(folder, lambda config: {'format': 3}), 'newer version .format 3, this one reads 2'),
    (lambda folder: with_config(folder, without('network')), 'lacks the network or the input'),
    (lambda folder: with_config(folder, without('input')), 'lacks the network or the input'),
    (lambda folder: with_config(folder, without('k')), 'expected the keys model, k and b'),
    (lambda folder: with_config(folder, lambda config: [1]), 'config.json: expected the config of a published model'),
    (lambda folder: (folder / CONFIG).write_text('{'), 'config.json: expected the config of a published model'),
    (lambda folder: (folder / CONFIG).write_bytes(b'\xff'), 'config.json: not a text in UTF-8'),
    (lambda folder: with_config(folder, lambda config: config['mos'].update(values=[1, 'x'])), 'mos: values'),
    (lambda folder: with_config(folder, lambda config: config.update(sets={'a': {}, 'b': 3})), 'sets: expected'),
    (lambda folder: with_config(folder, lambda config: config['network'].update(name='x.py:X')), 'never run'),
    (lambda folder: with_config(folder, lambda config: config['network']['options'].update(P6=9999)), 'P6'),
    (lambda folder: with_config(folder, lambda config: config['input']['preprocessing'].update(resize=[1 << 15] * 2)),
     'input: expected at most'),
    (lambda folder: with_weights(folder, without('dr6.0.weight')), 'Missing key'),
    (lambda folder: with_weights(folder, lambda state: state.update(more=torch.ones(2))), 'Unexpected key'),
    (lambda folder: with_weights(folder, lambda state: state.update({'regr6.bias': torch.ones(2)})), 'size mismatch'),
    (lambda folder: with_weights(folder, lambda state: state.update({'regr6.bias': torch.tensor([torch.nan])})), 'NaN'),
    (lambda folder: with_weights(folder, lambda state: {}), 'Missing key'),
    (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1]), 'not a safetensors file'),
    (lambda folder: (folder / WEIGHTS).write_bytes(b''), 'not a safetensors file'),
    (lambda folder: torch.save({'k': 1}, folder / WEIGHTS), 'not a safetensors file'),
    (lambda folder: save_file({name: tensor + 1 for name, tensor in load_file(folder / WEIGHTS).items()},
                              folder / WEIGHTS), 'its SHA-256 is not'),
    (lambda folder: (folder / 'split.csv').write_text('image,part\na,train\nb,night\n'), "row 3: the part is 'night'"),
    (lambda folder: (folder / 'split.csv').write_text('image\na\n'), 'lacks the column part')])
def test_a_folder_that_is_not_whole_is_refused(model, change, message):
    change(model)
    with pytest.raises(UserError, match=message) as error:
        IQAmodel.load('model')
    assert len(str(error.value).splitlines()) == 1


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
                    max_leaves=5)


@pytest.fixture(scope='module')
def hostile(tmp_path_factory) -> tuple[Path, dict]:
    """A published folder to change, and its config."""
    folder = tmp_path_factory.mktemp('hostile')
    save_checkpoint(folder / 'c.pth', checkpoint_of())
    publish.main([str(folder / 'c.pth'), '--to', str(folder / 'model')])
    return folder / 'model', json.loads((folder / 'model' / CONFIG).read_text())


@given(data=st.data(), value=JSON)
def test_any_value_in_a_config_is_taken_or_named_in_one_line(hostile, data, value):
    folder, config = hostile
    key = data.draw(st.sampled_from(sorted(config)))
    inner = data.draw(st.sampled_from([None, *config[key]])) if isinstance(config[key], dict) else None
    changed = {**config, key: value if inner is None else {**config[key], inner: value}}
    (folder / CONFIG).write_text(json.dumps(changed))
    try:
        scorer, message = load_scorer(folder), ''
    except UserError as error:
        scorer, message = None, str(error)
    assert '\n' not in message
    assert scorer is None or np.isfinite(scorer.score(photo(0)))


# The hub

class Hub:
    """A hub in a folder, with the functions of huggingface_hub that are used, and a list of the calls."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, []
        self.module = ModuleType('huggingface_hub')
        self.module.snapshot_download, self.module.HfApi = self.snapshot_download, lambda: self

    def snapshot_download(self, repo_id, revision, allow_patterns):
        self.calls.append(('download', repo_id, revision))
        there = self.folder / repo_id / (revision or 'main')
        if not there.exists():
            raise RuntimeError(f'404 Client Error.\n\nRepository Not Found for url: {repo_id}.')
        cache = self.folder / 'cache' / repo_id
        cache.mkdir(parents=True, exist_ok=True)
        for file in there.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, cache)
        return str(cache)

    def create_repo(self, repo_id, exist_ok):
        self.calls.append(('create', repo_id, exist_ok))

    def create_branch(self, repo_id, branch, exist_ok):
        self.calls.append(('branch', repo_id, branch))

    def upload_folder(self, repo_id, revision, folder_path, commit_message):
        self.calls.append(('upload', repo_id, revision))
        shutil.copytree(folder_path, self.folder / repo_id / (revision or 'main'))
        return f'address of {repo_id}'


@pytest.fixture
def hub(here, monkeypatch) -> Hub:
    """A hub in a folder instead of huggingface_hub."""
    hub = Hub(here / 'hub')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub.module)
    return hub


def test_a_model_goes_to_the_hub_and_comes_back(hub, capsys):
    assert publish.main(['c.pth', '--to', 'hf-hub:me/net']) == 'address of me/net'
    assert [call[0] for call in hub.calls] == ['create', 'upload']
    (hub.folder / 'me/net/main/evil.pth').write_bytes(b'a pickle')
    score = IQAmodel.load('c.pth').score('photo.png')
    assert IQAmodel.load('hf-hub:me/net').score('photo.png') == score
    words = ['--img', 'photo.png', '--device', 'cpu', '--trained_model_file', 'hf-hub:me/net']
    assert test_demo.main([*words, '--csv', 'out.csv']) == score
    assert 'net' in Path('out.csv').read_text()
    assert not (hub.folder / 'cache/me/net/evil.pth').exists()
    assert "load('hf-hub:me/net')" in (hub.folder / 'me/net/main/README.md').read_text()
    args = main.TRAIN.parse([*MINI, '--pretrained', 'hf-hub:me/net'])
    assert IQAmodel.build_model(args) is not None
    check.main(['hf-hub:me/net'])


def test_a_folder_is_uploaded_as_it_is_to_a_branch(hub, model):
    (model / 'README.md').write_text('---\nlicense: mit\n---\nMine.\n')
    (model / 'notes.txt').write_text('not of the model')
    publish.main(['model', '--to', 'hf-hub:me/net@v1'])
    assert [call[0] for call in hub.calls] == ['create', 'branch', 'upload']
    sent = hub.folder / 'me/net/v1'
    assert (sent / 'README.md').read_text().endswith('Mine.\n')
    assert not (sent / 'notes.txt').exists()
    assert IQAmodel.load('hf-hub:me/net@v1').score('photo.png') == IQAmodel.load('c.pth').score('photo.png')
    with pytest.raises(UserError, match='Repository Not Found'):
        IQAmodel.load('hf-hub:me/net')


def test_a_broken_folder_is_not_uploaded(hub, model, fails):
    with_weights(model, without('regr6.bias'))
    assert 'Missing key' in fails(publish.main, 'model', '--to', 'hf-hub:me/net')
    assert not hub.calls


def test_names_on_the_hub(hub, fails):
    error = fails(test_demo.main, '--img', 'photo.png', '--trained_model_file', 'hf-hub:no/such')
    assert 'hf-hub:no/such cannot be fetched: 404 Client Error. Repository Not Found' in error
    for name in ('hf-hub:', 'hf-hub:net', 'hf-hub:a/b/c', 'hf-hub:../x', 'hf-hub:a/..', 'hf-hub:a/b@', 'hf-hub:a/b c'):
        assert 'expected hf-hub:USER/NAME' in fails(test_demo.main, '--img', 'photo.png', '-modelfile', name)
    assert parts_of('hf-hub:me/net.1@refs/pr/1') == ('me/net.1', 'refs/pr/1')
    assert len(hub.calls) == 1
    assert 'training writes a file' in fails(main.main, '--trained_model_file', 'hf-hub:me/net')


def test_a_name_that_cannot_be_reached_fails_at_once(here, monkeypatch, fails):
    client = pytest.importorskip('huggingface_hub')
    monkeypatch.setattr(client.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(client.constants, 'HF_HUB_CACHE', str(here / 'cache'))
    monkeypatch.setattr('time.sleep', lambda seconds: pytest.fail('waits'))
    assert 'cannot be fetched' in fails(test_demo.main, '--img', 'photo.png', '-modelfile', 'hf-hub:no/such')


def test_without_the_client(here, monkeypatch, fails):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    assert 'hf-hub:me/net needs huggingface_hub: pip install' in fails(publish.main, 'c.pth', '--to', 'hf-hub:me/net')
    with pytest.raises(UserError, match='hf-hub:me/net needs huggingface_hub'):
        IQAmodel.load('hf-hub:me/net')


def test_calibration_of_a_model_on_the_hub_is_written_here(hub, capsys):
    publish.main(['c.pth', '--to', 'hf-hub:me/net'])
    paths = save_photos(Path('rated'), 20)
    Path('ratings.csv').write_text('image,mos\n' + ''.join(f'{path},{i}\n' for i, path in enumerate(paths)))
    test_demo.main(['--calibrate', 'ratings.csv', '-modelfile', 'hf-hub:me/net', '--device', 'cpu', '--force'])
    assert Path('net-calibrated.pth').is_file()
    assert not Path('hf-hub:me').exists()


# Mistakes

def test_mistakes_are_named(model, fails):
    for words, message in (('c.pth', 'give --to'), ('c.pth c.pth --to x', 'publish each of an ensemble'),
                           ('gone --to x', 'gone: no such file'), ('c.pth --to model', '--overwrite'),
                           ('c.pth --to .', 'has other files'), ('c.pth --to photo.png', 'found a file'),
                           ('model --to x', 'is a published model'), ('c.pth --to hf-hub:x', 'USER/NAME'),
                           ('photo.png --to x', 'photo.png: not a checkpoint')):
        assert message in fails(publish.main, *words.split())
        assert not Path('x').exists()


def test_an_earlier_publication_is_replaced_whole(model):
    (model / 'predictions-old.csv').write_text('old')
    publish.main(['c.pth', '--to', 'model', '--overwrite'])
    assert not (model / 'predictions-old.csv').exists()
    assert IQAmodel.load('model').score('photo.png') == IQAmodel.load('c.pth').score('photo.png')
    assert [path.name for path in model.parent.iterdir() if path.name.startswith('.')] == []
