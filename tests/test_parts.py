"""Scores as a folder of Parquet files, one per shard: continued, shared by processes, and with broken shards."""
import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from processes import in_two
from shards import png, save_parquet, save_tar
from test_tables import ends_with, names

import iqa_scoring.parts
import test_demo
from iqa_runtime.errors import UserError
from iqa_scoring import predict_all
from iqa_scoring.parts import KEY, TableParts, about_part, units_of
from iqa_scoring.references import with_references
from iqa_scoring.shards import End
from iqa_scoring.tables import COLUMNS

COMMANDS = re.findall(r'^(?:python|torchrun \S+) test_demo\.py (--img .*(?:shards/|\.parquet).*)$',
                      (ROOT / 'docs/shards.md').read_text(encoding='utf-8'), re.M)


@pytest.fixture
def shards(scored) -> list[str]:
    """Three tars of four photos each, of which 0.tar has no image 3, and one Parquet; the options that score."""
    for shard in range(3):
        save_tar(f's/{shard}.tar', {f'{i:02d}.png': png(i) for i in range(4 * shard, 4 * shard + 4)})
    return scored


def parts(folder='out') -> list[dict]:
    """All rows, in the order of the files' names."""
    return [row for path in sorted(Path(folder).iterdir()) for row in pq.read_table(path).to_pylist()]


def scores(table) -> dict[str, float]:
    return {Path(row['name']).name: float(row['score']) for row in table}


def test_scores_are_those_of_files_bit_for_bit(shards, capsys):
    save_parquet('s.parquet', 5, image=[{'bytes': png(i), 'path': f'{i:02d}.png'} for i in range(12)])
    test_demo.main(['--img', 'images', *shards, '--json', 'files.jsonl', '-bs', '4'])
    assert test_demo.main(['--img', 's/{0..2}.tar', *shards, '--parquet', 'out', '-bs', '4']) == 12
    assert '12 images scored: out' in capsys.readouterr().out
    assert test_demo.main(['--img', 's.parquet', *shards, '--json', 'parquet.jsonl', '-bs', '4']) == 12
    assert test_demo.main(['--img', 'images', *shards, '--parquet', 'of_files', '-bs', '4']) == 12
    table = parts()
    of_files, of_parquet = ([json.loads(line) for line in Path(path).read_text().splitlines()]
                            for path in ('files.jsonl', 'parquet.jsonl'))
    assert scores(of_files) == scores(table) == scores(of_parquet) == scores(parts('of_files'))
    assert [row['name'] for row in of_parquet] == [f's.parquet/{i:02d}.png' for i in range(12)]
    assert [row['name'] for row in table] == [f's/{i // 4}.tar/{i:02d}.png' for i in range(12)]
    assert list(pd.read_parquet('out')['score']) == [row['score'] for row in table]
    assert tuple(table[0]) == (*COLUMNS, 'shard', 'key', 'error')
    assert (table[0]['shard'], table[0]['key'], table[0]['error']) == ('s/0.tar', '00.png', None)
    for name in ('raw', 'percentile', 'mos_min', 'mos_max'):
        assert of_files[0][name] == table[0][name]
    assert (table[0]['model'], table[0]['higher_is_better']) == ('checkpoint.pth', True)


def test_resume_continues_at_the_shard(shards, capsys):
    words = ['--img', 's/*.tar', *shards, '--parquet', 'out', '--resume']
    test_demo.main(words)
    whole, files = parts(), sorted(Path('out').iterdir())
    assert len(files) == 3
    files[1].unlink()
    kept = files[0].stat().st_mtime_ns
    capsys.readouterr()
    assert test_demo.main(words) == 4
    assert '4 images scored, 8 were scored before: out' in capsys.readouterr().out
    assert files[0].stat().st_mtime_ns == kept
    assert scores(parts()) == scores(whole)
    assert test_demo.main(words) == 0
    save_tar('s/2.tar', {f'{i}.png': png(i) for i in range(12)})  # another one of that name
    assert test_demo.main(words) == 12
    assert [row['key'] for row in parts() if row['shard'] == 's/2.tar'] == [f'{i}.png' for i in range(12)]


def test_an_image_is_in_one_part_however_the_list_grows(shards, capsys, monkeypatch):
    """Files that are added, or left out, anywhere in the list: each is scored once, and parts stay as they are."""
    monkeypatch.setattr(iqa_scoring.parts, 'FILES', 3)
    Path('text.png').write_text('no image')
    words = [*shards, '--parquet', 'out', '--resume']
    before = {}
    for files in (['05', '06'], ['01', '05', '06', '07'], ['00', '01', '02', '03', '04', '05', '07'], ['05', '11']):
        ends_with(1, ['--img', 'text.png', *(f'images/{name}.png' for name in files), 's/0.tar', *words])
        assert before.items() <= (before := {path: path.read_bytes() for path in Path('out').iterdir()}).items()
        there = [row['name'] for row in parts()]
        assert len(there) == len(set(there))
        assert {f'images/{name}.png' for name in files} < set(there)
    assert '1 images scored, 5 were scored before, 1 could not be scored: out' in capsys.readouterr().out


