"""data/make_info.py: each data set's published format, small; and the two whole ones that are recorded."""
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from scipy.io import savemat

from data import make_info
from iqa_data.datasets import DATASETS
from iqa_data.info import read_info
from iqa_data.splits import SplitPlan, choose, split
from iqa_results.read import read_predictions

NAMES = [f'I0{ref}_0{kind}_{level}.bmp' for ref in (1, 2) for kind in (1, 2) for level in (1, 2)]


@pytest.fixture
def source(tmp_path):
    """An empty folder for published files, and a function that writes one."""
    folder = tmp_path / 'published'
    folder.mkdir()

    def write(name: str, text: str):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding='utf-8')
    return folder, write


def made(name: str, folder, out, *words: str):
    make_info.main([name, '--source', str(folder), '--out', str(out), *words])
    return read_info(out)


KONIQ = '''image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set
2.jpg,0,0,.2,.7,.1,105,77.5,.5,training
1.jpg,0,0,.2,.7,.1,96,60,.6,test
3.jpg,0,0,.2,.7,.1,96,50,.7,validation
4.jpg,0,0,.2,.7,.1,96,40,.8,training
'''


def test_koniq10k(source, tmp_path):
    folder, write = source
    write('koniq10k_distributions_sets.csv', KONIQ)
    info = made('koniq10k', folder, tmp_path / 'k.mat', '--partial')
    assert info.names == ['2.jpg', '1.jpg', '3.jpg', '4.jpg']
    assert info.index.T.tolist() == [[1, 4, 3, 2]]
    assert [rows.tolist() for rows in choose(info, SplitPlan()).values()] == [[0, 3], [2], [1]]
    write('koniq10k_scores_and_distributions.csv', '"image_name","c1","MOS","SD","MOS_zscore"\n' + ''.join(
        f'"{i}.jpg",0,3.5,0.{i},{i}0\n' for i in (1, 2, 3, 4, 5)))
    info = made('koniq10k', folder, tmp_path / 'k.mat', '--partial')
    assert info.mos.tolist() == [20, 10, 30, 40]
    assert info.std.tolist() == [.2, .1, .3, .4]
    assert len(info.about['sha256']) == 2


def test_the_whole_of_koniq10k(shared, tmp_path):
    recorded = read_predictions(shared / 'paper/npy/KonIQ-10k-Norm-in-Norm.npy')
    info = made('koniq10k', shared / 'paper', tmp_path / 'KonIQ-10kinfo.mat')
    for exp_id in range(3):
        parts = split(info, exp_id, 7058 / 10073, 8058 / 10073)
        assert {part: len(rows) for part, rows in parts.items()} == {'train': 7058, 'val': 1000, 'test': 2015}
        np.testing.assert_allclose(info.mos[parts['test']], recorded.mos, atol=1e-5)
        np.testing.assert_allclose(info.std[parts['test']], recorded.std, atol=1e-5)
    table = made('koniq10k', shared / 'paper', tmp_path / 'koniq.csv')
    assert table.names == info.names
    assert all(np.array_equal(parts[part], choose(table, SplitPlan())[part]) for part in parts)
    np.testing.assert_array_equal(table.mos, info.mos)
    assert 0 <= info.mos.min() < info.mos.max() <= 100


def clive_files(folder, names, mos, std):
    for name, values in (('AllMOS', mos), ('AllStdDev', std)):
        savemat(folder / f'{name}_release.mat', {f'{name}_release': np.atleast_2d(values)})
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    savemat(folder / 'AllImages_release.mat', {'AllImages_release': cells})


def test_clive(source, tmp_path, shared):
    folder, _ = source
    recorded = read_info(shared / 'paper/CLIVEinfo.mat')
    clive_files(folder, [f't{i}.bmp' for i in range(7)] + recorded.names, np.append(np.zeros(7), recorded.mos),
                np.append(np.zeros(7), recorded.std))
    info = made('clive', folder, tmp_path / 'c.mat')
    assert info.names == recorded.names
    np.testing.assert_array_equal(info.mos, recorded.mos)
    np.testing.assert_array_equal(info.std, recorded.std)
    assert info.ref_ids.tolist() == recorded.ref_ids.tolist()
    assert info.index.shape == recorded.index.shape == (1162, 1000)
    assert (np.sort(info.index, axis=0) == np.arange(1, 1163)[:, None]).all()
    assert len({tuple(column) for column in info.index.T[:20]}) == 20


