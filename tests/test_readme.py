"""The README and docs/ are true of the code: commands parse, files and options that they name exist."""
import re
import shlex

import pytest
from conftest import ROOT

from iqa_scoring.options import ENSEMBLE, EXPORT, GMAD, PREDICT, PUBLISH, SCORE, TEST
from iqa_studies.check import CHECK
from iqa_studies.run import STUDY
from iqa_training.clean import CLEAN
from iqa_training.options import TRAIN
from iqa_training.train_ranker import TRAIN_RANKER
from results_in_the_paper.compare import COMPARE
from results_in_the_paper.reproduce import REPRODUCE

README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
TEXT = '\n'.join(page.read_text(encoding='utf-8') for page in PAGES if page.stem != 'extending')  # test_extending's
PARSERS = {'main.py': TRAIN, 'test_dataset.py': TEST, 'test_demo.py': SCORE, 'iqa_scoring/export.py': EXPORT,
           'iqa_scoring/publish.py': PUBLISH,
           'iqa_training/train_ranker.py': TRAIN_RANKER, 'iqa_training/clean.py': CLEAN,
           'results_in_the_paper/reproduce.py': REPRODUCE,
           'iqa_scoring/gmad.py': GMAD, 'results_in_the_paper/compare.py': COMPARE,
           'iqa_scoring/ensemble.py': ENSEMBLE, 'iqa_scoring/predict_all.py': PREDICT,
           'iqa_studies/check.py': CHECK, 'iqa_studies/run.py': STUDY}
COMMANDS = sorted({match.rstrip('`').split('   ')[0].split(' [')[0] for match in re.findall(
    r'(?:python|torchrun \S+) \S+\.py[^`\n]*', TEXT)})


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    (tmp_path / 'small').mkdir()
    for table in ('my.csv', 'small/train.csv'):
        (tmp_path / table).write_text('image,mos\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_parse_and_their_scripts_are_there(line):
    script, *words = [word for word in shlex.split(line, comments=True) if not word.startswith('--nproc')][1:]
    assert (ROOT / script).is_file()
    if script in PARSERS and '--help' not in words:
        assert PARSERS[script].parse(words)


def test_there_are_commands():
    assert len(COMMANDS) > 15


def test_the_readme_is_short():
    assert len(README) <= 10_000
    assert README.count('\n') <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r'\]\((?!https?:)([^)]+)\)', page.read_text(encoding='utf-8')):
        file, _, heading = link.partition('#')
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r'^#+ (.*)$', target.read_text(encoding='utf-8'), re.M)
            assert heading in {re.sub(r'[^\w -]', '', title.lower()).replace(' ', '-') for title in titles}, link


def test_every_page_is_linked():
    linked = {(page.parent / link.partition('#')[0]).resolve() for page in PAGES
              for link in re.findall(r'\]\((?!https?:)([^)]+)\)', page.read_text(encoding='utf-8'))}
    assert set(PAGES) - {ROOT / 'README.md'} <= linked


def test_the_layout_names_what_is_there():
    layout = (ROOT / 'docs/layout.md').read_text(encoding='utf-8')
    for name in re.findall(r'(?<![\w/])[\w/]+\.py\b|^[\w/]+/(?= )', layout, re.M):
        assert (ROOT / name).exists(), name
    assert {path.name for path in ROOT.glob('*.py')} <= set(re.findall(r'\w+\.py', layout))
    assert {path.name for path in ROOT.glob('iqa_*') if path.is_dir()} <= set(re.findall(r'iqa_\w+', layout))


def test_options_that_are_named_are_there():
    known = {option for command in PARSERS.values() for action in command.actions.values()
             for option in action.option_strings} | {'--help', '--recipe'}
    known |= {'--source', '--mos_column', '--partial', '--out', '--lower_is_better', '--json', '--csv_dir', '--npy_dir',
              '--pyiqa', '--aggregate', '--higher_is_better', '--drawings', '--tables',
              '--images', '--image_size', '--batches', '--before', '--rounds', '--crop',
              '--nproc_per_node'}  # of the scripts in data/, results_in_the_paper/ and benchmarks/, and torchrun
    assert set(re.findall(r'(?<![\w-])--[a-zA-Z][\w-]*', TEXT)) <= known
