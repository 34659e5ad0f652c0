"""Files from strangers, of every other kind that is read: each is taken or refused in one line, and harms nothing."""
import io
import json
import math
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mini import MINI
from PIL import Image
from scored import photo, saved

import test_demo
from iqa_data.cache import on_disk
from iqa_data.splits import rows_in_file
from iqa_data.transforms import Preprocess
from iqa_networks.pretrained import load_pretrained
from iqa_results.read import read_results
from iqa_runtime.checkpoint import checksum, load_checkpoint, save_checkpoint
from iqa_runtime.errors import UserError, one_line
from iqa_scoring.mapping import Scale
from iqa_scoring.report import ReportEntry, write_report
from iqa_scoring.stream import Reader, row_of, score_files
from iqa_scoring.tables import COLUMNS, KINDS, Tables, references_in
from iqa_studies.found import find
from iqa_training.card import about
from iqa_training.options import TRAIN
from iqa_training.state import random_states, read_state, restore_run, set_random_states
from IQAmodel import create_model, load
from results_in_the_paper import export_csv, sources

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
NAN, INF = float('nan'), float('inf')
PLAIN = st.none() | st.booleans() | st.integers(-2 ** 70, 2 ** 70) | st.floats() | st.text(max_size=4)
PLAIN |= st.sampled_from(
    ['', '../../..', '/etc', 'a\x1b[31m\nb', 'cuda', 'a' * 400, 0, 1, -1, .5, 1e300, 1e308, 5e-324, NAN, 10 ** 400,
     '\0', 'a\0b', '\ud800', '2026-11-29', '1_0'])
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                                      max_size=3), max_leaves=4)
TENSORS = st.sampled_from([torch.ones(2), torch.tensor(NAN), torch.zeros(0), torch.ones(1, dtype=torch.int8),
                           torch.full((8,), 1e300, dtype=torch.float64), torch.ones(3, 3, dtype=torch.complex64)])
VALUES = JSON | TENSORS | st.lists(TENSORS, max_size=2) | st.dictionaries(st.text(max_size=2), TENSORS, max_size=2)


def refused(error: UserError, name: str) -> None:
    """Check the text of an error: a line that names the file."""
    assert name in str(error)
    assert len(one_line(str(error))) < 2500


def places(value, path=()) -> list[tuple]:
    """The places of all values in nested dictionaries and lists."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def changed(value, path: tuple, new):
    """A copy with another value in a place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


# Checkpoints

@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> dict:
    """A checkpoint of a small network, in format 2, with all keys."""
    content = load_checkpoint(saved(tmp_path_factory.mktemp('hostile'), architecture=MINI[1]))
    content['mos']['values'] = content['mos']['values'].float()
    return {**content, 'format': 2, 'options': {'learning_rate': 1e-4, 'dataset': 'demo'}, 'head': 0, 'epoch': 3,
            'mapping': {'name': 'logistic', 'parameters': [80., 20., .1, 1.]}, 'metrics': {'val': {'SROCC': .9}},
            'split': {'train': ['a.png'], 'val': ['b.png']}, 'split_hash': '0' * 16,
            'intervals': {'val': {'SROCC': [.8, .95]}}}


def scores(path: Path, tmp_path: Path) -> bool:
    """Score an image; whether the checkpoint gives scores at all. They are finite, and a report can be drawn.

    Whatever it is, its model card can be shown on a terminal, or the file is refused.
    """
    try:
        assert all(line.isprintable() for line in about(path).splitlines())
    except UserError as error:
        refused(error, path.name)
    try:
        scorer = load(path)
    except UserError as error:
        refused(error, path.name)
        return False
    photo_path = str(tmp_path / 'photo.png')
    Image.fromarray(photo(0)).save(photo_path)
    (sample,) = score_files(scorer, [photo_path], Reader(scorer.preprocess, thumbnail=8))
    if sample.error:
        return True
    row = row_of(sample, scorer, 'm') | {'digest': ''}
    assert math.isfinite(row['score'])
    for kind in KINDS:
        assert 'NaN' not in KINDS[kind][1](row)
        assert 'Infinity' not in KINDS[kind][1](row)
    write_report(tmp_path / 'r.html', [ReportEntry(row, sample.thumbnail)], scorer.scale, 't')
    return True