def test_clive_files_that_disagree(source, tmp_path, fails):
    folder, _ = source
    clive_files(folder, [f'{i}.bmp' for i in range(9)], np.arange(9.), np.arange(8.))
    assert '2 images, 2 MOS and 1 standard deviations' in fails(make_info.main, 'clive', '--source', folder)
    (folder / 'AllMOS_release.mat').write_text('hello')
    assert 'AllMOS_release.mat: not a MATLAB file' in fails(make_info.main, 'clive', '--source', folder)


def test_kadid10k(source, tmp_path):
    folder, write = source
    write('dmos.csv', 'dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.25\nI02_01_01.png,I02.png,1,4\n')
    info = made('kadid10k', folder, tmp_path / 'k.csv', '--partial')
    assert info.mos.tolist() == [4.57, 1]
    assert info.std.tolist() == [.5, 2]
    assert info.references == ['I01.png', 'I02.png']
    assert info.higher_is_better


@pytest.mark.parametrize('name', ['tid2013', 'tid2008'])
def test_tid(source, tmp_path, name):
    folder, write = source
    lines = [f'{5 + i / 8:.5f} {image.lower() if i % 2 else image}\n' for i, image in enumerate(NAMES)]
    write('mos_with_names.txt', ''.join(lines))
    info = made(name, folder, tmp_path / 't.csv', '--partial')
    assert info.ref_ids.tolist() == [1] * 4 + [2] * 4
    assert info.references[-1] == 'I02'
    assert np.isnan(info.std).all()
    for image in NAMES:
        write(f'distorted_images/{image.lower()}', '')
    write('mos.txt', ''.join(line.split()[0] + '\n' for line in lines))
    write('mos_std.txt', ''.join(f'0.{i + 1}\n' for i in range(8)))
    info = made(name, folder, tmp_path / 't.csv', '--partial')
    assert info.names == [image.lower() for image in NAMES]
    np.testing.assert_allclose(info.std, np.arange(1, 9) / 10)
    write('mos.txt', '1\n' * 8)  # another order: whose std they are is not known
    assert np.isnan(made(name, folder, tmp_path / 't.csv', '--partial').std).all()


@pytest.mark.parametrize('suffix', ['csv', 'CSV', 'xlsx'])
def test_spaq(source, tmp_path, suffix):
    folder, _ = source
    frame = pd.DataFrame({'Image name': ['00001.jpg', '00002.jpg'], 'MOS': [43.5, 70], 'Brightness': [1, 2]})
    path = folder / f'MOS and Image attribute scores.{suffix}'
    if suffix == 'xlsx':
        pytest.importorskip('openpyxl')
        pd.concat([frame[:1], pd.DataFrame([{}, {'MOS': ' '}]), frame[1:]]).to_excel(path, index=False)  # empty rows
    else:
        frame.to_csv(path, index=False)
    info = made('spaq', folder, tmp_path / 's.csv', '--partial')
    assert info.names == ['00001.jpg', '00002.jpg']
    assert info.mos.tolist() == [43.5, 70]


def test_a_sheet_without_its_package(source, fails, monkeypatch):
    folder, write = source
    write('MOS and Image attribute scores.xlsx', 'not a sheet')
    monkeypatch.setitem(sys.modules, 'openpyxl', None)
    assert 'needs the package openpyxl: pip install openpyxl' in fails(make_info.main, 'spaq', '--source', folder)


def test_agiqa3k(source, tmp_path):
    folder, write = source
    write('data.csv', 'name,prompt,adj1,mos_quality,std_quality,mos_align,std_align\n'
                      'AttnGAN_normal_000.png,"a dog, asleep",,1.5,.3,2,.1\nglide_000.png,"a dog, asleep",,3,.2,2,.1\n')
    info = made('agiqa3k', folder, tmp_path / 'a.csv', '--partial')
    assert info.ref_ids.tolist() == [1, 1]
    assert info.mos.tolist() == [1.5, 3]
    assert info.std.tolist() == [.3, .2]


