"""Tables of scores: CSV, JSON lines and the screen; resumed, sorted, interrupted, cut, shared by processes."""
import csv
import json
import math
import os
import re
import signal
import sys
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from processes import in_two
from scored import PHOTO_SCORE, photo

import test_demo
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.process import signals_wait
from iqa_runtime.tables import digits
from iqa_scoring.tables import COLUMNS, TableFile, Tables
from iqa_studies.jobs import terminable

ROW = dict.fromkeys(COLUMNS) | {'score': 1.5, 'raw': .1, 'outside': '', 'note': '', 'model': 'm', 'name': 'a',
                                'digest': 'm'}


def rows(path='out.csv'):
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def names(path='out.csv'):
    return [row['name'] for row in rows(path)]


def ends_with(status, words):
    with pytest.raises(SystemExit) as stop:
        test_demo.main(words)
    assert stop.value.code == status


def test_both_files_say_the_same(scored, capsys):
    assert test_demo.main(['--img', 'images', *scored, '--csv', 'out.csv', '--json', 'out.jsonl', '-bs', '5']) == 12
    assert '12 images scored: out.csv, out.jsonl' in capsys.readouterr().out
    table, lines = rows(), [json.loads(line) for line in Path('out.jsonl').read_text().splitlines()]
    assert tuple(table[0]) == tuple(lines[0]) == COLUMNS
    assert [row['name'] for row in table] == [f'images/{i:02d}.png' for i in range(12)]
    for row, line in zip(table, lines, strict=True):
        for name in ('score', 'raw', 'percentile', 'mos_min', 'mos_max'):
            assert row[name] == digits(line[name])
            assert float(row[name]) == pytest.approx(line[name], rel=6e-6)
        assert (row['name'], row['outside'], row['model']) == (line['name'], line['outside'], 'checkpoint.pth')
        assert line['higher_is_better'] is True
    assert float(table[0]['score']) == pytest.approx(PHOTO_SCORE, abs=1e-3)
    alone = test_demo.main(['--img', 'images/07.png', *scored])
    assert float(table[7]['score']) == pytest.approx(alone, abs=1e-3)


def test_the_screen(scored, capsys):
    test_demo.main(['--img', 'images/0*.png', *scored, '--sort'])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == 'MOS of the training images: 20 to 80, higher is better'
    assert lines[1].split() == ['score', 'raw', 'percentile', 'image']
    scores = [float(line.split()[0]) for line in lines[2:]]
    assert len(scores) == 10
    assert scores == sorted(scores, reverse=True)
    assert err == '10 images scored\n'


def test_unreadable_images_are_counted_and_the_rest_scored(scored, capsys):
    Path('text.png').write_text('hello')
    ends_with(1, ['--img', 'text.png', 'images/00.png', 'gone.png', './images/00.png', 'images/01.png', *scored,
                  '--csv', 'out.csv'])
    out, err = capsys.readouterr()
    assert 'text.png: cannot identify image file' in err
    assert 'gone.png: no such file' in err
    assert '1 repeated images are left out' in err
    assert '2 images scored, 2 could not be scored: out.csv' in out
    assert names() == ['images/00.png', 'images/01.png']


def test_resume_does_only_what_is_missing(scored, capsys, monkeypatch):
    words = ['--img', 'images', *scored, '--csv', 'out.csv', '--resume']
    test_demo.main(words)
    whole = Path('out.csv').read_bytes()
    lines = whole.splitlines(keepends=True)
    Path('out.csv').write_bytes(b''.join(lines[:4]) + lines[4][:20])  # cut in the fourth row
    capsys.readouterr()
    assert test_demo.main(words) == 9
    assert '9 images scored, 3 were scored before' in capsys.readouterr().out
    assert names() == [f'images/{i:02d}.png' for i in range(12)]
    assert test_demo.main(words) == 0
    test_demo.main([*words, '--json', 'out.jsonl', '--sort'])
    assert len(Path('out.jsonl').read_text().splitlines()) == 12
    assert len(names()) == 12
    scores = [float(row['score']) for row in rows()]
    assert scores == sorted(scores, reverse=True)


