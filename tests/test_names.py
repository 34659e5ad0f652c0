"""Names on terminals and in tables: nothing raw, no formulas, and what was written is recognised again."""
import csv
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scored import photo

import test_demo
from data import check
from iqa_data.info import Info, read_info, write_info
from iqa_data.splits import rows_in_file
from iqa_results.read import read_predictions
from iqa_results.table_formats import render
from iqa_results.write import write_results
from iqa_runtime.errors import UserError, command, one_line
from iqa_runtime.names import cell, from_cell, path_text
from iqa_runtime.split_file import write_split
from iqa_training.options import TRAIN
from IQAperformance import HeadPerformance, Performance

ODD = ['=1+1.png', '+x.png', '-x.png', '@SUM(A1).png', '＝wide.png', 'back\\nslash.png', 'x;=1.png', 'semi;colon.png']
NAMES = st.text(min_size=1, max_size=12) | st.text('=+-@./\\n\x1b\n\t\r"\',;1e', min_size=1, max_size=8)
BYTES = st.lists(st.sampled_from([b'\\', b'n', b'x', b'1', b'b', b'\n', b'\x1b', b'\xff', 'ö'.encode(), b'\xc3']),
                 min_size=1, max_size=6).map(b''.join)


def harmless(shown: str) -> bool:
    """No control character, nothing that is not UTF-8."""
    return all(c.isprintable() for c in shown) and shown.encode().decode() == shown


@given(NAMES, st.sampled_from(['', '\x1b]0;title\x07', '\n', '\u202e']))
def test_one_line_is_harmless_and_stays_as_it_is(name, more):
    shown = one_line(name + more)
    assert harmless(shown)
    assert one_line(shown) == shown


@given(BYTES, BYTES)
def test_every_path_has_a_text_of_its_own(a, b):
    shown = [path_text(os.fsdecode(name)) for name in (a, b)]
    assert all(map(harmless, shown))
    assert (shown[0] == shown[1]) == (a == b)


@given(NAMES)
def test_a_cell_is_no_formula_and_reads_back(name):
    name = os.path.normpath(path_text(name.replace('\0', '')) or 'x')
    written = cell(name)
    assert from_cell(written) == name
    assert os.path.normpath(written) == name
    starts_like_one = written[:1] in tuple('=+-@\t\r＝＋－＠') and len(written) > 1
    assert not starts_like_one or float(written) is not None


def test_numbers_are_no_formulas():
    for number in ('-1.5', '+2', '-1e-5', '-inf', '-'):
        assert cell(number) == number


def test_an_error_reaches_the_terminal_on_one_line(capsys):
    @command
    def fails(argv):
        raise UserError('the image a\x1b[31m\nb\udcff')
    with pytest.raises(SystemExit):
        fails([])
    assert capsys.readouterr().err.endswith(': error: the image a\\x1b[31m\\nb\\udcff\n')
    with pytest.raises(SystemExit):
        TRAIN.parse(['--dataset', 'a\x1bb\nc'])
    error = capsys.readouterr().err
    assert '\x1b' not in error
    assert error.count('\n') == 1


def test_scores_with_odd_names_are_resumed(scored, capsys):
    Path('odd').mkdir()
    odd = [*ODD, 'esc\x1b[31m.png', 'new\nline.png']
    for i, name in enumerate(odd):
        Image.fromarray(photo(i)).save(Path('odd', name), format='PNG')
    os.chdir('odd')
    words = ['--img', '.', *scored, '--csv', '../out.csv', '--json', '../out.jsonl', '--report', '../out.html']
    assert test_demo.main(words) == len(odd)
    with open('../out.csv', newline='', encoding='utf-8') as file:
        cells = [row['name'] for row in csv.DictReader(file)]
    assert not any(name[0] in '=+-@＝' for name in cells)
    assert {from_cell(name) for name in cells} == set(map(path_text, odd))
    lines = Path('../out.jsonl').read_text(encoding='utf-8').splitlines()
    assert {json.loads(line)['name'] for line in lines} == set(map(path_text, odd))
    assert '\x1b' not in Path('../out.html').read_text(encoding='utf-8')
    assert test_demo.main([*words[:-2], '--resume']) == 0
    assert test_demo.main([*words[:-2], '--resume', '--sort']) == 0
    assert test_demo.main([*words[:-2], '--resume']) == 0
    test_demo.main(['--img', '.', *scored])
    out, err = capsys.readouterr()
    assert '\x1b' not in out + err


def test_names_in_splits_results_and_info_tables(tmp_path):
    names = [name for name in ODD if '\\' not in name]
    n = len(names)
    write_split(tmp_path / 'split.csv', {'train': names[:2], 'val': names[2:]})
    parts = rows_in_file(tmp_path / 'split.csv', names)
    assert parts['train'].tolist() == [0, 1]
    head = HeadPerformance.of(np.ones(n), np.arange(n))  # constant, so that its correlations are nan
    performance = Performance(np.arange(n), np.ones(n), (head,))
    table, summary = write_results(tmp_path, 'run', names, performance, {})
    assert read_predictions(table).names == names
    assert json.loads(summary.read_text())['metrics']['SROCC'] is None
    write_info(tmp_path / 'info.csv', names, np.arange(n), np.ones(n), range(1, n + 1), np.empty((n, 0)),
               references=names)
    info = read_info(tmp_path / 'info.csv')
    assert info.names == info.references == names
    for file in ('split.csv', 'run.csv', 'info.csv'):
        for line in (tmp_path / file).read_text(encoding='utf-8').splitlines():
            assert not line.startswith(('=', '+', '-', '@', '＝'))
    assert '\n./=1+1,-0.5\n' in render(['a', 'b'], [['=1+1', '-0.5']], 'csv')


def test_check_prints_no_name_raw(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, 'read_info', lambda path: Info(
        ['a\x1b[31m.png', 'b\n.png'], np.arange(2.), np.ones(2), np.arange(1, 3), np.empty((2, 0), int)))
    pd.DataFrame({'image': ['a'], 'mos': [1]}).to_csv('set.csv', index=False)
    assert check.main(['set.csv']) == 1
    out = capsys.readouterr().out
    assert 'a\\x1b[31m.png' in out
    assert '\x1b' not in out