def test_pipal(source, tmp_path, fails):
    folder, write = source
    for ref in ('A0000', 'A0001'):
        write(f'Train_Label/{ref}.txt', f'{ref}_00_00.bmp,1452.26\n{ref}_00_01.bmp,1389.1\n')
    info = made('pipal', folder, tmp_path / 'p.csv', '--partial')
    assert info.names[2] == 'A0001_00_00.bmp'
    assert info.references == ['A0000', 'A0000', 'A0001', 'A0001']
    assert len(info.about['sha256']) == 2
    write('Train_Label/A0002.txt', 'A0002_00_00.bmp\n')
    assert 'A0002.txt row 1: the mos is empty' in fails(make_info.main, 'pipal', '--source', folder)


def test_any_table(source, tmp_path, capsys):
    folder, write = source
    write('my.csv', 'File Name,Rating,SD,Ref_Img,Subset,note\na,1,.1,r,training,x\nb,2,.2,r,Validation,\n'
                    'c,3,,s,test,\n')
    info = made('csv', folder / 'my.csv', tmp_path / 'out.csv')
    assert "Columns: image is 'File Name', mos is 'Rating', std is 'SD', reference is 'Ref_Img', part is 'Subset'" \
        in capsys.readouterr().out
    assert info.names == ['a', 'b', 'c']
    assert info.part.tolist() == ['train', 'val', 'test']
    assert info.references == ['r', 'r', 's']
    assert info.about['sha256'] == {'my.csv': hashlib.sha256((folder / 'my.csv').read_bytes()).hexdigest()}
    assert info.about['mos'] == [1, 3]
    write('my.csv', 'x,y,mos,score\na,1,9,5\nb,2,8,6\n')
    info = made('csv', folder, tmp_path / 'out.csv', '--image_column', 'x', '--mos_column', 'y', '--lower_is_better')
    assert info.mos.tolist() == [1, 2]
    assert not info.higher_is_better


def test_one_of_several_tables_is_not_chosen_for_the_user(source, tmp_path, fails):
    folder, write = source
    write('a.csv', 'image,mos\na,1\n')
    write('.a.csv', 'hidden')
    assert list(made('csv', folder, tmp_path / 'o.csv').about['sha256']) == ['a.csv']
    write('b.csv', 'image,mos\nb,2\n')
    error = fails(make_info.main, 'csv', '--source', folder)
    assert f'found {folder / "a.csv"} and {folder / "b.csv"}; name one' in error
    for place in ('', 'old/'):
        write(f'{place}dmos.csv', 'dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,.1\n')
    assert 'name one, or its folder' in fails(make_info.main, 'kadid10k', '--source', folder, '--partial')
    assert made('kadid10k', folder / 'old', tmp_path / 'k.csv', '--partial').mos.tolist() == [4.57]


def test_a_suffix_in_capitals(source, tmp_path):
    folder, write = source
    write('MY.CSV', 'image,mos\na,1\n')
    assert made('csv', folder / 'MY.CSV', tmp_path / 'a.csv').names == ['a']
    assert made('csv', folder, tmp_path / 'b.csv').about['sha256'].keys() == {'MY.CSV'}
    write('KONIQ10K_distributions_sets.csv', KONIQ)
    assert len(made('koniq10k', folder, tmp_path / 'k.csv', '--partial').names) == 4