def test_resume_refuses_what_is_not_its_table(scored, fails, tmp_path):
    words = ['--img', 'images', *scored, '--csv', 'out.csv', '--resume']
    Path('out.csv').write_text('name,mos\na,1\n')
    assert 'out.csv: line 1 is not one of a table of scores' in fails(test_demo.main, *words)
    assert Path('out.csv').read_text() == 'name,mos\na,1\n'
    table = TableFile('out.csv', 'csv')
    table.write([ROW])
    table.close()
    assert 'out.csv holds scores of m with other weights, calibration, --views or' in fails(test_demo.main, *words)


CHANGES = {  # what changes a score -> (checkpoint -> None, options)
    'a weight': (lambda content: next(iter(content['model'].values())).view(-1)[:1].add_(1e-3), []),
    'the line': (lambda content: content['b'].__setitem__(0, content['b'][0] + 1e-3), []),
    'a calibration': (lambda content: content.update(mapping={'name': 'logistic', 'parameters': [9., 1., 0., 1.]}), []),
    'the size': (lambda content: content['input']['preprocessing'].update(resize=(40, 40)), []),
    'the range': (lambda content: content['mos'].update(max=81.), []),
    '--clamp': (lambda content: None, ['--clamp']),
    '--views': (lambda content: None, ['--views', 'asna'])}


@pytest.mark.parametrize('change', CHANGES)
def test_resume_refuses_scores_that_something_else_made(scored, fails, change):
    """The file of the checkpoint has the same name: what is in it counts, for every kind of output."""
    spoil, options = CHANGES[change]
    content = load_checkpoint(scored[1])
    save_checkpoint('m.pth', content)
    outputs = ['--csv', 'out.csv'], ['--json', 'out.jsonl'], ['--parquet', 'out']
    words = ['--trained_model_file', 'm.pth', *scored[2:]]
    for output in outputs:
        test_demo.main(['--img', 'images/0[01].png', *words, *output])
    spoil(content)
    save_checkpoint('m.pth', content)
    before = {path: path.read_bytes() for path in (Path('out.csv'), Path('out.jsonl'), *Path('out').iterdir())}
    for output in outputs:
        error = fails(test_demo.main, '--img', 'images', *words, *options, *output, '--resume')
        assert f'--resume: {output[1]}' in error
        assert 'holds scores of m.pth with other weights, calibration, --views or --clamp' in error
    assert {path: path.read_bytes() for path in before} == before


def test_resume_accepts_the_same_weights_under_another_name(scored):
    words = ['--csv', 'out.csv', '--json', 'out.jsonl']
    test_demo.main(['--img', 'images/0[0-4].png', *scored, *words])
    save_checkpoint('other.pth', {**load_checkpoint(scored[1]), 'finished': True, 'metrics': {'val': {'SROCC': .5}}})
    assert test_demo.main(['--img', 'images', '-modelfile', 'other.pth', *scored[2:], *words, '--resume']) == 7
    assert names() == [f'images/{i:02d}.png' for i in range(12)]
    assert len({row['digest'] for row in rows()}) == 1


@pytest.mark.parametrize('option', ['--csv', '--json', '--report', '--map'])
def test_an_output_that_cannot_be_written(scored, fails, option):
    Path('taken').write_text('')
    error = fails(test_demo.main, '--img', 'images', *scored, option, 'taken/out')
    assert f'error: {option} taken/out' in error
    assert 'taken is not a folder' in error


def test_odd_names(scored, capsys):
    odd = [b'a b.png', b'quote"s\'.png', b'<script>alert(1)<.png', b'comma,.png', b'caf\xe9.png', b'new\nline.png',
           '日本.png'.encode(), b'-dash.png', b'[x]*.png']
    Path('odd').mkdir()
    for i, name in enumerate(odd):
        Image.fromarray(photo(i)).save(os.fsdecode(b'odd/' + name.replace(b'/', b'')), format='PNG')
    words = ['--img', 'odd', *scored, '--csv', 'out.csv', '--json', 'out.jsonl', '--map', 'maps', '--report', 'r.html']
    assert test_demo.main(words) == len(odd)
    expected = {name.decode('utf-8', 'backslashreplace').replace('\n', r'\n') for name in odd}
    assert {name.removeprefix('odd/') for name in names()} == expected
    assert len(Path('out.csv').read_text(encoding='utf-8').splitlines()) == len(odd) + 1
    assert len(list(Path('maps').iterdir())) == len(odd)
    assert test_demo.main(['--img', 'odd', *scored, '--csv', 'out.csv', '--resume']) == 0
    test_demo.main(['--img', 'odd', *scored])  # the screen takes them too
    assert r'caf\xe9.png' in capsys.readouterr().out


