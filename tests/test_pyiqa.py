"""The files and splits of the pyiqa toolbox: read, written, refused; its ten splits as recorded."""
import hashlib
import pickle

import numpy as np
import pytest
from conftest import SMALL, make_tiny
from golden import cases, recorded

import main
from data import make_info
from iqa_data.info import read_info
from iqa_data.pyiqa import pyiqa_splits, read_splits, write_meta_info, write_splits
from iqa_data.splits import SplitPlan, choose, rows_in_file
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN
from IQAdataset import get_data_loaders


@pytest.mark.parametrize('n', [2, 7, 100, 2982])
def test_splits_cover_the_rows_and_differ(n):
    splits = pyiqa_splits(n)
    assert len(splits) == 10
    assert all(sorted(split['train'] + split['val']) == list(range(n)) for split in splits)
    assert {len(split['train']) for split in splits} == {round(.8 * n)}
    assert pyiqa_splits(n) == splits != pyiqa_splits(n, seed=1)


def test_recorded_splits(shared):
    for case in cases(recorded(shared, 'cnniqa'), 'splits'):
        splits = pyiqa_splits(case['n'], case['seed'])
        for known in case['splits']:
            for part, rows in splits[known['split'] - 1].items():
                assert rows[:6] == known[f'{part}_first']
                assert hashlib.sha256(','.join(map(str, rows)).encode()).hexdigest() == known[f'{part}_sha256']


def test_tables(tmp_path):
    path = tmp_path / 'meta_info_ours.csv'
    write_meta_info(path, ['a.png', 'b.png'], [1.5, 2], [.25, np.nan])
    info = read_info(path)
    assert info.names == ['a.png', 'b.png']
    assert info.mos.tolist() == [1.5, 2]
    np.testing.assert_equal(info.std, [.25, np.nan])
    path.write_text('ref,dist,score,std,more\nr1,a.png,1,.1,x\nr1,b.png,2,.2,y\n')
    info = read_info(path)
    assert info.names == ['a.png', 'b.png']
    assert info.references == ['r1', 'r1']
    assert info.std.tolist() == [.1, .2]
    path.write_text('name,prompt,style,mos\na.png,statue,old,3\n')
    with pytest.raises(UserError, match='meta_info_ours.csv: expected the columns file and MOS'):
        read_info(path)


ROWS = [f'{i}.png,{i},.1' for i in range(6)]


def test_the_splits_of_tables(tmp_path, capsys):
    path = tmp_path / 'meta_info_ours.csv'
    official, first, second = '001122', ['train'] * 3 + ['val'] * 3, ['val'] * 3 + ['train'] * 3
    header = 'img_name,mos,std,split,official_split,ratio802_seed123_split_01,ratio802_seed123_split_02\n'
    path.write_text(header + ''.join(f'{row},{i % 3},{official[i]},{first[i]},{second[i]}\n'
                                     for i, row in enumerate(ROWS)))
    info = read_info(path)
    assert [rows.tolist() for rows in choose(info, SplitPlan()).values()] == [[0, 1], [2, 3], [4, 5]]
    for index, parts in ((1, [[0, 1, 2], [3, 4, 5]]), (2, [[3, 4, 5], [0, 1, 2]])):
        assert [rows.tolist() for rows in choose(info, SplitPlan('pyiqa', index=index)).values()] == parts
    assert 'no official split' not in capsys.readouterr().out
    with pytest.raises(UserError, match='--split_index 3: the info file has the splits 1, 2'):
        choose(info, SplitPlan('pyiqa', index=3))
    path.write_text('img_name,mos,std,split\n' + ''.join(f'{row},{i % 3}\n' for i, row in enumerate(ROWS)))
    assert [rows.tolist() for rows in choose(read_info(path), SplitPlan()).values()] == [[0, 3], [1, 4], [2, 5]]
    path.write_text('img_name,mos,std,split\n' + ''.join(f'{row},{i}\n' for i, row in enumerate(ROWS)))
    with pytest.raises(UserError, match=r"row 5: the part is '3'; expected one of: train, val, test"):
        read_info(path)