def test_ratings_of_several_people(source, tmp_path, fails):
    folder, write = source
    rng = np.random.default_rng(0)
    ratings = {f'{i}.png': rng.integers(1, 6, size) for i, size in enumerate((1, 2, 5, 9))}
    rows = [f'{name},{rating},rater{i},ref{name[0]}' for name, some in ratings.items() for i, rating in enumerate(some)]
    write('my.csv', 'image,rating,who,reference\n' + '\n'.join(rng.permutation(rows)))
    assert 'again, first in row' in (error := fails(make_info.main, 'csv', '--source', folder))
    assert 'csv --aggregate mean takes a row for each rating' in error
    info = made('csv', folder, tmp_path / 'out.csv', '--aggregate', 'mean')
    votes = pd.read_csv(tmp_path / 'out.csv').votes
    for name, mos, std, count in zip(info.names, info.mos, info.std, votes, strict=True):
        assert count == len(ratings[name])
        np.testing.assert_allclose([mos, std], [np.mean(ratings[name]), np.std(ratings[name]) if count > 1 else np.nan])
    assert info.references == [f'ref{name[0]}' for name in info.names]
    write('my.csv', 'image,rating,reference\na,1,r\nb,2,r\na,3,s\n')
    assert "my.csv row 4: the reference of a is 's', in row 2 'r'" in fails(
        make_info.main, 'csv', '--source', folder, '--aggregate', 'mean')


def test_counts_of_marks_are_the_marks_themselves(source, tmp_path, capsys, fails):
    folder, write = source
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (6, 10)) + np.eye(6, 10, dtype=int)
    columns = rng.permutation(10)
    write('my.csv', ','.join(['image_id', *(f'c{mark + 1}' for mark in columns)]) + '\n' + ''.join(
        ','.join([f'{i}.jpg', *map(str, row[columns])]) + '\n' for i, row in enumerate(counts)))
    info = made('csv', folder, tmp_path / 'out.csv')
    assert 'mos, std: of the marks 1 to 10, counted in c' in capsys.readouterr().out
    marks = [np.repeat(np.arange(1, 11), row) for row in counts]
    np.testing.assert_allclose(info.mos, [some.mean() for some in marks])
    np.testing.assert_allclose(info.std, [some.std() for some in marks])
    write('my.csv', 'image;MOS;SD;n1;n2;n3;n4;n5\na;12,5;3;0;1;2;3;4\nb;80,5;2;1;1;1;0;0\n')
    beside = made('csv', folder, tmp_path / 'out.csv')  # a MOS on a scale of its own
    assert 'ratings: the marks 1 to 5, counted in n1' in capsys.readouterr().out
    assert (beside.mos.tolist(), beside.std.tolist(), beside.votes.tolist()) == ([12.5, 80.5], [3, 2], [10, 3])
    assert beside.ratings.tolist() == [[0, 1, 2, 3, 4], [1, 1, 1, 0, 0]]
    write('my.csv', 'image,c1,c2,c3,c4,c5\na,1,0,0,0,0\n')
    assert 'no column of ratings' in fails(make_info.main, 'csv', '--source', folder, '--aggregate', 'mean')
    write('my.csv', 'image,mos,votes,c1,c2,c3,c4,c5\na,1,9,.5,.5,0,0,0\n')
    shares = made('csv', folder, tmp_path / 'out.csv')
    assert (shares.votes.tolist(), shares.shares.tolist()) == ([9], [[.5, .5, 0, 0, 0]])
    write('my.csv', 'image,c1,c2,c3,c4,c5\na,1,0,0,0,-1\n')
    assert 'row 2: expected counts of marks, at least 0 and not all 0; found 1, 0, 0, 0, -1' in fails(
        make_info.main, 'csv', '--source', folder)
    write('my.csv', 'image,c1,c2,c3,c5,c6\na,1,0,0,0,1\n')
    assert 'looks like the mos' in fails(make_info.main, 'csv', '--source', folder)