def test_the_first_ctrl_c_keeps_what_is_done(scored, capsys, monkeypatch, foreground):
    take = test_demo.Scoring.take
    monkeypatch.setattr(test_demo.Scoring, 'take', lambda run, sample: (
        take(run, sample), sample.index == 1 and signal.raise_signal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    words = ['--img', 'images', *scored, '--csv', 'out.csv', '-bs', '2', '--resume']
    ends_with(130, words)
    assert signal.getsignal(signal.SIGINT) is before
    assert 'Interrupted; with --resume, the same command scores the rest' in capsys.readouterr().err
    assert names() == ['images/00.png', 'images/01.png']
    monkeypatch.setattr(test_demo.Scoring, 'take', take)
    assert test_demo.main(words) == 10


def test_the_second_ctrl_c_ends_at_once(foreground):
    def twice():
        with signals_wait() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signal == signal.SIGINT
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        twice()


@pytest.mark.usefixtures('foreground')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)  # as by `command &` in a script
    with signals_wait() as stop, terminable():
        signal.raise_signal(number)
        assert stop.signal is None
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_closed_pipe_ends_quietly(scored, monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, 'w') as pipe:
        monkeypatch.setattr(sys, 'stdout', pipe)
        ends_with(141, ['--img', 'images', *scored])
    assert capfd.readouterr().err == ''


def test_what_an_interrupted_shared_run_left_is_merged(tmp_path, monkeypatch):
    files = {'csv': str(tmp_path / 'out.csv')}
    for rank in (1, 0):
        monkeypatch.setattr(idist, 'get_rank', lambda rank=rank: rank)
        monkeypatch.setattr(idist, 'get_world_size', lambda: 2)
        tables = Tables(files, rank == 0, 'm')
        for name in 'ab' if rank == 0 else 'xyz':
            tables.write(ROW | {'name': name})
        tables.close()
    assert names(tmp_path / 'out.csv') == ['x', 'y', 'z']  # rank 0 found rank 1's rows as left over
    monkeypatch.undo()
    again = Tables(files, True, 'm')
    assert not any(again.lack(name) for name in 'abxyz')
    assert again.lack('c')
    again.write(ROW | {'name': 'c'})
    again.close()
    again.finish(lambda row: -ord(row['name']))
    assert names(tmp_path / 'out.csv') == ['z', 'y', 'x', 'c', 'b', 'a']
    assert [path.name for path in tmp_path.iterdir()] == ['out.csv']


def test_two_processes_share_a_list(scored, tmp_path):
    Path('text.png').write_text('hello')
    words = ['--img', 'images', 'text.png', *scored, '--csv', 'out.csv', '--report', 'out.html']
    (status, _), out = in_two(test_demo.main, words)
    assert names() == [f'images/{i:02d}.png' for i in range(12)], out
    assert '12 images scored, 1 could not be scored: out.csv, out.html' in out
    assert status == 1
    assert Path('out.html').read_text().count('<figure') == 12
    assert sorted(path.name for path in Path().iterdir()) == ['images', 'out.csv', 'out.html', 'text.png']


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_cell_has_six_digits_of_what_float32_carries(value):
    text = digits(value)
    assert len(re.sub(r'e.*|[-.]', '', text).lstrip('0')) <= 6
    assert math.isfinite(float(text))
    assert digits(float(text)) == text
    if 1e-30 < abs(value) < 1e30:
        assert float(text) == pytest.approx(value, rel=6e-6)


def test_a_cell_of_nothing_is_empty():
    assert digits(math.nan) == ''
    assert digits(63.973449999) == '63.9734'
    assert digits(np.float32(.1)) == '0.1'
