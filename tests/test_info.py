"""Info files: the table and the .mat, what they keep, what they refuse; data sets that are a file."""
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from PIL import Image

import main
import test_dataset
import test_demo
from iqa_data.datasets import dataset_name, named_source
from iqa_data.info import Info, read_info, write_info
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_training.naming import run_name
from iqa_training.options import TRAIN

ABOUT = {'dataset': 'x', 'sha256': {'a.csv': '0' * 64}, 'higher_is_better': False}


def table(path, text: str, encoding: str = 'utf-8'):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize('suffix', ['.csv', '.mat'])
def test_what_is_known_survives(tmp_path, suffix):
    names = ['sub/ö 1.png', 'b,"q".png', '写真.jpg']
    write_info(tmp_path / f'x{suffix}', names, [1 / 3, 2, 1e-7], [.1, np.nan, 3], [1, 2, 1], np.array([[2], [1]]),
               part=np.array(['train', 'val', 'test'], object), references=['r', 's', 'r'], about=ABOUT)
    info = read_info(tmp_path / f'x{suffix}')
    assert info.names == names
    assert info.mos.tolist() == [1 / 3, 2, 1e-7]
    np.testing.assert_array_equal(info.std, [.1, np.nan, 3])
    assert info.ref_ids.tolist() == [1, 2, 1]
    assert info.part.tolist() == ['train', 'val', 'test']
    assert info.about == ABOUT
    assert not info.higher_is_better
    assert info.references == ['r', 's', 'r']
    assert info.index.shape == ((2, 0) if suffix == '.csv' else (2, 1))


def test_the_table_is_plain_to_pandas(tmp_path):
    write_info(tmp_path / 'x.csv', ['a', 'b'], [1, 2], [np.nan, np.nan], [1, 2], np.empty((2, 0)), about=ABOUT)
    frame = pd.read_csv(tmp_path / 'x.csv')
    assert list(frame) == ['image', 'mos', 'about']
    assert frame['mos'].tolist() == [1, 2]
    assert json.loads(frame['about'][0]) == ABOUT


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.one_of(st.just(float('nan')), st.floats(0, 1e9))), min_size=1,
                max_size=20))
def test_any_score_round_trips(tmp_path_factory, scores):
    mos, std = np.array(scores).T
    path = tmp_path_factory.mktemp('t') / 'x.csv'
    write_info(path, list(map(str, range(len(mos)))), mos, std, range(1, len(mos) + 1), np.empty((len(mos), 0)))
    np.testing.assert_array_equal(read_info(path).mos, mos)
    np.testing.assert_array_equal(read_info(path).std, std)


@pytest.mark.parametrize(('text', 'encoding'), [
    ('image,mos,std\na/1.png,1.5,\na/2.png,2,3\n', 'utf-8-sig'),
    ('image;mos;std\r\na\\1.png;1,5;\r\na\\2.png;2;3\r\n', 'utf-8'),
    ('image\tstd\tmos\n./a//1.png\t\t1.5\n\na\\2.png\t3\t2\n\n', 'utf-8'),
    (' image , mos ,std,extra\n a/1.png , 1.5,,"x, y"\na/2.png,2,3\n', 'utf-8'),
])
def test_how_tables_are_written_elsewhere(tmp_path, text, encoding):
    info = read_info(table(tmp_path / 'x.csv', text, encoding))
    assert info.names == ['a/1.png', 'a/2.png']
    assert info.mos.tolist() == [1.5, 2]
    np.testing.assert_array_equal(info.std, [np.nan, 3])