@pytest.mark.parametrize('higher', [True, False])
def test_a_column_dmos_needs_its_direction(source, tmp_path, fails, higher):
    folder, write = source
    rng = np.random.RandomState(0)
    for i in range(24):
        grey = Image.fromarray(rng.randint(0, 256, (24, 32), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
        grey.filter(ImageFilter.GaussianBlur(i / 4)).save(folder / f'{i}.png')
    rows = ''.join(f'{i}.png,{-i if higher else i}\n' for i in range(24))
    write('my.csv', f'image,DMOS\n{rows}')
    error = fails(make_info.main, 'csv', '--source', folder, '--out', tmp_path / 'out.csv')
    direction = f'--{"higher" if higher else "lower"}_is_better'
    assert 'my.csv: the column DMOS may rise or fall with quality' in error
    assert f'a guess from 24 images is {direction}: rank correlation' in error
    assert not (tmp_path / 'out.csv').exists()
    assert made('csv', folder, tmp_path / 'out.csv', direction).higher_is_better == higher
    assert 'no guess: 0 of its images can be read in' in fails(
        make_info.main, 'csv', '--source', folder, '--im_dir', tmp_path)
    write('my.csv', f'image,mos\n{rows}')
    assert made('csv', folder, tmp_path / 'out.csv').higher_is_better


def test_a_table_becomes_a_mat_with_its_parts(source, tmp_path):
    folder, write = source
    write('my.csv', 'image,mos,part\na,1,test\nb,2,train\nc,3,val\n')
    info = made('csv', folder, tmp_path / 'out.mat')
    assert [rows.tolist() for rows in choose(info, SplitPlan()).values()] == [[1], [2], [0]]
    assert info.index.T.tolist() == [[2, 3, 1]]
    write('my.csv', 'image,mos\na,1\nb,2\nc,3\n')
    assert made('csv', folder, tmp_path / 'out.mat').index.shape == (3, 10)


def test_mistakes(source, tmp_path, fails):
    folder, write = source
    call = lambda name, *words: fails(make_info.main, name, '--source', folder, *words)  # noqa: E731
    assert 'no such file or folder' in fails(make_info.main, 'spaq', '--source', tmp_path / 'gone')
    assert 'found no dmos.csv' in call('kadid10k')
    write('dmos.csv', 'dist_img,ref_img,dmos\nI01_01_01.png,I01.png,4.57\n')
    assert 'dmos.csv: lacks the column var; it has: dist_img, ref_img, dmos' in call('kadid10k')
    write('dmos.csv', 'dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,.1\n')
    out = tmp_path / 'out.csv'
    assert 'not the whole of kadid10k: 1 images, expected 10125; 1 contents, expected 81 (--partial' in \
        call('kadid10k', '--out', out)
    assert not out.exists()
    assert 'expected a file that ends in .csv or .mat' in call('kadid10k', '--out', 'x.txt')
    write('dmos.csv', 'a,b\n1,2\n')
    assert 'none of its columns looks like the image: a, b; name it with --image_column' in call('csv')
    write('dmos.csv', '')
    assert 'dmos.csv: it is empty' in call('csv')
    write('dmos.csv', 'image,b\n1,2\n')
    assert 'looks like the mos: image, b; name it with --mos_column' in call('csv')
    assert 'lacks the column c; it has: image, b' in call('csv', '--mos_column', 'c')
    write('dmos.csv', 'image,mos,set\n1,2,other\n')
    assert "row 2: the part is 'other'" in call('csv')
    write('dmos.csv', 'image,mos\n1,2\n')
    assert 'would overwrite --source' in call('csv', '--out', folder / 'dmos.csv')


@pytest.mark.parametrize('name', sorted(set(DATASETS) - {'demo'}))
def test_the_command_that_makes_a_known_info_file_is_whole(name):
    words, = re.findall(r'make_info\.py (.*?) writes', DATASETS[name].how_to_get)
    args = make_info.parser().parse_args(words.split())
    assert Path(DATASETS[name].info) == Path('data', make_info.default_out(args.name, '').name)


def test_it_runs_from_anywhere(source, tmp_path, script, capsys):
    folder, write = source
    write('my.csv', 'image,mos\na,1\n')
    assert script('data/make_info.py', 'csv', '--source', folder, '--out', 'x.csv', folder=tmp_path) == 0
    assert 'x.csv: 1 images, contents are not known' in capsys.readouterr().out
    assert read_info(tmp_path / 'x.csv').names == ['a']


@pytest.mark.parametrize(('name', 'hint'), [('konik10k', 'did you mean koniq10k'), ('nothing', 'expected one of')])
def test_an_unknown_data_set_names_the_nearest(name, hint, fails):
    assert hint in fails(make_info.main, name, '--source', '.')


def test_a_data_set_by_its_usual_name(tmp_path, fails):
    assert 'data.csv' in fails(make_info.main, 'AGIQA-3K', '--source', str(tmp_path))