@settings(ANY, max_examples=60)
@given(st.data())
def test_a_checkpoint_with_any_value_anywhere(checkpoint, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    some = {**checkpoint, 'model': dict(list(checkpoint['model'].items()))}
    path = data.draw(st.sampled_from([place for place in places(some) if place]))
    new = data.draw(VALUES)
    if path[-1] == 'resize' and isinstance(new, list):
        return  # a size that is right and large only takes time
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.save(changed(some, path, new), folder / 'any.pth')
        scores(folder / 'any.pth', folder)


@settings(ANY, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), st.floats(0, 1), st.booleans())
def test_a_checkpoint_of_any_bytes(tmp_path_factory, changes, kept, cut):
    folder = tmp_path_factory.getbasetemp()
    torch.save({'model': {'w': torch.arange(4.)}, 'k': [1.], 'b': [2.], 'options': {'P6': 1}}, folder / 'bytes.pth')
    content = bytearray((folder / 'bytes.pth').read_bytes())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    (folder / 'bytes.pth').write_bytes(content[:int(kept * len(content))] if cut else content)
    for reader in (load_checkpoint, read_state):
        try:
            reader(folder / 'bytes.pth')
        except UserError as error:
            refused(error, 'bytes.pth')


def bomb() -> list:
    """A list that fits a page and holds 10^12 others."""
    inner: list = []
    for _ in range(12):
        inner = [inner] * 10
    return inner


def deep() -> list:
    inner: list = []
    for _ in range(99):
        inner = [inner]
    return inner


@pytest.mark.parametrize(('content', 'message'), [
    ({'options': bomb()}, 'more than 4194304 values'),
    ({'options': {'a': deep()}}, 'more than 50 in one another'),
    ({'model': {'w': torch.zeros(1).expand(10 ** 12)}}, 'a tensor that is not stored in full'),
    ({'model': {'w': torch.sparse_coo_tensor([[0]], [1.], (10 ** 12,))}}, 'a tensor that is not stored in full'),
    ({'model': {'w': torch.empty(10 ** 12, device='meta')}}, 'a tensor that is not stored in full')])
def test_contents_that_are_larger_than_their_file(tmp_path, content, message):
    torch.save({'model': {}, 'k': [1.], 'b': [1.], **content}, tmp_path / 'x.pth')
    assert (tmp_path / 'x.pth').stat().st_size < 200_000
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / 'x.pth')


def test_a_file_that_unpacks_to_more_than_its_size(tmp_path):
    torch.save({'model': {'w': torch.zeros(1 << 20)}, 'k': [1.], 'b': [1.]}, tmp_path / 'good.pth')
    with zipfile.ZipFile(tmp_path / 'good.pth') as good, \
            zipfile.ZipFile(tmp_path / 'x.pth', 'w', zipfile.ZIP_DEFLATED) as packed:
        for entry in good.infolist():
            packed.writestr(entry.filename, good.read(entry))
    with pytest.raises(UserError, match='x.pth: not a checkpoint.*unpacks to 4'):
        load_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize(('change', 'message'), [
    ({'k': [NAN, 1., 1.]}, 'k: expected a finite number'), ({'b': [1., INF, 1.]}, 'b: expected a finite number'),
    ({'mapping': {'name': 'linear', 'parameters': [1., NAN]}}, 'mapping: expected a finite number'),
    ({'mapping': {'name': 'linear', 'parameters': [1.]}}, 'mapping: expected linear with k, b'),
    ({'mapping': {'name': 'logistic', 'parameters': [1., 2., 3., 0.]}}, 'mapping: expected logistic with top, bottom,'),
    ({'mapping': {'name': 'cubic', 'parameters': [1.]}}, "mapping: expected unknown mapping 'cubic'"),
    ({'input': {'preprocessing': {'filter': 'x'}, 'normalise': 'none'}}, "input: expected unknown filter 'x'"),
    ({'input': {'preprocessing': {}, 'normalise': 'x'}}, "input: expected unknown normalisation 'x'"),
    ({'input': {'preprocessing': {'resize': (30000, 30000)}, 'normalise': 'none'}}, 'input: expected at most 134'),
    ({'mos': {'values': torch.ones(2), 'min': 3., 'max': 1., 'higher_is_better': True}}, 'mos: expected a min that')])