@pytest.mark.parametrize(('text', 'message'), [
    ('name,score\na,1\n', r'x.csv: lacks the column image, mos; it has: name, score; expected image, mos and, where'),
    ('image,MOS\na,1\n', r'lacks the column mos; it has: image, MOS; .*make_info.py csv converts'),
    ('', r'it has: none'),
    ('image,mos\n', r'x.csv: it holds no images'),
    ('image,mos\na,1\nb,\n', r'x.csv row 3: the mos is empty'),
    ('image,mos\na,1\n\nb,good\n', r"x.csv row 4: the mos 'good' is not a finite number"),
    ('image,mos\na,inf\n', r"row 2: the mos 'inf' is not a finite number"),
    ('image,mos,std\na,1,nan\n', r"row 2: the std 'nan' is not a finite number"),
    ('image,mos,std\na,1,0\nb,2,-1\n', 'the std of b is -1; expected a finite number of at least 0'),
    ('image,mos\n,1\n', r'row 2: the image is empty'),
    ('image,mos\na,1\nb,2\n./a,1\n', r'row 4: a again, first in row 2, with the same mos 1; data/make_info.py'),
    ('image,mos\na,1\na,2\na,2\n', r'row 3: a again, first in row 2, with the mos 1 and 2 \(2 rows repeat an image\)'),
    ('image,mos,mos\na,1,2\n', r"two columns are called 'mos'"),
    ('image,mos\na,1,2\n', r'row 2: 3 cells in a table of 2 columns'),
    ('image,mos\na,1,2,3\n', r'row 2: 4 cells, more than the table has columns'),
    ('image,mos\n"a,1\nb,2\n', r'x.csv: not a table \(.*EOF inside string'),
    ('image,mos,x\na,1,"a\nb"\nc,x,\n', r"row 3: the mos 'x' is not a finite number"),
    ('image,mos,part\na,1,train\nb,2,eval\n', r"row 3: the part is 'eval'; expected one of: train, val, test"),
    ('image,mos\nC:\\photos\\a.png,1\n', r'row 2: C:/photos/a.png is an absolute path of a Windows machine'),
])
def test_tables_with_mistakes(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_info(table(tmp_path / 'x.csv', text))


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.txt'])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
@pytest.mark.parametrize('before', ['', '{0}', '# by 3 people, 2024\n', '{0}# one\n#two\n'])
def test_lines_before_the_header(tmp_path, suffix, separator, before):
    before = before.format(f'sep={separator}\r\n')
    text = before + separator.join(('image', 'mos')) + '\n#1.png' + separator + '1.5\n\n2.png' + separator + '2\n'
    info = read_info(table(tmp_path / f'x{suffix}', text))
    assert (info.names, info.mos.tolist()) == (['#1.png', '2.png'], [1.5, 2])
    row = 5 + before.count('\n')
    with pytest.raises(UserError, match=f"row {row}: the mos 'good' is not a finite number"):
        read_info(table(tmp_path / f'x{suffix}', f'{text}3.png{separator}good\n'))
    with pytest.raises(UserError, match=f'row {row}: 4 cells'):
        read_info(table(tmp_path / f'x{suffix}', f'{text}3.png{separator}1{separator}2{separator}3\n'))


def test_a_number_of_python_alone_is_no_score(tmp_path):
    with pytest.raises(UserError, match="row 2: the mos '12_3' is not a finite number"):
        read_info(table(tmp_path / 'x.csv', 'image,mos\na,12_3\n'))


@pytest.mark.parametrize(('listed', 'there', 'hint'), [
    ('a.PNG', 'a.png', 'nearest to it: images/a.png'),
    ('a', 'a.png', 'nearest to it: images/a.png'),
    ('a.jpg', 'a.png', 'nearest to it: images/a.png'),
    ('caf\u00e9.png', 'cafe\u0301.png', 'in another form of Unicode'),
    ('cafe\u0301.png', 'caf\u00e9.png', 'in another form of Unicode'),
])
def test_a_missing_image_names_the_nearest_file(tmp_path, monkeypatch, fails, listed, there, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'images').mkdir()
    for name in (there, 'other.png', 'zebra.png'):
        Image.new('RGB', (8, 8)).save(f'images/{name}')
    table(tmp_path / 'x.csv', f'image,mos\n{listed},1\nother.png,2\nzebra.png,3\n')
    error = fails(main.main, '--dataset', 'x.csv', '--im_dir', 'images', *SMALL)
    assert '1 of 3 images cannot be read' in error
    assert hint in error


def test_files_that_are_no_tables(tmp_path):
    for data in (b'\xff\xfei\0m\0', b'\x89PNG\r\n\x1a\n\xff', b'image,mos\n' + b'a,1\n' * 200_000 + b'\xff'):
        (tmp_path / 'x.csv').write_bytes(data)
        with pytest.raises(UserError, match='x.csv: not a text file in UTF-8'):
            read_info(tmp_path / 'x.csv')
    with pytest.raises(UserError, match='gone.csv: no such file'):
        read_info(tmp_path / 'gone.csv')
    (tmp_path / 'folder.csv').mkdir()
    with pytest.raises(UserError, match='folder.csv: expected a file, found a folder'):
        read_info(tmp_path / 'folder.csv')


def test_fields_must_agree():
    with pytest.raises(UserError, match='disagree in length: im_names 1, .*part 2'):
        Info(['a'], np.ones(1), np.ones(1), np.ones(1, int), np.ones((1, 1), int), np.array(['train', 'val']))


def test_a_data_set_that_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / 'my set.csv', 'image,mos\na,1\n')
    (tmp_path / 'sub').mkdir()
    table(tmp_path / 'sub' / 'my set.csv', 'image,mos\na,1\n')
    args = TRAIN.parse(['--dataset', './my set.csv'])
    assert args.dataset == 'my set.csv'
    assert dataset_name(args.dataset) == 'my set'
    name = run_name(args)
    assert '/' not in name
    assert '-my_set-' in name
    other = run_name(TRAIN.parse(['--dataset', 'sub/my set.csv']))
    assert '/' not in other
    assert other != name
    assert named_source('sub/my set.csv', None, None).im_dir == 'sub'
    assert named_source('sub/my set.csv', 'images', None).im_dir == 'images'
    long = 'x' * 200 + '.csv'
    shutil.copy('my set.csv', long)
    assert len(run_name(TRAIN.parse(['--dataset', long]))) < 150


