"""Readers of files that we wrote or are handed: any value in any place is taken, or refused in one line."""
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mini import MINI
from test_hostile import ANY, JSON, changed, places

import test_demo
from iqa_networks.pretrained import load_pretrained
from iqa_results.read import read_npy, read_predictions, read_summary
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.files import read_json
from iqa_runtime.tables import Table
from iqa_scoring import ensemble
from iqa_scoring.calibrate import read_ratings
from iqa_scoring.inputs import find_images
from iqa_scoring.references import table_of_pairs
from iqa_studies import check
from iqa_training.state import read_state
from IQAmodel import create_model

SUMMARY = {'metrics': {'SROCC': .5, 'PLCC': .9, 'KROCC': .5, 'RMSE': 1.}, 'options': {'dataset': 'demo'},
           'dataset': 'demo', 'part': 'test', 'split_hash': '0' * 16, 'versions': {'torch': '2'}, 'images': 3,
           'parameters': {'plain': 3}, 'run_name': 'r', 'trained_on': 'demo'}
OUTCOMES = {'outcomes': [{'setting': 'x', 'split': '0', 'seed': 1, 'trained_on': 'demo', 'tested_on': 'demo',
                          'result': 'a.json', 'log': None, 'checkpoint': None}]}
CELLS = st.text(max_size=3) | st.sampled_from(
    ['', 'a', 'a.png', '1', '-1', '1e308', '-1e308', '5e-324', 'nan', 'inf', '1_0', '١', '0x10', '1,5', 'True', '\0',
     '"', '\r', '\x1b', 'é', '2026-11-29', 'x' * 500])
HEADS = st.sampled_from(['name,mos,std,pq', 'name,score', 'img_name,mos', 'image,mos', 'image,reference', ''])


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Path:
    """A folder with the predictions a.csv, for results a.json and a study's outcomes.json."""
    folder = tmp_path_factory.mktemp('results')
    (folder / 'a.csv').write_text('name,mos,std,pq\na,1,1,1\nb,2,1,2\nc,3,1,2.5\n')
    return folder


def ends(main, *words: str) -> None:
    """Call a command, which may find its input wrong, but raises nothing else."""
    status = 0
    try:
        main(list(map(str, words)))
    except SystemExit as stop:
        status = stop.code
    assert status in (0, 1, 2)


@settings(ANY, max_examples=60)
@given(st.data())
def test_results_with_any_value_anywhere(results, data):
    (results / 'outcomes.json').unlink(missing_ok=True)
    place = data.draw(st.sampled_from(places(SUMMARY)))
    (results / 'a.json').write_text(json.dumps(changed(SUMMARY, place, data.draw(JSON))))
    for path in (results, results / 'a.json'):
        ends(check.main, path)


@settings(ANY, max_examples=60)
@given(st.data())
def test_outcomes_with_any_value_anywhere(results, data):
    (results / 'a.json').write_text(json.dumps(SUMMARY))
    place = data.draw(st.sampled_from(places(OUTCOMES)))
    (results / 'outcomes.json').write_text(json.dumps(changed(OUTCOMES, place, data.draw(JSON))))
    ends(check.main, results)


@pytest.mark.parametrize('name', ['setting', 'split', 'trained_on', 'tested_on'])
def test_a_label_that_no_table_can_hold_is_refused(results, fails, name):
    for label in ('\ud800', 'a\0b', 'a\nb', 3):
        (results / 'outcomes.json').write_text(json.dumps(changed(OUTCOMES, ('outcomes', 0, name), label)))
        assert 'outcomes.json: expected the outcomes of a study: a text' in fails(check.main, results)


def test_an_empty_path_of_a_log_is_a_path(results):
    (results / 'outcomes.json').write_text(json.dumps(changed(OUTCOMES, ('outcomes', 0, 'log'), '')))
    ends(check.main, results)


def refused_or(read, *arguments) -> object:
    """Return what a reader gives; None if it refuses its file in an error of the user."""
    try:
        return read(*arguments)
    except UserError:
        return None


def check_tables(path: Path) -> None:
    """Read a file as every kind of table; numbers that are taken give finite scores."""
    for read in (read_predictions, read_ratings, read_summary):
        refused_or(read, path)
    refused_or(table_of_pairs, io.BytesIO(path.read_bytes()))
    found = refused_or(ensemble.join_tables, [path, path])
    for how in ensemble.HOW if found else ():
        assert np.isfinite(found[0].combined(how)).all()


@settings(ANY, max_examples=60)
@given(HEADS, st.lists(st.lists(CELLS, max_size=4).map(','.join), max_size=4))
def test_tables_of_any_cells(results, head, rows):
    path = results / 'table.csv'
    path.write_text('\n'.join([head, *rows]), encoding='utf-8', newline='')
    check_tables(path)


@settings(ANY, max_examples=60)
@given(st.binary(max_size=40) | st.sampled_from([b'a,"' + b'x' * 140_000, b'a\rb,c\n', b'"a,b\n']))
def test_tables_of_any_bytes(results, content):
    (results / 'table.csv').write_bytes(content)
    check_tables(results / 'table.csv')


def test_a_row_that_is_none_is_named():
    for content in (b'a.png,r.png\n' + b'x' * 140_000 + b',r\n', b'a.png,r.png\nb\rc.png,r.png\n'):
        with pytest.raises(UserError, match='--img -: line 2 is not a row image,reference'):
            table_of_pairs(io.BytesIO(content))


def test_numbers_that_overflow_are_refused(tmp_path):
    (tmp_path / 'a.csv').write_text('name,score\na,1e308\nb,-1e308\n')
    with pytest.raises(UserError, match=r"a\.csv row 2: the score '1e308' is not a finite number of usual size"):
        ensemble.join_tables([tmp_path / 'a.csv'])


def test_a_path_that_no_file_can_have(tmp_path):
    for read in (Table.read, load_checkpoint, lambda path: read_json(path, dict, 'a dictionary')):
        with pytest.raises(UserError, match='null byte'):
            read(f'{tmp_path}/a\0b')


def test_a_list_with_null_bytes_is_refused():
    for content in (b'a.png\0b.png\0', b'a.png\nb\0.tar\n'):
        for read in (lambda lines: find_images(['-'], stdin=lines), table_of_pairs):
            with pytest.raises(UserError, match='--img -: a null byte in the list, as find -print0 writes them'):
                read(io.BytesIO(content.replace(b'.png\n', b'.png,r.png\n')))


READERS = {'checkpoint': load_checkpoint, 'state': read_state, 'table': Table.read, 'predictions': read_npy,
           'weights': lambda path: create_model('resnet18', weights=path),
           'pretrained': lambda path: load_pretrained(create_model(MINI[1]), path)}


@pytest.mark.parametrize('kind', READERS)
def test_a_named_pipe_is_not_waited_for(tmp_path, kind):
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    with pytest.raises(UserError, match='pipe: expected a file, found a named pipe'):
        READERS[kind](path)


def test_a_folder_of_checkpoints_may_hold_a_pipe(tmp_path, fails):
    os.mkfifo(tmp_path / 'a.pth')
    torch.save({}, tmp_path / 'b.pth')
    assert 'a.pth: expected a file' in fails(test_demo.main, '--about', tmp_path / 'a.pth')