def test_what_gives_no_score_is_refused_first(checkpoint, tmp_path, fails, monkeypatch, change, message):
    save_checkpoint(tmp_path / 'x.pth', {**checkpoint, **change})
    monkeypatch.setattr(test_demo, 'score_files', None)  # no image is looked at
    error = fails(test_demo.main, '--img', 'gone.png', '-modelfile', tmp_path / 'x.pth', '--device', 'cpu')
    assert f'x.pth: {message}' in error


@pytest.mark.parametrize('value', [NAN, INF, 1e300])
def test_weights_that_are_no_numbers(checkpoint, tmp_path, fails, value):
    model = {name: tensor.double() if tensor.is_floating_point() else tensor
             for name, tensor in checkpoint['model'].items()}
    name = next(name for name, tensor in model.items() if tensor.ndim == 4)
    model[name] = model[name].clone()
    model[name].view(-1)[3] = value  # 1e300 is a number, until it becomes one of the network's float32
    save_checkpoint(tmp_path / 'x.pth', {**checkpoint, 'model': model})
    error = fails(test_demo.main, '--img', 'gone.png', '-modelfile', tmp_path / 'x.pth', '--device', 'cpu')
    assert f'x.pth: model: expected finite numbers, but {name} contains NaN or infinity' in error


def test_an_output_that_is_no_number_is_no_score(checkpoint, tmp_path, monkeypatch, capsys):
    """Finite weights can still give infinity: the image is named and counted, and nothing holds NaN."""
    monkeypatch.chdir(tmp_path)
    model = {name: torch.full_like(tensor, 3e38) if tensor.ndim > 1 else tensor
             for name, tensor in checkpoint['model'].items()}
    save_checkpoint('x.pth', {**checkpoint, 'model': model})
    Image.fromarray(photo(0)).save('a.png')
    Image.fromarray(photo(1)).save('b.png')
    with pytest.raises(SystemExit) as stop:
        test_demo.main(['--img', 'a.png', 'b.png', '-modelfile', 'x.pth', '--device', 'cpu', '--json', 'o.jsonl',
                        '--csv', 'o.csv', '--report', 'o.html', '--map', 'maps'])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert '0 images scored, 2 could not be' in out
    assert "a.png: the network's output for it is " in err
    assert Path('o.jsonl').read_text() == ''
    assert 'b.png' in Path('o.html').read_text()


def test_a_report_leaves_out_what_is_no_score(tmp_path):
    row = dict.fromkeys(COLUMNS) | {'raw': 1., 'outside': '', 'note': ''}
    buffer = io.BytesIO()
    Image.fromarray(photo(0)).save(buffer, 'JPEG')
    entries = [ReportEntry(row | {'score': score, 'name': f'{i}.png'}, buffer.getvalue(), mos=3.)
               for i, score in enumerate((NAN, 4., INF))]
    for chosen in (entries, entries[:1]):
        write_report(tmp_path / 'r.html', chosen, Scale(np.empty(0)), 't')
        html = (tmp_path / 'r.html').read_text()
        assert '0.png: the score is nan' in html
        assert html.count('<figure') == len(chosen) // 3


# States