def test_a_broken_shard_is_named_and_the_rest_is_scored(shards, capsys):
    save_tar('s/1.tar', {'04.png': png(4), 'text.png': b'hello', '05.png': png(5), '06.png': png(6)})
    whole = Path('s/1.tar').read_bytes()
    Path('s/1.tar').write_bytes(whole[:whole.index(png(6)) + 100])
    Path('s/3.tar').write_text('no tar' * 500)
    Path('s/4.parquet').write_bytes(b'PAR1' + bytes(50))
    words = ['--img', 's/{0..4}.tar', 's/4.parquet', *shards]
    for output in (['--csv', 'out.csv'], ['--parquet', 'out']):
        ends_with(1, [*words, *output])
        out, err = capsys.readouterr()
        assert '10 images scored, 1 could not be scored, broken shards: 4: out' in out
        for line in ('s/1.tar: cut off in 06.png', 's/1.tar/text.png: cannot identify', 's/3.tar: ', 's/4.tar: no such',
                     's/4.parquet: '):
            assert err.count(line) == 1
    assert len(names()) == 10
    table = parts()
    assert [(row['key'], row['score'], row['error']) for row in table if row['error']] == [
        ('text.png', None, 'cannot identify image file')]
    Path('s/1.tar').write_bytes(whole)  # mended: it alone is scored again, and what stays broken
    ends_with(1, [*words, '--parquet', 'out', '--resume'])
    assert '3 images scored, 8 were scored before, 1 could not be scored, broken shards: 3' in capsys.readouterr().out
    ends_with(1, [*words[:2], *shards, '--parquet', 'out', '--resume'])
    for path in ('s/3.tar', 's/4.tar', 's/4.parquet'):
        Path(path).unlink(missing_ok=True)
    ends_with(1, ['--img', 's/*.tar', *shards, '--parquet', 'out', '--resume'])  # an image without a score is still one
    assert '0 images scored, 11 were scored before, 1 could not be scored: out' in capsys.readouterr().out


def test_an_interrupted_run_leaves_whole_parts(shards, monkeypatch, foreground):
    take = test_demo.Scoring.take
    monkeypatch.setattr(test_demo.Scoring, 'take', lambda run, sample: (
        take(run, sample), sample.index == 6 and signal.raise_signal(signal.SIGINT)))
    words = ['--img', 's/*.tar', *shards, '--parquet', 'out', '-bs', '2', '--resume', '--num_workers', '1']
    ends_with(130, words)
    assert [row['name'] for row in parts()] == [f's/0.tar/{i:02d}.png' for i in range(4)]
    monkeypatch.setattr(test_demo.Scoring, 'take', take)
    assert test_demo.main(words) == 8
    assert len(scores(parts())) == 12


def test_what_does_not_go_together(shards, fails, tmp_path):
    def error(*words):
        return fails(test_demo.main, *words, *shards)
    assert 'leave out --csv, --json and --sort' in error('--img', 's/0.tar', '--parquet', 'out', '--csv', 'out.csv')
    assert '--picture draws one image' in error('--img', 's/0.tar', '--picture', 'p.png')
    assert '--ref images: this network scores images without' in error('--img', 's/0.tar', '--ref', 'images')
    assert 'is in the folder of --parquet' in error('--img', save_parquet('p/0.parquet', image=[b'']), '--parquet', 'p',
                                                    '--resume')
    assert 'p holds Parquet files already: --resume' in error('--img', 's/0.tar', '--parquet', 'p')
    assert 'no such file; nearest to it: s/' in error('--img', 's/9.tar')
    test_demo.main(['--img', 's/0.tar', *shards, '--parquet', 'out'])
    (path,) = Path('out').iterdir()
    with pytest.raises(UserError, match='s/0.tar: shards and videos hold images without references'):
        with_references(['a.png', 's/0.tar'], 'r.png', 2)
    for word in ('s/0.parquet', 's/{0,1}.tar'):
        save_parquet('s/0.parquet', image=[b''])
        with pytest.MonkeyPatch.context() as patch:
            for package in ('pyarrow', 'pyarrow.parquet', 'braceexpand'):
                patch.setitem(sys.modules, package, None)
            assert 'pip install' in error('--img', word)
    models = str(Path(shards[1]).parent)
    assert 'test_demo.py scores shards' in fails(predict_all.main, '--models', models, '--img', 's/0.tar', '--out', 'o')
    with pytest.raises(UserError, match='holds scores of checkpoint.pth with other weights'):
        TableParts('out', ['s/0.tar'], True, 'other', 'digest')
    for content in (b'', b'PAR1', Path('p/0.parquet').read_bytes()):
        path.write_bytes(content)
        assert 'is not a part of scores' in error('--img', 's/0.tar', '--parquet', 'out', '--resume')