def test_split_files(tmp_path):
    path = tmp_path / 'ours.pkl'
    write_splits(path, pyiqa_splits(10))
    for index in (1, 10):
        parts = rows_in_file(path, [f'{i}.png' for i in range(10)], index)
        assert parts['train'].tolist() == sorted(pyiqa_splits(10)[index - 1]['train'])
        assert [len(rows) for rows in parts.values()] == [8, 2, 0]
    path.write_bytes(pickle.dumps({1: {'train': [2], 'val': [0], 'test': [1]}}))
    assert rows_in_file(path, 'abc')['test'].tolist() == [1]


class Harmful:
    def __reduce__(self):
        return print, ('run',)


@pytest.mark.parametrize(('content', 'message'), [
    ({1: {'train': np.arange(3), 'val': [3]}}, r'refused: it asks for numpy.*expected splits'),
    (Harmful(), r'refused: it asks for builtins.print'),
    ([1, 2], r'expected a dictionary of splits.*found list'),
    ({'a': {'train': [0]}}, r"found 'a': dict"),
    ({1: {'train': [0], 'dev': [1]}}, r"found 'dev': list in split 1"),
    ({1: {'train': [0], 'val': [1.5]}}, r"found the row '1.5' in val of split 1"),
    ({1: {'train': [0], 'val': [True]}}, r"found the row 'True' in val"),
    ({2: {'train': [0, 1], 'val': [2]}}, r'no split 1; it has 2'),
    ({1: {'train': [0, 1, 2], 'val': [3]}}, r'split 1 names 4 rows up to 3; the data set has 3, 0 to 2'),
    ({1: {'train': [0], 'val': [1]}}, r'split 1 names 2 rows up to 1; the data set has 3'),
    ({1: {'train': [0, 1], 'val': [1]}}, r'split 1 names 3 rows up to 1, 1 of them twice; the data set has 3')])
def test_split_files_that_are_refused(content, message, tmp_path, capsys):
    path = tmp_path / 'odd.pkl'
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=f'odd.pkl.*{message}'):
        rows_in_file(path, 'abc')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('data', [b'', b'text', pickle.dumps({1: {'train': [0]}})[:-5]])
def test_damaged_split_files(data, tmp_path):
    (tmp_path / 'odd.pkl').write_bytes(data)
    with pytest.raises(UserError, match='odd.pkl: not a file of splits'):
        read_splits(tmp_path / 'odd.pkl')


def test_options(tmp_path, monkeypatch, fails):
    make_tiny(tmp_path / 'tiny')
    info = read_info(tmp_path / 'tiny/info.mat')
    monkeypatch.chdir(tmp_path)
    write_meta_info('meta_info_tiny.csv', info.names, info.mos, info.std)
    write_splits('tiny.pkl', pyiqa_splits(24))
    words = ['--dataset', 'meta_info_tiny.csv', '--im_dir', 'tiny/images', *SMALL, '--test_fold', 'val']
    made = get_data_loaders(TRAIN.parse([*words, '--split', 'pyiqa', '--split_index', '3']))
    read = get_data_loaders(TRAIN.parse([*words, '--split_file', 'tiny.pkl', '--split_index', '3']))
    assert made.names == read.names == {part: [info.names[i] for i in sorted(rows)]
                                        for part, rows in pyiqa_splits(24)[2].items()}
    assert made.tested == 'val'
    assert '--split_index 2 needs --split pyiqa' in fails(main.main, *words, '--split_index', '2')
    assert '--split_index 11: expected 1 to 10' in fails(main.main, *words, '--split', 'pyiqa', '--split_index', '11')


def test_make_info_writes_them(tmp_path, capsys):
    (tmp_path / 'data.csv').write_text('name,prompt,mos_quality,std_quality\n'
                                       + ''.join(f'{i}.jpg,p{i % 3},{i / 2},.5\n' for i in range(9)))
    make_info.main(['agiqa3k', '--source', str(tmp_path), '--out', str(tmp_path / 'A.csv'), '--partial', '--pyiqa'])
    assert 'meta_info_A.csv' in capsys.readouterr().out
    ours, theirs = read_info(tmp_path / 'A.csv'), read_info(tmp_path / 'meta_info_A.csv')
    assert ours.names == theirs.names
    assert np.array_equal(ours.mos, theirs.mos)
    first = choose(theirs, SplitPlan('pyiqa'))
    assert np.array_equal(rows_in_file(tmp_path / 'A.pkl', ours.names)['val'], first['val'])