def parts_of_a_run() -> tuple:
    """A model, and the optimizer and schedule of a run that has made a step."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    return model, {'optimizer': optimizer, 'scheduler': scheduler}


@settings(ANY, max_examples=60)
@given(st.data())
def test_a_state_with_any_value_anywhere(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'any.state'
    model, parts = parts_of_a_run()
    before = random_states()
    state = {'options': {'learning_rate': 1e-4}, 'split_hash': 'x', 'iteration': 3, 'model': dict(model.state_dict()),
             'gradients': {'weight': torch.ones(1, 2)}, 'random': [before],
             'order': torch.Generator().get_state(),
             'record': {'best': .5, 'at': 1, 'epoch': 1, 'since': 0},
             'history': {'train/loss': torch.ones(2, 3, dtype=torch.float64)},
             **{name: part.state_dict() for name, part in parts.items()}}
    shallow = [place for place in places({**state, 'random': [{**before, 'python': before['python'][:1]}]}) if place]
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from([place for place in shallow if 'numpy' not in place or len(place) < 3]))
        try:
            state = changed(state, place, data.draw(VALUES))
        except (KeyError, TypeError, IndexError, AttributeError):
            continue  # the first change took the place away
    for key in data.draw(st.lists(st.sampled_from(sorted(state)), max_size=1)):
        del state[key]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.save({**state, 'checksum': data.draw(st.sampled_from([checksum(state)] * 9 + [3]))}, path)
        try:
            content = read_state(path)
            restore_run(model, parts, torch.Generator(), {**content, 'path': str(path)})
        except UserError as error:
            refused(error, 'any.state')
        finally:
            set_random_states(before)


# options.json, results, tables of scores, splits

@settings(ANY, max_examples=80)
@given(st.dictionaries(st.sampled_from([*sorted(TRAIN.names()), 'run_name', 'split_hash', 'csv', 'x']), JSON,
                       max_size=4), JSON, st.sampled_from(['', 'cut', 'deep', 'other']))
def test_any_options_json(tmp_path_factory, options, run_name, spoil):
    folder = tmp_path_factory.getbasetemp() / 'run'
    folder.mkdir(exist_ok=True)
    text = json.dumps({'run_name': run_name, **options})
    text = {'': text, 'cut': text[:-1], 'deep': '[' * 100_000, 'other': json.dumps(run_name)}[spoil]
    (folder / 'options.json').write_text(text)
    try:
        names = export_csv.file_names(sources.read_options(folder), ['val/demo/SROCC', '../../x', 'a\0b'])
    except UserError as error:
        refused(error, 'options.json')
    else:
        for name in (name for some in names.values() for name in some):
            assert Path('csv', f'{name}.csv').resolve().parent == Path('csv').resolve()
            assert '\0' not in name
    try:
        TRAIN.of_recipe(str(folder / 'options.json'))
    except UserError as error:
        refused(error, 'options.json')


@pytest.mark.parametrize('name', ['../../..', '../x', '/tmp/x', '..', '.', '', 'a/b', 'a\0', None, 3, ['x'], 'x' * 999])
def test_a_run_name_decides_no_place(tmp_path, fails, name):
    (tmp_path / 'options.json').write_text(json.dumps({'run_name': name}))
    (tmp_path / 'events.out.tfevents.1').write_bytes(b'')
    assert 'options.json: run_name: expected the name of a file' in fails(
        export_csv.main, tmp_path, '--csv_dir', tmp_path / 'csv')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['events.out.tfevents.1', 'options.json']


@settings(ANY, max_examples=60)
@given(st.dictionaries(st.sampled_from(['metrics', 'options', 'dataset', 'part', 'run_name', 'checkpoint']), JSON),
       st.sampled_from(['', 'cut', 'deep']))
def test_any_results(tmp_path_factory, change, spoil):
    folder = tmp_path_factory.getbasetemp() / 'results'
    folder.mkdir(exist_ok=True)
    text = json.dumps({'metrics': {'SROCC': None}, 'options': {}, 'dataset': 'demo', 'part': 'test', **change})
    (folder / 'x.json').write_text({'': text, 'cut': text[:-1], 'deep': '[' * 100_000}[spoil])
    try:
        results = read_results(folder)
        find(results, TRAIN.defaults, 'demo')
    except UserError as error:
        refused(error, 'x.json')
    else:
        assert all(isinstance(value, float) for value in results[0].metrics.values())


ROW = dict.fromkeys(COLUMNS) | {'score': 1.5, 'raw': .1, 'outside': '', 'note': '', 'model': 'm', 'name': 'a',
                                'digest': 'm'}


@settings(ANY, max_examples=80)
@given(st.sampled_from(sorted(KINDS)), st.lists(st.dictionaries(st.sampled_from([*COLUMNS, 'x']), JSON, max_size=2),
                                                max_size=3), st.binary(max_size=4))
def test_any_table_that_resume_continues(tmp_path_factory, kind, changes, more):
    path = tmp_path_factory.getbasetemp() / 'table'
    header, line, _ = KINDS[kind]
    rows = []
    for change in changes:
        row = {**ROW, **change}
        rows.append(line(row).encode('utf-8', 'surrogatepass') if kind == 'csv'
                    else json.dumps(row).encode() + b'\n')
    content = header.encode() + b''.join(rows) + more
    path.write_bytes(content)
    try:
        there = references_in(path, kind, 'm')
        tables = Tables({kind: str(path)}, True, 'm')
        tables.write({**ROW, 'name': 'new'})
        tables.close()
        tables.finish(lambda row: float(row['score']))
    except UserError as error:
        refused(error, 'table')
        assert path.read_bytes() == content
    else:
        assert set(references_in(path, kind, 'm')) == {*there, 'new'}


@settings(ANY, max_examples=40)
@given(st.lists(st.lists(st.sampled_from(['a', 'b', './a', 'train', 'val', 'test', 'x', '', '"', '\x1b', '\0']),
                         max_size=3), max_size=4), st.sampled_from(['image,part\n', 'part,image\n', '', '\xff']))
def test_any_split_file(tmp_path_factory, rows, head):
    path = tmp_path_factory.getbasetemp() / 'split.csv'
    path.write_text(head + '\n'.join(map(','.join, rows)), encoding='latin-1')
    try:
        parts = rows_in_file(path, ['a', 'b'])
    except UserError as error:
        refused(error, 'split.csv')
    else:
        assert sorted(np.concatenate(list(parts.values()))) == [0, 1]


# The cache of decoded images

SIZES = [[4, 9], [9, 4], [0, 0], [-4, -9], [2 ** 40, 2 ** 40], [True, 36], [1.5, 2], '49', None, [4]]
SPOILS = {  # name -> (.npy, .json, what the index holds, a place, a value) -> None
    'sizes': lambda npy, index, made, i, value: index.write_text(
        json.dumps({**made, 'sizes': [*made['sizes'][:4], SIZES[i % len(SIZES)]]})),
    'index': lambda npy, index, made, i, value: index.write_text(
        json.dumps({**made, sorted(made)[i % len(made)]: value})),
    'other': lambda npy, index, made, i, value: index.write_text(json.dumps(value)),
    'bytes': lambda npy, index, made, i, value: index.write_bytes(
        [b'', b'{', b'\xff', b'[' * 100_000, b'9' * 9000][i % 5]),
    'empty': lambda npy, index, made, i, value: npy.write_bytes(b''),
    'header': lambda npy, index, made, i, value: npy.write_bytes(
        npy.read_bytes()[:i % 128] + bytes([i % 251]) + npy.read_bytes()[i % 128 + 1:]),
    'open': lambda npy, index, made, i, value: npy.write_bytes(npy.read_bytes().replace(b',)', b', ', 1)),
    'cut': lambda npy, index, made, i, value: npy.write_bytes(npy.read_bytes()[:i]),
}


@settings(ANY, max_examples=40)
@example('open', 0, None)
@given(st.sampled_from(sorted(SPOILS)), st.integers(0, 300), JSON)
def test_any_cache(tmp_path_factory, how, i, value):
    folder = tmp_path_factory.getbasetemp() / 'cache'
    paths = [folder.parent / f'cached{n}.png' for n in range(5)]
    for n, path in enumerate(paths):
        if not path.exists():
            Image.fromarray(photo(n, (4 + n, 9 - n))).save(path)
    on_disk(paths, Preprocess(), folder)
    (npy,), (index,) = folder.glob('*.npy'), folder.glob('*.json')
    SPOILS[how](npy, index, json.loads(index.read_text()), i, value)
    images = on_disk(paths, Preprocess(), folder)
    for path in paths:
        assert np.array_equal(images(path), Preprocess().array(path))


@pytest.mark.parametrize('content', [b'', b'\0', b'PK\x03\x04', b'\x80\x02}q\x00.'])
def test_files_of_a_few_bytes(tmp_path, content):
    (tmp_path / 'x').write_bytes(content)
    for reader in (load_checkpoint, read_state, lambda path: load_pretrained(create_model(MINI[1]), path),
                   lambda path: create_model('resnet18', weights=path)):
        with pytest.raises(UserError) as error:
            reader(tmp_path / 'x')
        assert one_line(str(error.value)) == str(error.value)
