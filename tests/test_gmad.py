"""gMAD: pairs on which two models contradict each other, the page that shows them, and the verdict of people."""
import base64
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from test_report import in_browser

from iqa_results.facts import read_preferences
from iqa_results.gmad import EQUAL, GmadPair, gmad_pairs, verdict
from iqa_scoring import gmad


def scores(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    return quality + .5 * rng.normal(size=n), quality + .5 * rng.normal(size=n)


@given(st.integers(4, 80), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=40)
def test_a_defender_calls_a_pair_equal_that_the_attacker_tells_apart(n, count, seed):
    models = scores(n, seed)
    pairs = gmad_pairs(*models, count)
    ranks = [stats.rankdata(one) / n for one in models]
    for pair in pairs:
        defender, attacker = ranks[pair.defender], ranks[1 - pair.defender]
        assert attacker[pair.better] > attacker[pair.worse]
        assert abs(defender[pair.better] - defender[pair.worse]) <= max(EQUAL, 1.001 / n)
    for defender in (0, 1):
        own = [place for pair in pairs if pair.defender == defender for place in (pair.better, pair.worse)]
        assert len(own) <= 2 * count
        assert len(set(own)) == len(own)


def test_the_pair_of_a_level_is_the_best_of_all():
    """One level: against a loop over all pairs."""
    a, b = scores(60)
    pair = gmad_pairs(a, b, 1)[0]
    defender, attacker = (stats.rankdata(one) / 60 for one in (a, b))
    best = max(attacker[i] - attacker[j] for i in range(60) for j in range(60)
               if i != j and abs(defender[i] - defender[j]) <= EQUAL + 1e-12)
    assert attacker[pair.better] - attacker[pair.worse] == pytest.approx(best)


def test_pairs_are_the_same_each_time_and_on_every_rising_scale():
    a, b = scores()
    assert gmad_pairs(a, b) == gmad_pairs(np.exp(a), 10 * b - 4)
    turned = gmad_pairs(b, a)
    assert {(1 - pair.defender, *pair[1:]) for pair in turned} == set(gmad_pairs(a, b))
    assert gmad_pairs(a, 3 * a, 200) == gmad_pairs(a, 3 * a, 5) == []


def test_the_verdict_by_hand():
    """Model 0 attacks twice, once confirmed; model 1 twice, never: 3 of 4 pairs are model 0's, p = 2 * 5 / 16."""
    pairs = [GmadPair(1, 0, 1), GmadPair(1, 2, 3), GmadPair(0, 4, 5), GmadPair(0, 6, 7)]
    found = verdict(pairs, [.8, .5, .4, .5])
    assert found.attacks == ((1, 2), (0, 2))
    assert found.won == (3, 1)
    assert found.p == pytest.approx(.625)


def test_people_who_know_the_truth_prefer_the_better_model():
    rng = np.random.default_rng(0)
    quality = rng.normal(size=400)
    good, bad = quality + .2 * rng.normal(size=400), quality + rng.normal(size=400)
    pairs = gmad_pairs(good, bad, 20)
    found = verdict(pairs, [float(quality[pair.better] > quality[pair.worse] + .3) for pair in pairs])
    assert found.won[0] > found.won[1]
    assert found.p < .01


@pytest.fixture
def folder(tmp_path, monkeypatch) -> list[str]:
    """Two tables of scores of 30 images in a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    names = [f'i{i:02d}.{"bmp" if i % 2 else "png"}' for i in range(30)]
    for name, color in zip(names, np.random.default_rng(0).integers(255, size=(30, 3)), strict=True):
        Image.new('RGB', (12, 9), tuple(map(int, color))).save(name)
    for file, column, values in zip(('a.csv', 'b.csv'), ('score', 'pq'), scores(30), strict=True):
        rows = [f'{name},{value}' for name, value in zip(names, values, strict=True)]
        (tmp_path / file).write_text(f'name,{column}\n' + '\n'.join(rows[::1 if file == 'a.csv' else -1]) + '\n')
    return names


def test_the_page_shows_each_pair_once_and_does_not_say_who_says_what(folder, tmp_path, capsys):
    gmad.main(['a.csv', 'b.csv', '--pairs', '3', '--out', 'page.html'])
    text = (tmp_path / 'page.html').read_text()
    both = re.findall(r'data-first="(.*?)" data-second="(.*?)"', text)
    read = gmad.read_both('a.csv', 'b.csv')
    pairs = gmad_pairs(read.a, read.b, 3)
    assert sorted(map(sorted, both)) == sorted(sorted((folder[pair.better], folder[pair.worse])) for pair in pairs)
    on_the_left = sum((folder[pair.better], folder[pair.worse]) in both for pair in pairs)
    assert on_the_left == len(pairs) // 2
    pictures = re.findall(r'src="data:image/png;base64,(.*?)"', text)
    assert len(pictures) == 2 * len(pairs)
    assert base64.b64decode(pictures[0]).startswith(b'\x89PNG')
    assert 'defender' not in text
    first = text
    gmad.main(['a.csv', 'b.csv', '--pairs', '3', '--out', 'page.html'])
    assert (tmp_path / 'page.html').read_text() == first


def test_in_a_browser_choices_become_a_table(folder, tmp_path):
    gmad.main(['a.csv', 'b.csv', '--pairs', '3', '--out', 'page.html'])
    html = in_browser(tmp_path / 'page.html', '''
        for (const [i, value] of [[0, '1'], [2, '0.5'], [3, '0']]) pairs[i].querySelector(`[value="${value}"]`).click();
        document.body.append(Object.assign(document.createElement('pre'), {textContent: table()}));''')
    assert '>3 of 6 chosen<' in html
    (tmp_path / 'choices.csv').write_text(re.search(r'<pre>(.*?)</pre>', html, re.S)[1])
    assert read_preferences('choices.csv', folder)[2].tolist() == [1, .5, 0]


def test_choices_of_several_people_become_a_verdict(folder, tmp_path, capsys):
    read = gmad.read_both('a.csv', 'b.csv')
    pairs = gmad_pairs(read.a, read.b, 3)
    rows = [f'{folder[pair.better]},{folder[pair.worse]},{int(pair.defender == 1)}\n' for pair in pairs]
    (tmp_path / 'one.csv').write_text('first,second,preference\n' + ''.join(rows))
    turned = [f'{folder[pair.worse]},{folder[pair.better]},{int(pair.defender == 0)}\n' for pair in pairs]
    (tmp_path / 'two.csv').write_text('first,second,preference\n' + ''.join(turned))
    gmad.main(['a.csv', 'b.csv', '--pairs', '3', '--choices', 'one.csv', 'two.csv'])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    attacks = sum(pair.defender == 1 for pair in pairs)
    assert lines[2][:4] == ['a', str(attacks), 'of', str(attacks)]
    assert lines[2][-1] == str(len(pairs))
    assert lines[3][-1] == '0'
    assert len(read_preferences('one.csv', folder)[0]) == len(pairs)


def test_mistakes_are_named(folder, tmp_path, fails):
    read = gmad.read_both('a.csv', 'b.csv')
    better, worse = gmad_pairs(read.a, read.b, 1)[0][1:]
    other = next(name for name in folder if name not in (folder[better], folder[worse]))
    for name, second in (('good.csv', folder[worse]), ('bad.csv', other)):
        (tmp_path / name).write_text(f'first,second,preference\n{folder[better]},{second},1\n')
    choices = ('a.csv', 'b.csv', '--pairs', '1', '--choices', 'good.csv', 'bad.csv')
    assert f'error: bad.csv: {folder[better]} and {other} are no pair' in fails(gmad.main, *choices)
    assert 'give one of them' in fails(gmad.main, *choices, '--out', 'page.html')
    (tmp_path / 'c.csv').write_text('name,score\ni00.png,1\n')
    assert 'not of the same images' in fails(gmad.main, 'a.csv', 'c.csv')
    assert 'same order: nothing to show' in fails(gmad.main, 'a.csv', 'a.csv')
    (tmp_path / 'd.csv').write_text('name,mos\ni00.png,1\n')
    assert 'lacks the column score' in fails(gmad.main, 'a.csv', 'd.csv')
    assert '--im_dir names the folder' in fails(gmad.main, 'a.csv', 'b.csv', '--im_dir', 'nowhere')
    (tmp_path / 'choices.csv').write_text('first,second,preference\ni00.png,i29.bmp,1\n')
    assert 'are no pair of these scores' in fails(gmad.main, 'a.csv', 'b.csv', '--choices', 'choices.csv')