@pytest.mark.parametrize('about', [b'[]', b'{}', b'1', b'{"model": 1}', b'\xff', b'[' * 9999,
                                   json.dumps({'model': 'm', 'bytes': '9', 'scored': 1, 'failed': 0, 'broken': ''}),
                                   json.dumps({'model': 'm', 'bytes': 9, 'scored': 1, 'failed': 0, 'broken': ''}),
                                   json.dumps({'model': 'm', 'digest': 'd', 'bytes': -1, 'scored': True, 'failed': 0,
                                               'broken': ''})])
def test_a_malicious_footer(tmp_path, about):
    table = pa.table({'name': ['a']}).replace_schema_metadata({KEY: about})
    pq.write_table(table, tmp_path / '0.parquet')
    with pytest.raises(UserError, match=r'0\.parquet is not a part of scores'):
        about_part(tmp_path / '0.parquet')


def test_reports_maps_and_the_screen_take_shards(shards, capsys):
    test_demo.main(['--img', 's/0.tar', *shards, '--map', 'maps', '--report', 'out.html'])
    assert len(list(Path('maps').iterdir())) == 4
    assert Path('out.html').read_text().count('<figure') == 4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines[2:]] == [f's/0.tar/{i:02d}.png' for i in range(4)]
    test_demo.main(['--img', 's/0.tar', 'images', *shards, '--csv', 'out.csv'])
    lines = Path('out.csv').read_bytes().splitlines(keepends=True)
    Path('out.csv').write_bytes(b''.join(lines[:3]))
    capsys.readouterr()
    assert test_demo.main(['--img', 's/0.tar', 'images', *shards, '--csv', 'out.csv', '--resume']) == 14
    assert '14 images scored, 2 were scored before' in capsys.readouterr().out


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_of_the_readme(shards, line):
    Path('s').rename('shards')
    for i, shard in enumerate(sorted(Path('shards').iterdir())):
        shard.rename(f'shards/{i:04d}.tar')
    for path in ('images.parquet', 'more/1.parquet'):
        save_parquet(path, jpg=[png(0)])
    Path('checkpoints').mkdir()
    Path('checkpoints/NAME.pth').symlink_to(shards[1])
    words = shlex.split(line.replace('{0000..0999}', '{0000..0002}'))
    assert test_demo.main([*words, *shards[2:]]) == (12 if 'tar' in line else 2)


def test_the_readme_has_commands_for_shards():
    assert len(COMMANDS) == 3


def test_two_processes_take_whole_shards(shards):
    Path('s/1.tar').write_bytes(Path('s/1.tar').read_bytes()[:-12_000])
    (status, _), out = in_two(test_demo.main, ['--img', 's/*.tar', *shards, '--parquet', 'out'])
    assert status == 1
    assert 's/1.tar: cut off' in out
    table = parts()
    assert f'{len(table)} images scored, broken shards: 1: out' in out
    assert [row['name'] for row in table if '/1.tar' not in row['name']] == [
        f's/{i // 4}.tar/{i:02d}.png' for i in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert len(list(Path('out').iterdir())) == 3
    ends_with(1, ['--img', 's/*.tar', *shards, '--parquet', 'alone'])
    for name, score in scores(parts('alone')).items():
        assert scores(table)[name] == pytest.approx(score, abs=1e-3)


@given(st.lists(st.sampled_from(['a.tar', 'b.parquet', 'x.png', 'y.png', ('r.png', 'd.png')]), max_size=30),
       st.integers(1, 5))
def test_units_hold_each_item_once_in_order(items, files):
    units = list(units_of(items, files))
    assert [item for unit in units for item in unit.items if not isinstance(item, End)] == items
    for unit in units:
        shards = [item for item in unit.items if item in ('a.tar', 'b.parquet')]
        assert (len(unit.items) == 1) if shards else (1 < len(unit.items) <= files + 1)
        assert unit.part.endswith('.parquet')
    if units:
        again = {unit.part for unit in units_of([*items, 'z.tar'], files)}
        assert {unit.part for unit in units} <= again