@pytest.mark.parametrize(('words', 'message'), [
    (['--dataset', 'mi.csv'], 'mi.csv: no such file (did you mean my.csv?)'),
    (['--dataset', 'gone/x.mat'], 'gone/x.mat: no such file'),
    (['--dataset', 'KonIQ10k.csv'], 'did you mean KonIQ-10k?'),
    (['--dataset', 'koniq-1k'], 'did you mean KonIQ-10k?'),
    (['--dataset', 'my.csv', '--data_info', 'x.mat'], '--dataset my.csv is an info file already'),
    (['--dataset', 'folder'], 'folder is a folder; expected an info file'),
    (['--dataset', 'my.xlsx'], 'my.xlsx is a spreadsheet: save it as .csv, with the columns image and mos'),
    (['--dataset', 'my', 'ratings.csv'], "a path with spaces needs quotes: 'my ratings.csv'"),
    (['--im_dir', 'a', 'folder'], "a path with spaces needs quotes: 'a folder'"),
])
def test_mistakes_in_the_name_of_a_data_set(tmp_path, monkeypatch, fails, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ('folder', 'a folder'):
        (tmp_path / name).mkdir()
    for name in ('my.xlsx', 'my ratings.csv'):
        (tmp_path / name).touch()
    table(tmp_path / 'my.csv', 'image,mos\na,1\n')
    assert message in fails(lambda argv: TRAIN.parse(argv), *words)


def test_only_files_that_read_as_info_files_are_proposed(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / 'mine.csv', 'image,mos\na,1\n')
    others = {'requirements.txt': 'torch>=2\nnumpy\n', 'scores.csv': 'image,score\na,1\n', 'x.mat': '1'}
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    message = fails(lambda argv: TRAIN.parse(argv), '--dataset', 'requirement.txt')
    assert 'mine.csv' in message
    assert not any(name in message for name in others)


def test_train_test_and_score_with_a_table(tiny, tmp_path, fails, capsys):
    """A table without std, official parts in it; found again by the checkpoint, and where it moved to."""
    info = read_info('tiny/info.mat')
    parts = ['test', 'val', 'train', 'train'] * 6
    about = [json.dumps({'higher_is_better': False}), *[''] * 23]
    pd.DataFrame({'image': info.names, 'mos': info.mos, 'part': parts, 'about': about}).to_csv('set.csv', index=False)
    words = ['--dataset', 'set.csv', '--im_dir', 'tiny/images', *SMALL, *MINI]
    performance = main.main([*words, '-e', '1'])
    assert np.isfinite(performance.pq).all()
    assert np.isnan(performance.sq_std).all()
    (file,) = (tmp_path / 'checkpoints').glob('*-set-*.pth')
    assert load_checkpoint(file)['mos']['higher_is_better'] is False
    (result,) = (tmp_path / 'results').glob('*.csv')
    assert pd.read_csv(result, dtype=str)['name'].tolist() == info.names[::4]

    assert test_demo.main(['--img', 'tiny/images/00.png', *words, '-e', '1'])

    shutil.move('set.csv', 'tiny/set.csv')
    assert 'set.csv not found' in fails(test_dataset.main, '-modelfile', str(file), '--im_dir', 'tiny/images')
    moved = ['-modelfile', str(file), '--dataset', 'tiny/set.csv', '--im_dir', 'tiny/images', '--device', 'cpu']
    np.testing.assert_allclose(test_dataset.main(moved).pq, performance.pq, rtol=1e-5)


def test_tiny_tables(tiny, tmp_path, fails):
    for n in (1, 2):
        rows = ''.join(f'{i:02d}.png,{i}\n' for i in range(n))
        table(tmp_path / 'few.csv', f'image,mos\n{rows}')
        error = fails(main.main, '--dataset', 'few.csv', '--im_dir', 'tiny/images', *SMALL)
        assert f'the split leaves {"train" if n == 1 else "val"} empty: {n} images' in error
    table(tmp_path / 'few.csv', 'image,mos\n')
    assert 'few.csv: it holds no images' in fails(main.main, '--dataset', 'few.csv', '--im_dir', 'tiny/images', *SMALL)
