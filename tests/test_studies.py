"""Studies: what a file may say, what is planned, runs that fail or are killed, the engines."""
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, make_tiny
from mini import MINI
from processes import die_at_file, launch, prepare

import main as training_script
import test_dataset as testing_script
from iqa_runtime.checkpoint import load_checkpoint
from iqa_scoring.options import TEST
from iqa_studies import check, engines, run
from iqa_studies.jobs import Job
from iqa_studies.plan import plan
from iqa_studies.steps import typed, words_for
from iqa_studies.study_file import read_study
from iqa_training.naming import run_name
from iqa_training.options import TRAIN

WORDS = '--weights none -e 1 -bs 8 --device cpu --num_workers 0 --cache none -optl O0'
TINY = {'dataset': 'demo', 'im_dir': 'tiny/images', 'data_info': 'tiny/info.mat'}
STUDIES = sorted((ROOT / 'iqa_studies').glob('*.yaml'))
SCRIPTS = {'main.py': (TRAIN, training_script.main), 'test_dataset.py': (TEST, testing_script.main)}


@pytest.fixture
def study(tmp_path, monkeypatch, one_thread):
    """Write a study of the tiny data set, other keys as given, into a fresh folder; return its path."""
    monkeypatch.chdir(tmp_path)
    make_tiny(tmp_path / 'tiny')
    make_tiny(tmp_path / 'other')

    def write(**keys) -> str:
        content = {'settings': {'mini': {'architecture': 'mini'}}, 'options': WORDS, 'dataset': TINY, **keys}
        Path('study.yaml').write_text(yaml.safe_dump(content, sort_keys=False))
        return 'study.yaml'
    return write


def inline(jobs: list[Job], folder: Path, resources: engines.Resources) -> list[str]:
    """An engine that runs the scripts in this process, which knows the networks of the tests."""
    failures = []
    for job in jobs:
        try:
            for _, script, *words in job.commands:
                SCRIPTS[Path(script).name][1](list(words))
        except SystemExit as end:
            failures.append(f'{script} {shlex.join(words)}: exit status {end.code}')
    return failures


@pytest.fixture
def here(monkeypatch):
    """Run the jobs of studies in this process, without a report."""
    monkeypatch.setitem(sys.modules, 'iqa_studies.report', SimpleNamespace(write_study_report=lambda *_, **__: {}))
    monkeypatch.setitem(engines.ENGINES, 'local', inline)


def planned(file: str):
    return plan(read_study(file), Path('out'))


# What a file says

def test_a_grid_is_multiplied_out_and_each_run_is_there_once(study, capsys):
    file = study(settings={'a': {'arch': 'mini'}, 'b': f'{shlex.join(MINI)} --loss_type mae'},
                 vary={'lr': ['1e-3', 1e-4], 'resize': [True, False]}, splits={'repeats': 2}, seeds=[1, 2])
    assert run.main([file, '--dry_run']) == 0
    out = capsys.readouterr().out
    assert '0 of 32 runs are done; to do: 32 not measured yet' in out
    lines = [line for line in out.splitlines() if line.startswith('python')]
    args = [TRAIN.parse(shlex.split(line)[2:]) for line in lines]
    assert len({run_name(one) for one in args}) == len(lines) == 32
    assert {(one.learning_rate, one.resize, one.loss_type, one.exp_id, one.seed) for one in args} == {
        (lr, resize, loss, split, seed) for lr in (1e-3, 1e-4) for resize in (True, False)
        for loss in ('mae', 'norm-in-norm') for split in (0, 1) for seed in (1, 2)}
    assert all(one.split == 'reference' and one.resume == 'auto' for one in args)
    assert re.findall(r'demo, split (\d): 14 train, 5 val, 5 test, hash ([0-9a-f]{16})', out)
    assert not Path('studies').exists()
    labels = [cell.setting for cell in planned(file).cells]
    assert labels[0] == labels[3] == 'a, lr 1e-3, resize True'


