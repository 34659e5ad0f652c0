"""Studies that train in stages: what is done is not done again, published numbers beside ours."""
import hashlib
import shlex
from dataclasses import replace

import pytest
from conftest import ROOT, make_tiny

from iqa_runtime.checkpoint import load_checkpoint
from iqa_studies.chains import plan_chain
from iqa_studies.published import comparisons, reason
from iqa_studies.study_file import read_study
from iqa_training.naming import checkpoint_file
from iqa_training.options import TRAIN
from results_in_the_paper import reproduce, sources

GIVEN = ['--im_dir', 'tiny/images', '--data_info', 'tiny/info.mat', '--device', 'cpu', '--no-pbar', '--no-summary']


TWO_STAGES = """
settings:
  first: {recipe: first.txt}
  second: {recipe: first.txt, lr: 1e-3, after: first}
  third: {recipe: first.txt, lr: 1e-4, after: first}
tolerance: 1
published: {first: {SROCC: .5}, second: {PLCC: null}}
"""


@pytest.fixture
def system(tmp_path, monkeypatch):
    make_tiny(tmp_path / 'tiny')
    (tmp_path / 'first.txt').write_text('# a recipe\n--dataset demo -arch cnniqa --loss_type mse -e 1\n')
    (tmp_path / 'two_stages.yaml').write_text(TWO_STAGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sources.STUDIES, 'two_stages', tmp_path / 'two_stages.yaml')
    monkeypatch.setattr(reproduce, 'TARGETS', (*reproduce.TARGETS, 'two_stages'))


def test_the_commands_and_mistakes(system, capsys, fails):
    assert reproduce.main(['two_stages', '--dry_run', *GIVEN]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [['python', str(ROOT / 'main.py')]] * 3
    assert ['-lr' in line and line[line.index('-lr') + 1] for line in lines] == [False, '1e-3', '1e-4']
    assert '--learning_rate: two_stages varies it by itself' in fails(reproduce.main, 'two_stages', '-lr', '1')
    assert '--resume: the driver chooses it' in fails(reproduce.main, 'two_stages', '--resume', 'auto')
    assert 'did you mean two_stages?' in fails(reproduce.main, 'two_stage')


def test_train_and_compare(system, capsys, tmp_path):
    assert reproduce.main(['two_stages', *GIVEN]) == 0
    out = capsys.readouterr().out
    assert out.startswith('0 of 3 runs are done\n')
    assert 'tensors are those of the network' in out
    found = [line.split('  ') for line in out.splitlines() if line.startswith('two_stages, ')]
    assert [row[-1].strip() for row in found] == ['PASS', 'not known']
    assert {path.suffix for path in (tmp_path / 'results/figures').iterdir()} == {'.txt', '.md', '.tex', '.csv'}
    assert len(list((tmp_path / 'checkpoints').glob('*.pth'))) == 3
    assert all(load_checkpoint(path)['finished'] for path in (tmp_path / 'checkpoints').glob('*.pth'))
    assert reproduce.main(['two_stages', *GIVEN]) == 0
    again = capsys.readouterr().out
    assert again.startswith('3 of 3 runs are done\n')
    assert 'main.py' not in again


def test_a_stage_that_fails_ends_the_chain(system, capsys, tmp_path):
    (tmp_path / 'tiny/images/03.png').unlink()
    assert reproduce.main(['two_stages', *GIVEN]) == 1
    out = capsys.readouterr().out
    assert out.count('FAILED with exit status 2') == 1
    assert 'no result' in out


def test_the_table_of_svd_cnniqa(tmp_path, monkeypatch, capsys, fails):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'weights.pth').write_bytes(b'others')

    def lines(*words: str) -> list[list[str]]:
        assert reproduce.main(['svd_cnniqa', '--dry_run', *words]) == 0
        return [shlex.split(line)[2:] for line in capsys.readouterr().out.splitlines()]

    first, hyper, *others = lines()
    assert TRAIN.parse(first).architecture == 'cnniqa'
    assert {TRAIN.parse(words).pretrained for words in others} == {str(checkpoint_file(TRAIN.parse(first)))}
    assert [(TRAIN.parse(words).architecture, TRAIN.parse(words).epochs) for words in others] == [
        (name, epochs) for name in ('cnniqa', 'svd_cnniqa_fc', 'svd_cnniqa_conv') for epochs in (50, 100)]
    assert (TRAIN.parse(hyper).architecture, TRAIN.parse(hyper).pretrained) == ('hyperiqa', None)
    ten = [TRAIN.parse(words) for words in lines('--splits', '10', '--pretrained', 'weights.pth')]
    for name, count, start in (('cnniqa', 60, 'weights.pth'), ('hyperiqa', 10, None)):
        some = [args for args in ten if name in args.architecture]
        assert len(some) == count
        assert {args.split_index for args in some} == set(range(1, 11))
        assert {args.pretrained for args in some} == {start}
    assert '--im_dir: svd_cnniqa trains on several data sets' in fails(reproduce.main, 'svd_cnniqa', '--im_dir', 'x')
    assert '--epochs: svd_cnniqa varies it by itself' in fails(reproduce.main, 'svd_cnniqa', '-e', '2')
    study = read_study(sources.STUDIES['svd_cnniqa']).having({'pretrained': 'weights.pth'})
    found = comparisons(study, plan_chain(study))
    assert [row.known for row in found[:3]] == [.5429, .6038, .3753]
    assert {row.verdict() for row in found} == {'no result'}
    assert [(row.label, row.measure, row.known) for row in found[-3:]] == [
        ('svd_cnniqa, HyperIQA', f'mean {name}', known)
        for name, known in (('SROCC', .81371), ('PLCC', .88019), ('KROCC', .62619))]
    assert reason(study) == 'shown, not judged'
    digest = hashlib.sha256(b'others').hexdigest()
    assert reason(replace(study, judged_from=digest[:8])) == ''
    assert reason(replace(study, judged_from=digest[:8]).having({'seed': 3})) == 'other setting'
