"""The README is true of the code: its commands parse, its files and options are there."""
import re
import shlex

import pytest
from conftest import ROOT

from iqa_scoring.options import ENSEMBLE, EXPORT, PREDICT, SCORE, TEST
from iqa_studies.check import CHECK
from iqa_studies.run import STUDY
from iqa_training.options import TRAIN
from iqa_training.train_ranker import TRAIN_RANKER
from results_in_the_paper.reproduce import REPRODUCE

README = (ROOT / 'README.md').read_text(encoding='utf-8')
PARSERS = {'main.py': TRAIN, 'test_dataset.py': TEST, 'test_demo.py': SCORE, 'iqa_scoring/export.py': EXPORT,
           'iqa_training/train_ranker.py': TRAIN_RANKER, 'results_in_the_paper/reproduce.py': REPRODUCE,
           'iqa_scoring/ensemble.py': ENSEMBLE, 'iqa_scoring/predict_all.py': PREDICT,
           'iqa_studies/check.py': CHECK, 'iqa_studies/run.py': STUDY}
COMMANDS = sorted({match.rstrip('`').split('   ')[0].split(' [')[0] for match in re.findall(
    r'(?:python|torchrun \S+) \S+\.py[^`\n]*', README)})


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    (tmp_path / 'my.csv').write_text('image,mos\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_parse_and_their_scripts_are_there(line):
    script, *words = [word for word in shlex.split(line, comments=True) if not word.startswith('--nproc')][1:]
    assert (ROOT / script).is_file()
    if script in PARSERS and '--help' not in words:
        assert PARSERS[script].parse(words)


def test_there_are_commands():
    assert len(COMMANDS) > 15


def test_files_that_are_named_are_there():
    layout = re.search(r'## Layout\n\n```\n(.*?)```', README, re.S)[1]
    for name in re.findall(r'(?<![\w/])[\w/]+\.py\b|^[\w/]+/(?= )', layout, re.M):
        assert (ROOT / name).exists(), name
    for name in re.findall(r'\]\((?!https?:)([^)]+)\)', README):
        assert (ROOT / name).exists(), name
    modules = {path.name for path in ROOT.glob('*.py')}
    assert modules <= set(re.findall(r'\w+\.py', layout))


def test_options_that_are_named_are_there():
    known = {option for command in PARSERS.values() for action in command.actions.values()
             for option in action.option_strings} | {'--help', '--recipe'}
    known |= {'--source', '--mos_column', '--partial', '--out', '--lower_is_better', '--json', '--csv_dir', '--npy_dir',
              '--pyiqa', '--aggregate', '--higher_is_better',
              '--nproc_per_node'}  # of the scripts in data/ and results_in_the_paper/, and torchrun
    assert set(re.findall(r'(?<![\w-])--[a-zA-Z][\w-]*', README)) <= known
