"""--help of every script: short, in groups that can be taken in, each default once."""
import re
import runpy
import subprocess
import sys

import pytest
from conftest import OTHER_DEFAULTS, ROOT

from iqa_runtime.commands import SUBCOMMANDS
from iqa_scoring.options import ENSEMBLE, EXPORT, PREDICT, SCORE, TEST
from iqa_training.naming import run_digest
from iqa_training.options import TRAIN
from iqa_training.train_ranker import TRAIN_RANKER
from results_in_the_paper.reproduce import REPRODUCE

SCRIPTS = sorted({*(module for module, _ in SUBCOMMANDS.values()),
                  *(f'results_in_the_paper.{path.stem}' for path in (ROOT / 'results_in_the_paper').glob('*.py')
                    if path.stem != 'sources')})
COMMANDS = {'train': TRAIN, 'test': TEST, 'score': SCORE, 'export': EXPORT, 'ensemble': ENSEMBLE, 'predict': PREDICT,
            'ranker': TRAIN_RANKER, 'reproduce': REPRODUCE}
OF_TABLES = {group.title for group in TRAIN.groups if group.table}  # as long as their rows have options


def help_of(module: str, monkeypatch, capsys, *words: str) -> str:
    """Return what a script prints."""
    monkeypatch.setattr(sys, 'argv', [module, *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / f'{module.replace(".", "/")}.py'), run_name='__main__')
    assert not stop.value.code
    return capsys.readouterr().out


def groups_in(text: str) -> dict[str, list[str]]:
    """Return title -> the options under it, each with its description."""
    groups, title = {}, None
    for line in text.splitlines():
        heading = re.fullmatch(r'(\w[\w ]*):', line)
        if heading:
            title = heading[1]
            groups[title] = []
        elif title and re.match(r'  \S', line):
            groups[title].append(line)
        elif title and line.startswith('   ') and groups[title]:
            groups[title][-1] += f' {line.strip()}'
        elif line.strip():
            title = None
    return groups


@pytest.mark.parametrize('module', SCRIPTS)
def test_help_is_short(module, monkeypatch, capsys):
    text = help_of(module, monkeypatch, capsys, '--help')
    assert text.count('\n') <= 70
    assert max(map(len, text.splitlines())) <= 120
    groups = groups_in(text)
    assert groups
    for title, options in groups.items():
        assert title == 'more options' or len(options) <= 15, title
        for option in options:
            assert option.lower().count('default:') + option.count('(default)') <= 1, option


@pytest.mark.parametrize('module', SCRIPTS)
def test_examples_are_shown_as_they_are_typed(module, monkeypatch, capsys):
    source = (ROOT / f'{module.replace(".", "/")}.py').read_text()
    text = help_of(module, monkeypatch, capsys, '--help')
    for line in re.findall(r'^    python \S.*', source, re.M):
        assert line in text


@pytest.mark.parametrize('command', COMMANDS.values(), ids=COMMANDS)
def test_every_group_can_be_taken_in_and_says_each_default_once(command, capsys):
    for group in command.groups:
        with pytest.raises(SystemExit):
            command.parse(['--help', group.title])
        options = groups_in(capsys.readouterr().out)[group.title]
        assert len(options) <= 15 or group.title in OF_TABLES, group.title
        names = [name for name, title in command.titles.items() if title == group.title]
        for name, option in zip(names, options, strict=True):
            default = None if name in OTHER_DEFAULTS else command.defaults[name]
            omitted = default in (None, [], '') or default is False
            count = option.lower().count('default:') + option.count('(default)')
            assert count <= 1 if omitted else count == 1, option


def test_scoring_lists_no_option_of_training(monkeypatch, capsys):
    for module in ('test_demo', 'iqa_scoring.export'):
        text = help_of(module, monkeypatch, capsys, '--help')
        listed = {word for options in groups_in(text).values() for option in options
                  for word in re.findall(r'^  (-\S+(?:, -\S+)*)', option)[0].split(', ')}
        assert not listed & {word for name in TRAIN.names() for word in TRAIN.actions[name].option_strings}
        assert 'Options of main.py' in text
    assert SCORE.parse(['--img', 'x', '-arch', 'resnet18', '--resize']).architecture == 'resnet18'


def test_a_group_or_an_option_that_is_not_there_names_the_nearest(fails):
    assert 'did you mean training' in fails(TRAIN.parse, '--help', 'trainning')
    assert 'resize' in fails(TRAIN.parse, '--help', 'resise').partition('; the groups')[0]
    assert 'the groups are data, training' in fails(TRAIN.parse, '--help', '@')


@pytest.mark.parametrize('words', [['--help', 'ft_lr_ratio'], ['--help', '--ft_lr_ratio'], ['-h', '-flr']])
def test_help_of_an_option(words, capsys):
    with pytest.raises(SystemExit):
        TRAIN.parse(words)
    (shown,) = groups_in(capsys.readouterr().out)['training']
    assert shown.startswith("  -flr, --ft_lr_ratio RATIO       the backbone's learning rate")


def test_the_most_used_options_of_training_are_those_of_everyday(capsys):
    with pytest.raises(SystemExit):
        TRAIN.parse(['--help'])
    shown = ' '.join(groups_in(capsys.readouterr().out)['most used options'])
    for option in ('-arch', '--resize', '--weights', '--loss_type', '--split', '--ema', '--name'):
        assert f' {option}' in shown
    for option in ('--later_wins', '--log_bhat', '--val_every'):
        assert option not in shown


@pytest.mark.parametrize(('words', 'sides'), [
    ([], (498, 664)), (['224'], (224, 224)), (['192', '256'], (192, 256)), (['224', '-rs_h', '9'], (9, 224))])
def test_the_sides_of_resize(words, sides):
    args = TRAIN.parse(['--resize', *words])
    assert args.resize is True
    assert (args.resize_size_h, args.resize_size_w) == sides
    same = TRAIN.parse(['--resize', '-rs_h', str(sides[0]), '-rs_w', str(sides[1])])
    assert run_digest(args) == run_digest(same)
    assert TRAIN.options(resize=True, resize_size_h=sides[0], resize_size_w=sides[1]).values == same.values


@pytest.mark.parametrize('words', [['1', '2', '3'], ['0'], ['big'], ['32769']])
def test_sides_of_resize_that_are_refused(words, fails):
    assert '--resize' in fails(TRAIN.parse, '--resize', *words)


@pytest.mark.parametrize('module', SCRIPTS)
def test_a_script_without_its_packages_names_them_and_both_ways_out(module):
    script = ROOT / f'{module.replace(".", "/")}.py'
    found = subprocess.run([sys.executable, '-S', script], capture_output=True, text=True)  # -S: no site-packages
    assert found.returncode == 2
    assert found.stderr.count('\n') == 1
    assert 'lacks the packages torch, ' in found.stderr
    assert 'source .venv/bin/activate' in found.stderr
    assert f'pip install -r {ROOT / "requirements.txt"}' in found.stderr


def test_a_library_without_packages_is_no_end_of_the_program():
    found = subprocess.run([sys.executable, '-S', '-c', 'import iqa_runtime'], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, '')
