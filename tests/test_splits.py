"""Splits: disjoint, whole, repeatable, by content if they say so; written, read, hashed; the warning."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from mini import MINI

import main
import test_dataset
from iqa_data.datasets import DATASETS
from iqa_data.info import Info
from iqa_data.splits import SPLITS, SplitPlan, choose, rows_in_file, shared_contents
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.split_file import by_set, names_in_parts, read_split, split_hash, write_split
from iqa_scoring.options import TEST
from iqa_training.naming import run_name
from iqa_training.options import TRAIN
from IQAdataset import get_data_loaders, plan_of

BY_CONTENT = ('official', 'reference', 'kfold', 'all')


def info_of(refs, mos=None, **more) -> Info:
    refs = np.unique(refs, return_inverse=True)[1] + 1
    n = len(refs)
    mos = np.arange(n, dtype=float) if mos is None else np.asarray(mos, float)
    return Info([f'{i}.png' for i in range(n)], mos, np.full(n, np.nan), refs, np.empty((refs.max(), 0), int), **more)


@st.composite
def cases(draw):
    refs = draw(st.lists(st.integers(0, 30), min_size=10, max_size=60).filter(lambda refs: len(set(refs)) >= 10))
    mos = draw(st.lists(st.integers(0, 5), min_size=len(refs), max_size=len(refs)))
    folds = draw(st.integers(3, len(set(refs))))
    plan = SplitPlan(draw(st.sampled_from(list(SPLITS))), draw(st.integers(0, 5)), draw(st.sampled_from((.2, .5, .6))),
                     .8, draw(st.integers(0, 2 ** 32 - 1)), folds, draw(st.integers(0, folds - 1)))
    return info_of(refs, mos), plan


@settings(deadline=None)
@given(cases())
def test_parts_are_disjoint_and_cover_the_set(case):
    info, plan = case
    parts = choose(info, plan)
    assert list(parts) == ['train', 'val', 'test'][:2 if plan.split in ('pyiqa', 'all') else 3]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(info.names)))
    assert all((np.diff(rows) > 0).all() for rows in parts.values())
    if plan.split in BY_CONTENT:
        assert not shared_contents(info, parts)
    again = choose(info, plan)
    assert all(np.array_equal(parts[part], again[part]) for part in parts)


@given(cases(), st.sampled_from(['kfold', 'kfold-sorted']))
def test_over_all_folds_every_image_is_validated_once_and_tested_once(case, split):
    info, plan = case
    runs = [SPLITS[split](info, SplitPlan(split, seed=plan.seed, folds=plan.folds, fold=i)) for i in range(plan.folds)]
    for part in ('val', 'test'):
        assert sorted(np.concatenate([run[part] for run in runs])) == list(range(len(info.names)))


def test_sorted_folds_interleave_from_the_highest_score():
    mos = np.array([30, 50, 10, 50, 20, 90, 50, 0, 70, 60, 80, 40])
    descending = [5, 10, 8, 9, 1, 3, 6, 11, 0, 4, 2, 7]  # the three of 50 in their order
    info = info_of(range(12), mos)
    for fold, places in ((0, [4, 9]), (1, [3, 8]), (2, [2, 7]), (3, [1, 6, 11]), (4, [0, 5, 10])):
        val = choose(info, SplitPlan('kfold-sorted', folds=5, fold=fold))['val']
        assert sorted(val) == sorted(descending[place] for place in places)
    assert np.array_equal(choose(info, SplitPlan('kfold-sorted', fold=4))['test'],
                          choose(info, SplitPlan('kfold-sorted', fold=0))['val'])


def test_seeds_and_repetitions_change_random_splits():
    info = info_of(range(40))
    for split in ('random', 'reference', 'official', 'kfold'):
        made = [split_hash({part: [info.names[i] for i in rows] for part, rows in choose(info, plan).items()})
                for plan in (SplitPlan(split), SplitPlan(split, seed=1), SplitPlan(split, exp_id=1))]
        assert len(set(made)) == 3


def test_official_is_the_column_part_then_the_index_then_random(capsys):
    part = np.array(['val', 'train', 'test', 'train'], object)
    assert choose(info_of(list('abcd'), part=part), SplitPlan())['train'].tolist() == [1, 3]
    assert capsys.readouterr().out == ''
    choose(info_of(range(10)), SplitPlan())
    assert 'no official split: images are split at random, --split_seed 0 --exp_id 0' in capsys.readouterr().out

    choose(info_of([*range(9), 0]), SplitPlan())
    assert 'no official split: contents are split at random' in capsys.readouterr().out


def of_names(*names: str) -> Info:
    info = info_of(range(len(names)))
    return replace(info, names=list(names))


SCENES = [f'{distortion}/I{scene:02d}_{level}.bmp' for distortion in ('blur', 'jpeg') for scene in range(1, 13)
          for level in (1, 2)]


def test_names_that_look_like_scenes_are_noted(capsys):
    choose(of_names(*SCENES), SplitPlan('random'))
    assert "Note: 12 of 12 beginnings of names that look like scenes, as 'i01', are" in capsys.readouterr().out
    by_scene = np.array(['train' if 'I01' <= name[5:8] < 'I09' else 'val' if name[5:8] < 'I11' else 'test'
                         for name in SCENES], object)
    choose(replace(of_names(*SCENES), part=by_scene), SplitPlan())
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('names', [
    [f'{i}.jpg' for i in range(40)], [f'IMG_{i:04d}.jpg' for i in range(40)], [f'photo-{i}.png' for i in range(40)],
    [f'{model}_normal_{i:03d}.jpg' for i in range(300) for model in ('glide', 'sd1.5', 'xl2', 'attn')],
    [f'{i}_{i % 7}.jpg' for i in range(40)],
], ids=['numbers', 'camera', 'one word', 'generators', 'all alone'])
def test_names_without_a_scene(names, capsys):
    choose(of_names(*names), SplitPlan('random'))
    assert capsys.readouterr().out == ''


def test_shared_contents_are_said(capsys):
    choose(info_of([0, 1] * 10), SplitPlan('random'))
    assert '2 of 2 contents are in more than one part' in capsys.readouterr().out


@pytest.mark.parametrize(('plan', 'message'), [
    (SplitPlan('kfold', fold=5), r'--fold 5: expected 0..4 with --folds 5'),
    (SplitPlan('kfold-sorted', folds=3, fold=-1), r'--fold -1: expected 0..2 with --folds 3'),
    (SplitPlan('kfold', folds=4, fold=0), r'--folds 4: expected at most one fold for each of the 3 contents'),
    (SplitPlan('kfold-sorted', folds=7, fold=0), r'--folds 7: expected at most one fold for each of the 6 images'),
    (SplitPlan('kfold', folds=2, fold=0), r'the split leaves train empty: 6 images with --split kfold'),
    (SplitPlan('random', train_ratio=.1), r'the split leaves train empty'),
])
def test_splits_that_cannot_be(plan, message):
    with pytest.raises(UserError, match=message):
        choose(info_of([0, 0, 1, 1, 2, 2]), plan)


def test_an_official_split_needs_no_test_part():
    assert list(choose(info_of(list('ab'), part=np.array(['train', 'val'], object)), SplitPlan())) == ['train', 'val']
    with pytest.raises(UserError, match='leaves val empty: 2 images with --split official'):
        choose(info_of(list('ab'), part=np.array(['train', 'test'], object)), SplitPlan())


def test_split_files_round_trip_and_the_hash_is_of_the_content(tmp_path):
    names = {'train': ['a', 'b,"'], 'val': ['ö'], 'test': ['d']}
    write_split(tmp_path / 's.csv', names)
    assert (tmp_path / 's.csv').read_text(encoding='utf-8').splitlines()[0] == 'image,part'
    parts = rows_in_file(tmp_path / 's.csv', ['d', 'ö', 'b,"', 'a'])
    assert {part: rows.tolist() for part, rows in parts.items()} == {'train': [2, 3], 'val': [1], 'test': [0]}
    assert split_hash(names) == split_hash({'test': ['d'], 'val': ['ö'], 'train': ['b,"', 'a']})
    assert split_hash(names) != split_hash({**names, 'val': ['d'], 'test': ['ö']})
    assert len(split_hash(names)) == 16


def test_an_image_of_several_rows_is_written_once_and_the_hash_is_of_the_file(tmp_path):
    names = {'train': ['a', 'b', 'a'], 'val': ['c']}
    write_split(tmp_path / 's.csv', names)
    assert read_split(tmp_path / 's.csv') == {'train': ['a', 'b'], 'val': ['c']}
    assert split_hash(read_split(tmp_path / 's.csv')) == split_hash(names)


@pytest.mark.parametrize('sets', [['one'], ['one', 'two'], ['one', 'one/more', 'two']])
def test_the_split_of_several_data_sets_is_that_of_each_again(sets, tmp_path):
    splits = [{'train': ['a', 'b/c'], 'val': ['=d'], **({'test': ['e']} if i else {})} for i in range(len(sets))]
    write_split(tmp_path / 's.csv', names_in_parts(sets, splits))
    assert by_set(read_split(tmp_path / 's.csv'), sets, 's.csv') == dict(zip(sets, splits, strict=True))
    with pytest.raises(UserError, match=r's.csv: three/f is of no data set of the run; expected SET/IMAGE.*: one, two'):
        by_set({'val': ['one/a', 'three/f']}, ['one', 'two'], 's.csv')


@pytest.mark.parametrize(('text', 'message'), [
    ('image,part\na,train\nb,val\na,test\n', r's.csv row 4: a again, first in row 2'),
    ('image,part\na,train\nb,val\nc,eval\n', r"s.csv row 4: the part is 'eval'; expected one of: train, val, test"),
    ('image,part\na,train\n,val\n', r's.csv row 3: the image is empty'),
    ('image,set\na,train\n', r's.csv: lacks the column part; it has: image, set; expected image, part'),
    ('image,part\n', r's.csv: it holds no images'),
])
def test_tables_that_are_no_split(tmp_path, text, message):
    (tmp_path / 's.csv').write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / 's.csv')


@pytest.mark.parametrize(('text', 'message'), [
    ('image,part\na,train\nb,val\nc,test\nx,train\ny,val\nz,val\nw,val\n',
     r's.csv does not fit the data set: it names unknown images: 4 \(x, y, z, ...\)$'),
    ('image,part\na,train\nb,val\n', r'it misses images: 1 \(c\)'),
    ('image,part\na,train\nb,val\nx,test\n', r'unknown images: 1 \(x\) and it misses images: 1 \(c\)'),
    ('image,part\na,train\nb,val\na,test\n', r's.csv row 4: a again, first in row 2'),
    ('image,part\na,train\nb,train\nc,test\n', r'leaves val empty: 3 images with --split_file'),
])
def test_split_files_that_do_not_fit(tmp_path, text, message):
    (tmp_path / 's.csv').write_text(text)
    info = Info(list('abc'), np.ones(3), np.ones(3), np.arange(1, 4), np.empty((3, 0), int))
    with pytest.raises(UserError, match=message):
        choose(info, SplitPlan(file=str(tmp_path / 's.csv')))


@pytest.mark.parametrize(('line', 'message'), [
    ('--split kfolds', 'did you mean kfold?'),
    ('--split kfold --folds 2', '--folds 2 leaves no images to train on'),
    ('--split kfold --folds 1', 'out of range: at least 2'),
    ('--fold 1', '--folds and --fold need --split kfold or kfold-sorted, not official'),
    ('--split random --split_file x.csv', 'both say how to split'),
    ('--split_seed -1', 'out of range'),
])
def test_options_with_mistakes(line, message, fails):
    assert message in fails(lambda argv: TRAIN.parse(argv), *line.split())


def test_splits_are_in_the_name_of_a_run():
    lines = ['', '--split random', '--split random --split_seed 1', '--split kfold --fold 1', '--split kfold-sorted',
             '--split_file x.csv', '--split kfold --folds 7']
    names = [run_name(TRAIN.parse(line.split())) for line in lines]
    assert len(set(names)) == len(lines)
    assert '-kfold-fold1-' in names[3]


def test_koniqs_shares_are_those_of_its_official_split_alone():
    for words, shares in (([], (7058 / 10073, 8058 / 10073)), (['--split', 'random'], (.6, .8)),
                          (['--split', 'random', '--train_ratio', '.5'], (.5, .8))):
        for command in (TRAIN, TEST):
            plan = plan_of(command.parse(words), DATASETS['KonIQ-10k'])
            assert (plan.train_ratio, plan.train_and_val_ratio) == shares


def test_the_hash_is_in_log_checkpoint_and_results_and_testing_on_the_training_images_is_said(tiny, capsys, fails):
    main.main([*tiny, *SMALL, *MINI, '-e', '1', '--split', 'kfold-sorted', '--folds', '4', '--fold', '2'])
    (path,) = Path('checkpoints').glob('*-kfold-sorted-fold2-*.pth')
    checkpoint = load_checkpoint(path)
    hashed, file = checkpoint['split_hash'], f'runs/{path.stem}/split.csv'
    assert hashed == split_hash(checkpoint['split'])
    assert f'Split kfold-sorted, hash {hashed}: {file}' in capsys.readouterr().out
    assert json.loads(Path('results', f'{path.stem}.json').read_text())['split_hash'] == hashed
    assert len(checkpoint['split']['train']) == 12

    again = get_data_loaders(TRAIN.parse([*tiny, *SMALL, '--split_file', file]))
    assert again.names == checkpoint['split']
    assert 'conflicts' in fails(test_dataset.main, '-modelfile', path, '--split_file', 'gone.csv')
    assert 'gone.csv: no such file' in fails(main.main, *tiny, *SMALL, '--split_file', 'gone.csv')

    words = ['-modelfile', str(path), '--im_dir', 'tiny/images', '--device', 'cpu']
    test_dataset.main(words)
    assert 'WARNING' not in capsys.readouterr().err
    assert len(test_dataset.main([*words, '--part', 'all']).pq) == 24
    warning = capsys.readouterr().err
    assert f'WARNING: {path} was trained on 12 of the 24 images tested (' in warning
    assert json.loads(Path('results', f'{path.stem}-on-demo-all.json').read_text())['images_trained_on'] == 12
    test_dataset.main([*words, '--dataset', 'CLIVE', '--data_info', 'tiny/info.mat', '--part', 'test'])  # another set
    assert 'WARNING' not in capsys.readouterr().err