def test_labels_that_would_come_out_alike_stay_apart(study):
    rates = [.00123456781, .00123456782]
    file = study(vary={'lr': rates}, predictions={'N 1': 'a.csv', 'N_1': 'a.csv', 'n_1': 'a.csv'})
    Path('a.csv').write_text('image,score\n' + ''.join(f'{i:02d}.png,{i}\n' for i in range(24)))
    made = planned(file)
    assert {cell.setting: TRAIN.parse(cell.training.words[1:]).learning_rate for cell in made.cells} == {
        f'mini, lr {rate!r}': rate for rate in rates}
    assert len({str(other.outcome(Path('out')).result).casefold() for other in made.others}) == 3


@pytest.mark.parametrize('file', STUDIES, ids=lambda file: file.name)
def test_the_settings_of_the_studies_here_differ(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(file.read_text())
    tables = {one['dataset']: 'image,mos\na.png,1\nb.png,2\n' for one in content.get('tests', [])}
    for table, text in {**tables, **dict.fromkeys(content.get('predictions', {}).values(), 'image,score\n')}.items():
        Path(table).parent.mkdir(exist_ok=True)
        Path(table).write_text(text)
    study = read_study(file)
    names = {run_name(TRAIN.parse(words_for({**study.common, **options}))) for options in study.settings.values()}
    assert len(names) == len(study.settings) > 0


def test_equal_settings_are_one_run(study):
    made = planned(study(settings={'a': {'arch': 'mini'}, 'b': shlex.join(MINI), 'c': {'arch': 'mini', 'lr': 1e-4}}))
    assert [cell.setting for cell in made.cells] == ['a', 'b', 'c']
    assert len(made.jobs()) == 1  # 1e-4 is the default


def test_a_recipe_gives_its_options_and_neither_its_data_nor_its_split(study):
    file = study(settings={'maniqa': {'recipe': 'maniqa_384', 'arch': 'maniqa_tiny'}}, splits={'folds': 3},
                 options='-e 7')
    made = planned(file)
    args = [TRAIN.parse(cell.training.words[1:]) for cell in made.cells]
    assert [(one.split, one.folds, one.fold, one.test_fold) for one in args] == [
        ('kfold', 3, i, 'next') for i in range(3)]
    assert {(one.dataset, one.architecture, one.epochs, one.filter) for one in args} == {
        ('demo', 'maniqa_tiny', 7, 'cubic')}


def test_splits_by_image_share_contents_and_say_so(study, tmp_path, capsys):
    file = study(settings={'a': {'arch': 'mini'}}, splits={'images': 2}, dataset={
        'dataset': 'two.csv', 'im_dir': 'tiny/images'})
    names = sorted(path.name for path in (tmp_path / 'tiny' / 'images').iterdir())
    rows = [f'{name},{i},{"ab"[i % 2]}.png' for i, name in enumerate(names)]
    (tmp_path / 'two.csv').write_text('\n'.join(['image,mos,reference', *rows]))
    args = [TRAIN.parse(cell.training.words[1:]) for cell in planned(file).cells]
    assert [(one.split, one.exp_id) for one in args] == [('random', 0), ('random', 1)]
    assert 'two, split 1 by image: 2 contents are in train or val and in test too, which' in capsys.readouterr().out


def test_a_grid_may_vary_several_options_at_once(study):
    made = planned(study(settings={'mini': {'arch': 'mini'}}, vary={
        'loss': {'mse': {'loss_type': 'mse'}, 'emd': '--loss_type emd --head histogram --levels 4'},
        'batch_size': {'small': 4, 'large': 8}}))
    assert {cell.setting: (cell.options['loss_type'], cell.options['head'], cell.options['levels'],
                           cell.options['batch_size']) for cell in made.cells} == {
        'mini, mse, small': ('mse', 'score', TRAIN.defaults['levels'], 4),
        'mini, mse, large': ('mse', 'score', TRAIN.defaults['levels'], 8),
        'mini, emd, small': ('emd', 'histogram', 4, 4), 'mini, emd, large': ('emd', 'histogram', 4, 8)}


def test_groups_are_of_studies_that_name_their_data(tmp_path, fails):
    (tmp_path / 'study.yaml').write_text('settings: {mini: -arch mini}\nby: {kind: kind}')
    assert 'by: of studies with `dataset`' in fails(run.main, tmp_path / 'study.yaml')


def test_a_data_set_that_lacks_a_kind_of_groups_does_without(study):
    rows = ''.join(f'{i:02d}.png,{i},{"ab"[i % 2]}\n' for i in range(24))
    Path('other/images/theirs.csv').write_text(f'image,mos,kind\n{rows}')
    made = planned(study(tests=['other/images/theirs.csv'], by={'kind': 'kind'}, by_name={'ten': '^.'}))
    kind, ten = made.groupings
    assert kind.infos == {'theirs': Path('other/images/theirs.csv')}
    assert kind.of('theirs', ['03.png', '10.png']) == ['b', 'a']
    assert list(ten.infos) == ['demo', 'theirs']
    assert ten.of('demo', ['03.png', '10.png']) == ['0', '1']


def test_what_a_data_set_lacks_for_a_loss_leaves_out_the_setting(study):
    made = planned(study(settings={'mini': {'arch': 'mini'}}, vary={'loss_type': {'mse': 'mse', 'epsilon': 'epsilon'}}))
    assert [cell.setting for cell in made.cells] == ['mini, mse']
    assert made.left_out == ['mini, epsilon: --loss_type epsilon needs the confidence intervals of the MOS (columns '
                             'std and votes, of 2 votes or more): demo does not have them']


BAD = [
    ({'setings': {}}, "unknown key of the study study.yaml 'setings' (did you mean settings?)"),
    ({'settings': {}}, 'settings: expected at least one'),
    ({'settings': {'a': {'epocs': 3}}}, "'epocs' (did you mean epochs?)"),
    ({'settings': {'a': '--epocs 3'}}, 'study.yaml: a: error: unrecognized arguments: --epocs 3'),
    ({'settings': {'a': {'epochs': 'many'}}}, "study.yaml: a: the option 'epochs': 'many' is not a whole number"),
    ({'settings': {'a': {'epochs': [1, 2]}}}, '[1, 2] is not a single value'),
    ({'settings': {'a': {'arch': {'b': 1}}}}, 'dict is neither a number nor a text'),
    ({'settings': {'a': "'"}}, 'study.yaml: a: No closing quotation'),
    ({'settings': {'a': {'recipe': 'manica'}}}, '--recipe manica: no such recipe'),
    ({'settings': {'a': '--split kfold'}}, 'split: it is set for each run'),
    ({'settings': {'a': {'checkpoint_dir': 'x'}}}, 'checkpoint_dir: it is set'),
    ({'settings': {'a': '--seed 3'}, 'seeds': [1]}, 'seed: it is set'),
    ({'options': '--sched_gamma .1 --schedule step'}, 'study.yaml'),
    ({'vary': {'lr': [1, -1]}}, "the option 'lr': -1 is out of range"),
    ({'vary': {'lr': list(range(1, 201)), 'epochs': list(range(1, 101))}}, '20,000 training runs; --yes if'),
    ({'splits': 'half'}, "unknown kind of splits (study.yaml; or repeats: N, images: N, folds: N) 'half'"),
    ({'splits': {'repeat': 3}}, "'repeat' (did you mean repeats?)"),
    ({'splits': {'folds': 2}}, 'expected repeats or images: 1 to 1000, or folds: 3 to 1000'),
    ({'splits': 'all'}, 'all leaves no test part: name other data sets in tests'),
    ({'choose': {'lr': [0]}}, "choose: the option 'lr': 0 is out of range"),
    ({'choose': {'lr': [1e-3, 1e-3]}}, "choose: 'lr 0.001' twice"),
    ({'choose': {'lr': [1e-3]}, 'splits': 'all', 'tests': ['CLIVE']}, 'choose: expected `dataset`, and splits that'),
    ({'vary': {'loss': {'a': {'los_type': 'mse'}}}}, "vary: loss: a) 'los_type' (did you mean loss_type?)"),
    ({'vary': {'loss': ['mse']}}, "unknown option (study.yaml: vary) 'loss'"),
    ({'note': 3}, 'note: expected a text'),
    ({'by': 'content'}, 'by: expected a dictionary with texts as keys'),
    ({'by': {'prompt': 'promt'}}, "by: prompt: no column 'promt' in tiny/info.mat, which has image, std, content"),
    ({'by_name': {'ten': '(x)?0'}}, "by_name: ten: '(x)?0' does not match the name '00.png'"),
    ({'by_name': {'ten': '('}}, "by_name: ten: '(' is no regular expression"),
    ({'by': {'a': 'content'}, 'by_name': {'a': '.'}}, "by and by_name: two kinds of groups are called 'a'"),
    ({'seeds': [-1]}, 'seeds: a whole number of at least 0'),
    ({'seeds': []}, 'seeds: expected at least one'),
    ({'vary': {'lr': []}}, 'vary: lr: expected at least one value'),
    ({'choose': {'loss': {}}}, 'choose: loss: expected at least one value'),
    ({'dataset': 'CLIFE'}, "unknown data set 'CLIFE' (did you mean CLIVE?)"),
    ({'tests': ['CLIVE']}, 'CLIVEinfo.mat not found, which CLIVE needs: request LIVE In the Wild'),
    ({'tests': [{**TINY, 'dataset': 'CLIVE'}]}, 'CLIVE is to test what is trained on demo, and has 24 of its images'),
    ({'tests': [{**TINY, 'im_dir': 'other/images'}]}, 'two data sets are called demo'),
    ({'predictions': 'none.csv'}, 'predictions: none.csv not found'),
    ({'predictions': {'p': 'some.csv'}}, 'some.csv: it lacks '),
    ({'predictions': {'p': 'strange.csv'}}, 'strange.csv: none of its images is tested; expected the names of demo'),
    ({'predictions': {'mini': 'some.csv'}}, "predictions: 'mini' is the name of a setting too"),
    ({'dataset': [TINY, TINY]}, "dataset: 'demo tiny/images tiny/info.mat' twice"),
    ({'vary': {'resize': ['yes', True]}}, "the option 'resize': 'yes' is neither true nor false"),
    ({'vary': {'resize': [True, True]}}, "settings: 'mini, resize True' twice"),
    ({'settings': {1: {'arch': 'mini'}, '1': {'arch': 'mini'}}}, "settings: the name '1' appears twice"),
    ({'predictions': {'p': 'twice.csv'}}, 'twice.csv row 3: 00.png again, first in row 2, with the score 1 and 2'),
    ({'options': '-tr .8 -tvr 1', 'splits': {'repeats': 1}}, '--split reference leaves no test part'),
]


@pytest.mark.parametrize(('keys', 'message'), BAD, ids=[message for _, message in BAD])
def test_mistakes_are_found_before_anything_is_trained(keys, message, study, fails):
    Path('some.csv').write_text('image,score\n' + ''.join(f'{i:02d}.png,{i}\n' for i in range(0, 24, 2)))
    Path('strange.csv').write_text('image,score\nphotos/00.png,1\n')
    Path('twice.csv').write_text('image,score\n00.png,1\n00.png,2\n')
    keys = {'settings': {'mini': {'architecture': 'mini'}}, **keys}
    error = fails(run.main, study(**keys))
    assert message in error
    assert not Path('studies').exists()


@pytest.mark.parametrize('options', [
    {'augmentation': []}, {'augmentation': ['hflip', 'crop'], 'hflip_p': .25}, {'target': ['zscore', '3', '.5']},
    {'beta': [.1, 1e-5, 1.]}, {'resize': True, 'learning_rate': 1e-3}, {'pbar': False}])
def test_options_are_typed_so_that_they_are_read_again(options):
    read = TRAIN.parse(typed(options))
    assert {name: read.values[name] for name in options} == options


ALIASES = 'title:\n- &a0 [a, b, c, d]\n' + ''.join(f'- &a{i + 1} [{", ".join([f"*a{i}"] * 9)}]\n' for i in range(9))


@pytest.mark.parametrize(('text', 'message'), [
    ('a: [', 'no YAML'), ('settings: {a: 1, a: 2}', "the key 'a' twice (line 1)"),
    (ALIASES, 'with its aliases written out, it has more than 262144 characters'), ('title: &a [*a]', 'aliases'),
    ('yes: 1\ntrue: 2', "the key 'true' twice (line 2)"), ('{1: a, 1.0: b}', "the key '1.0' twice"),
    ('- 1', 'expected a study: title'),
    ('', 'expected a study'), ('!!python/object/apply:os.system [ls]', 'could not determine a constructor'),
    ('&a [*a]', 'aliases'), ('[' * 2000, 'no YAML'), ('a: ' + 'b' * (1 << 18), 'larger than')])
def test_what_is_no_study(text, message, tmp_path, fails):
    (tmp_path / 'study.yaml').write_text(text)
    assert message in fails(run.main, tmp_path / 'study.yaml')


def test_a_missing_package_is_named(study, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    assert '--engine slurm needs submitit: pip install submitit' in fails(run.main, study(), '--engine', 'slurm')
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert '--engine ray needs ray: pip install ray' in fails(run.main, study(), '--engine', 'ray')
    monkeypatch.setitem(sys.modules, 'yaml', None)
    assert 'needs pyyaml: pip install pyyaml' in fails(run.main, 'study.yaml')


def test_shared_contents_and_missing_references(study, tmp_path, capsys):
    names = [f'{i:02d}.png' for i in range(24)]
    rows = '\n'.join(f'{name},{i},{"train" if i < 12 else "val" if i < 18 else "test"},{i % 6}'
                     for i, name in enumerate(names))
    Path('tiny/images/mine.csv').write_text(f'image,mos,part,content\n{rows}\n')
    with pytest.raises(ValueError, match='has 6 contents in train or val and in test too'):
        planned(study(dataset='tiny/images/mine.csv'))
    made = planned(study(settings={'mini': {'arch': 'mini'}, 'asna': '--arch asna_simple_a'}))
    assert {cell.setting for cell in made.cells} == {'mini'}
    assert made.left_out == ['asna: a full-reference network compares images with their references, and demo has none: '
                             'tiny/info.mat has no column reference']
    with pytest.raises(ValueError, match='nothing is left to train: asna'):
        planned(study(settings={'asna': '--arch asna_simple_a'}))


# What is run

def test_failures_are_listed_and_the_rest_is_run_once(study, here, capsys, monkeypatch):
    file = study(settings={'good': {'arch': 'mini'}, 'bad': {'arch': 'mini', 'batch_size': 1, 'use_bn_end': True},
                           'mae': {'arch': 'mini', 'loss_type': 'mae'}}, splits={'repeats': 2},
                 tests=[{'dataset': 'CLIVE', 'im_dir': 'other/images', 'data_info': 'other/info.mat'}],
                 predictions={'theirs': 'theirs.csv'})
    Path('theirs.csv').write_text('image,score\n' + ''.join(f'{i:02d}.png,{i}\n' for i in range(24)))
    assert run.main([file]) == 1
    out = capsys.readouterr().out
    assert out.count('exit status 2') == 2
    outcomes = planned_outcomes(file)
    assert {(one.setting, one.split, one.trained_on, one.tested_on) for one in outcomes} == {
        *((setting, split, 'demo', tested) for setting in ('good', 'mae') for split in '01'
          for tested in ('demo', 'CLIVE')),
        *(('theirs', split, '', tested) for split, tested in (('0', 'demo'), ('1', 'demo'), ('all', 'CLIVE')))}
    for one in outcomes:
        table = one.predictions()
        assert len(table) == (24 if one.tested_on == 'CLIVE' else 5)
        assert -1 <= one.metrics['SROCC'] <= 1
        assert (one.checkpoint is None) == (one.setting == 'theirs')
    same = {split: {tuple(one.predictions()['image']) for one in outcomes
                    if (one.split, one.tested_on) == (split, 'demo')} for split in '01'}
    assert len(same['0']) == len(same['1']) == 1
    assert same['0'] != same['1']
    monkeypatch.setitem(engines.ENGINES, 'local', lambda jobs, *_: [str(len(jobs))])
    assert run.main([file]) == 1
    assert '4 of 6 runs are done' in (out := capsys.readouterr().out)
    assert 'Failed:\n  2' in out


CHOOSING = {'settings': {'whole': {'arch': 'mini'}, 'half': {'arch': 'mini', 'batch_size': 4}},
            'options': WORDS.replace('-e 1', '-e 3') + ' -lt mse --optimizer sgd',
            'choose': {'lr': [1e-6, 1e-2, 1e9]}, 'splits': {'repeats': 2}, 'seeds': [1, 2], 'by_name': {'half': '^.'}}


def test_the_value_that_is_best_on_validation_is_used_on_all_splits(study, capsys, monkeypatch):
    """1e9 diverges: it is named and not chosen."""
    shown = []
    report = SimpleNamespace(write_study_report=lambda *given, **_: shown.append(given) or {})
    monkeypatch.setitem(sys.modules, 'iqa_studies.report', report)
    file = study(**CHOOSING)
    assert run.main([file, '--dry_run']) == 0
    assert '0 of 6 runs are done; to do: 6 not measured yet; then 6 with' in capsys.readouterr().out
    assert run.main([file, '--engine', 'inline']) == 1
    out = capsys.readouterr().out
    assert len(re.findall(r'exit status 2: .* at iteration', out.partition('Failed:')[2])) == 2
    *_, choices, note, groupings = shown[0]
    assert (note, [grouping.label for grouping in groupings]) == ('', ['half'])
    best = {}
    for choice in choices:
        assert list(choice.trials) == ['lr 1e-06', 'lr 0.01', 'lr 1e+09']
        assert list(choice.found) == ['lr 1e-06', 'lr 0.01']
        checkpoints = {label: load_checkpoint(choice.trials[label].training.checkpoint) for label in choice.found}
        found = {label: one['metrics']['val']['SROCC'] for label, one in checkpoints.items()}
        assert dict(choice.found) == pytest.approx({label: abs(value) for label, value in found.items()})
        best[choice.setting] = choice.best
        assert choice.best == max(choice.found, key=choice.found.get)
        assert choice.row()[-1] == 'failed'
    outcomes = shown[0][1]
    assert {(one.setting, one.split, one.seed) for one in outcomes} == {
        (setting, split, seed) for setting in best for split in '01' for seed in (1, 2)}
    for one in outcomes:
        assert f'lr {one.options["learning_rate"]:g}' == best[one.setting]
    monkeypatch.setitem(engines.ENGINES, 'inline', lambda jobs, *_: [job.commands[0][-1] for job in jobs])
    assert run.main([file, '--engine', 'inline']) == 1  # what diverged is tried again, and nothing else
    assert '4 of 6 runs are done; to do: 2 ' in (out := capsys.readouterr().out)
    assert out.partition('Failed:\n')[2].count('\n') == 2


def test_runs_in_one_process_are_those_of_processes_of_their_own(study, monkeypatch):
    """The later runs start after others, with other losses and seeds, in the same process."""
    monkeypatch.setitem(sys.modules, 'iqa_studies.report', SimpleNamespace(write_study_report=lambda *_, **__: {}))
    keys = {'options': WORDS, 'vary': {'loss_type': ['mae', 'plcc']}, 'splits': {'repeats': 1}, 'seeds': [1, 2],
            'settings': {'mini': shlex.join(MINI)}}
    file = study(**keys)
    before = list(sys.argv)
    assert run.main([file, '--engine', 'inline', '--folder', 'together']) == 0
    assert sys.argv == before
    for cell in reversed(plan(read_study(file), Path('alone')).cells):
        training_script.main(cell.training.words[1:])
    together, alone = (plan(read_study(file), Path(name)).outcomes(Path(name)) for name in ('together', 'alone'))
    assert len(together) == 4
    for one, other in zip(together, alone, strict=True):
        assert one.result.with_suffix('.csv').read_bytes() == other.result.with_suffix('.csv').read_bytes()
    assert all(re.search('Best epoch 1', log.read_text()) for log in Path('together/logs').glob('*.log'))


def test_keys_of_a_study_can_be_given_with_the_command(study, fails, capsys):
    file = study(splits={'repeats': 3})
    assert run.main([file, '--dry_run', '--set', 'splits={folds: 4}', '--set', 'settings={new: -arch mini -e 2}']) == 0
    assert '0 of 4 runs are done' in (out := capsys.readouterr().out)
    assert out.count('--epochs 2') == 4
    for word, message in (('splits', '--set splits: expected KEY=VALUE'), ('split=x', "'split' (did you mean splits?)"),
                          ('splits={', '--set splits line 1: no YAML'), ('seeds=[-1]', 'seeds: a whole number')):
        assert message in fails(run.main, file, '--dry_run', '--set', word)


def planned_outcomes(file: str):
    folder = Path('studies/study')
    return plan(read_study(file), folder).outcomes(folder)


def test_trained_on_the_whole_set_and_tested_on_another(study, here):
    file = study(splits='all', tests=[{'dataset': 'CLIVE', 'im_dir': 'other/images', 'data_info': 'other/info.mat'}])
    assert run.main([file]) == 0
    outcome, = planned_outcomes(file)
    assert (outcome.split, outcome.trained_on, outcome.tested_on) == ('all', 'demo', 'CLIVE')
    assert len(outcome.predictions()) == 24
    assert not planned(file).cells[0].tested
    Path(outcome.result).unlink()
    assert [len(job.commands) for job in plan(read_study(file), Path('studies/study')).jobs()] == [1]  # its test


def test_an_archive_is_checked_without_checkpoints_and_images(study, capsys):
    assert run.main([study(vary={'lr': [1e-3, 1e-4]}), '--archive', 'kept', '--engine', 'inline']) == 0
    assert 'data:image/jpeg' in Path('studies/study/study.html').read_text()
    assert 'data:image/jpeg' not in Path('kept/study.html').read_text()
    shutil.rmtree('studies')
    capsys.readouterr()
    check.main(['kept'])
    found = capsys.readouterr().out
    assert 'holds  the tables of kept' in found
    assert 'no split.csv' not in found
    assert not list(Path('kept').rglob('*.pth'))
    assert '.pth"' not in Path('kept/study.html').read_text()
    table = Path('kept/settings.csv')
    table.write_text(table.read_text().replace('mini', 'maxi'))
    with pytest.raises(SystemExit):
        check.main(['kept'])


def test_an_archive_is_not_the_folder_of_the_study(study, fails):
    assert 'another folder than that of the study' in fails(run.main, study(), '--archive', 'studies/../studies/study')


def archives() -> Iterator:
    """The archives that are committed; those of many runs take seconds, and are slow tests."""
    for folder in sorted(path.parent for path in ROOT.glob('iqa_studies/results/*/outcomes.json')):
        many = len(list(folder.glob('results/*.json'))) > 9
        yield pytest.param(folder, id=folder.name, marks=[pytest.mark.slow] * many)


@pytest.mark.parametrize('folder', list(archives()))
def test_the_archives_here_follow_from_their_predictions(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)  # without info files
    check.main([str(folder)])
    assert f'holds  the tables of {folder}' in capsys.readouterr().out


def run_until_file(folder: str, number: int | None) -> None:
    """A process that runs the study in a folder, and kills itself before file `number` is put in place."""
    prepare(folder)
    sys.modules['iqa_studies.report'] = SimpleNamespace(write_study_report=lambda *_, **__: {})
    engines.ENGINES['local'] = inline
    if number is not None:
        die_at_file(number)
    sys.exit(run.main(['study.yaml', '--folder', 'killed']))


@pytest.mark.parametrize('numbers', [(4, 9, 14), pytest.param((*range(1, 11),), marks=pytest.mark.slow)],
                         ids=['three times', 'ten times'])
def test_a_study_that_is_killed_ends_in_the_same_numbers(study, here, numbers):
    file = study(options=WORDS.replace('-e 1', '-e 2'), splits={'repeats': 2},
                 settings={'nin': shlex.join(MINI), 'mae': f'{shlex.join(MINI)} --loss_type mae'},
                 tests=[{'dataset': 'CLIVE', 'im_dir': 'other/images', 'data_info': 'other/info.mat'}])
    assert run.main([file, '--folder', 'whole']) == 0
    for number in (*numbers, None):
        attempt = launch(run_until_file, os.getcwd(), number)
        attempt.join()
        assert attempt.exitcode == (0 if number is None else -signal.SIGKILL)
    whole, killed = (plan(read_study(file), Path(name)).outcomes(Path(name)) for name in ('whole', 'killed'))
    assert len(whole) == 8
    for one, other in zip(whole, killed, strict=True):
        assert one.metrics == other.metrics
        assert one.result.with_suffix('.csv').read_bytes() == other.result.with_suffix('.csv').read_bytes()


# Engines

SAYING = ['python', '-c', 'import os; print("in", os.getcwd())']


@pytest.mark.slow
def test_slurm_by_submitits_own_processes(tmp_path, monkeypatch):
    pytest.importorskip('submitit')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', '')
    jobs = [Job([SAYING], tmp_path / 'logs/good.log'),
            Job([['python', '-c', 'import sys; sys.exit("no luck")'], SAYING], tmp_path / 'logs/bad.log')]
    failure, = engines.slurm(jobs, tmp_path, engines.Resources(gpus=0, minutes=5), cluster='local')
    assert 'exit status 1: no luck' in failure
    assert failure.endswith(f'(log: {tmp_path}/logs/bad.log)')
    assert Path('logs/good.log').read_text() == f'in {tmp_path}\n'
    assert engines.Queued('there').checkpoint(jobs[0]).args == (jobs[0],)


RESNET = ('--arch resnet18 --weights none -e 4 -bs 8 --device cpu --num_workers 0 --cache none -optl O0 --resize '
          '-rs_h 64 -rs_w 64')


@pytest.mark.slow
def test_ray_continues_if_one_of_its_two_nodes_is_killed(study, monkeypatch):
    ray = pytest.importorskip('ray')
    from ray.cluster_utils import Cluster
    file = study(settings={'resnet': RESNET, 'mae': f'{RESNET} --loss_type mae'}, options='', splits={'repeats': 2})
    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    monkeypatch.setenv('RAY_ADDRESS', cluster.address)
    killed = []

    def kill() -> None:
        while not any('Epoch 1/4' in log.read_text() for log in Path('studies/study/logs').glob('*.log')):
            time.sleep(.1)
        cluster.remove_node(nodes[0], allow_graceful=False)
        killed.append(nodes[0])
    threading.Thread(target=kill, daemon=True).start()
    try:
        assert run.main([file, '--engine', 'ray', '--gpus', '0']) == 0
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed
    outcomes = planned_outcomes(file)
    assert len(outcomes) == 4
    epochs = [re.findall(r'Epoch (\d)/4', log.read_text()) for log in Path('studies/study/logs').glob('*.log')]
    assert sum(map(len, epochs)) >= 16


@pytest.mark.slow
def test_a_study_killed_at_random_with_its_runs_continues(study):
    file = study(settings={'resnet': RESNET}, options='', splits={'repeats': 3})
    script, draw = [sys.executable, str(ROOT / 'iqa_studies/run.py'), file, '--folder'], random.Random(0)
    assert subprocess.run([*script, 'whole']).returncode == 0
    for _ in range(10):
        child = subprocess.Popen([*script, 'killed'], start_new_session=True)
        time.sleep(draw.uniform(5, 25))
        os.killpg(child.pid, signal.SIGKILL)  # the run, in a session of its own, ends as it next writes a line
        child.wait()
    assert subprocess.run([*script, 'killed']).returncode == 0
    whole, killed = (plan(read_study(file), Path(name)).outcomes(Path(name)) for name in ('whole', 'killed'))
    assert [one.metrics for one in whole] == [one.metrics for one in killed]
