"""The report: one file, safe whatever the names are, as a browser shows it."""
import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from mini import MINI
from PIL import Image
from scored import photo

import main
import test_dataset
import test_demo
from iqa_scoring.mapping import Scale
from iqa_scoring.report import ReportEntry, write_report

SCALE = Scale(np.linspace(20, 80, 50), 20, 80, True)
NASTY = '<script>document.title="owned"</script>" onerror="document.title=1" &amp; \'x\'.png'


def jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(photo(seed)).save(buffer, 'JPEG')
    return buffer.getvalue()


def entries(n, labelled=False, small_map=b''):
    return [ReportEntry({'name': f'{i}.png', 'score': float(i * 7 % n), 'raw': i / 2, 'percentile': SCALE.percentile(i),
                         'outside': SCALE.outside(i * 7 % n), 'note': ''}, jpeg(i % 5), small_map,
                        float(i * 5 % n) if labelled else None) for i in range(n)]


def in_browser(path, script=''):
    """The page as Chromium has it after `script` ran in it; skips where there is no Chromium."""
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not chromium:
        pytest.skip('needs Chromium (Debian: apt-get install chromium)')
    page = Path(path).resolve()
    if script:
        driven = page.with_name('driven.html')  # the page's policy allows no other script than its own
        html = re.sub(r'<meta http-equiv.*?>', '', page.read_text(encoding='utf-8'), flags=re.S)
        driven.write_text(html.replace('</body>', f'<script>{script}</script></body>'), encoding='utf-8')
        page = driven
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
             '--disable-background-networking', '--disable-component-update', '--virtual-time-budget=3000',
             f'--user-data-dir={page.parent / "profile"}', '--window-size=1000,900', '--dump-dom']
    done = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout


def scores_in(html):
    return [float(score) for score in re.findall(r'<figure[^>]*?data-score="([^"]*)"', html)]


def test_sorted_by_score_best_first(tmp_path):
    for scale, order in ((SCALE, sorted(range(30), reverse=True)), (Scale(SCALE.values, 20, 80, False), range(30)),
                         (Scale(np.empty(0)), sorted(range(30), reverse=True))):
        write_report(tmp_path / 'r.html', entries(30), scale, 'Title')
        assert scores_in((tmp_path / 'r.html').read_text()) == list(order)


def test_nothing_comes_from_elsewhere(tmp_path):
    write_report(tmp_path / 'r.html', entries(3, True, jpeg(0)), SCALE, 'Title', metrics={'PLCC': (.5, .4, .6)})
    html = (tmp_path / 'r.html').read_text()
    assert "default-src 'none'" in html
    for address in re.findall(r'(?:src|href)="([^"]*)"', html):
        assert address.startswith(('data:', '#'))
    assert '@import' not in html
    assert 'url(' not in html


def test_names_are_escaped(tmp_path):
    (entry,) = entries(1)
    entry.row['name'] = NASTY
    write_report(tmp_path / 'r.html', [entry], SCALE, NASTY, [NASTY])
    html = (tmp_path / 'r.html').read_text()
    assert html.count('<script') == 1
    assert 'onerror="' not in html
    assert '<title>owned' not in in_browser(tmp_path / 'r.html')


def test_the_same_entries_give_the_same_bytes(tmp_path):
    for name in ('one', 'two'):
        write_report(tmp_path / name, entries(30, labelled=True), SCALE, 'Title', metrics={'PLCC': (.5, .4, .6)})
    assert (tmp_path / 'one').read_bytes() == (tmp_path / 'two').read_bytes()


def test_an_empty_report(tmp_path):
    write_report(tmp_path / 'r.html', [], SCALE, 'Title', ['a.png: no such file'])
    html = (tmp_path / 'r.html').read_text()
    assert '0 images.' in html
    assert 'Images that could not be scored: 1<' in html


def test_a_labelled_set(tmp_path):
    write_report(tmp_path / 'r.html', entries(30, labelled=True), SCALE, 'Title', metrics={'PLCC': (.5, .4, .6)})
    html = (tmp_path / 'r.html').read_text()
    assert '<td>PLCC</td><td>0.50</td><td>0.40 to 0.60</td>' in html  # the digits that the interval justifies
    assert 'id="scatter"' in html
    worst = re.findall(r'<td><a href="#i(\d+)">(.*?)</a></td>', html)
    errors = {f'{i}.png': abs(i * 7 % 30 - i * 5 % 30) for i in range(30)}
    assert [errors[name] for _, name in worst] == sorted(errors.values(), reverse=True)[:20]
    assert all(f'id="i{place}" tabindex="0" data-name="{name}"' in html for place, name in worst)


def test_in_a_browser_pictures_are_decoded_when_near(tmp_path):
    write_report(tmp_path / 'r.html', entries(400), SCALE, 'Title')
    html = in_browser(tmp_path / 'r.html')
    waiting = html.count('data-src=')
    assert 0 < 400 - waiting < 200
    assert html.count('src="data:image/jpeg') == 400


def test_in_a_browser_filter_order_and_download(tmp_path):
    listed = entries(30)
    listed[3].row['name'] = 'comma, "quote".png'
    write_report(tmp_path / 'r.html', listed, SCALE, 'Title')
    html = in_browser(tmp_path / 'r.html', '''
        field('low').value = 20; field('low').dispatchEvent(new Event('input'));
        field('order').click();
        field('text').value = 'MA'; field('text').dispatchEvent(new Event('input'));
        document.body.append(Object.assign(document.createElement('pre'), {textContent: table()}));
        field('download').click();''')
    assert scores_in(html) == list(range(30))
    assert '>1 shown<' in html
    assert html.count('hidden=""') == 29
    table = re.search(r'<pre>(.*?)</pre>', html, re.S)[1]
    assert table == f'name,score,raw,percentile,outside\n"comma, ""quote"".png",21.0,1.5,{SCALE.percentile(3)},\n'


def test_from_test_demo(scored, tmp_path):
    (tmp_path / 'text.png').write_text('hello')
    with pytest.raises(SystemExit):
        test_demo.main(['--img', 'images', 'text.png', *scored, '--report', 'r.html'])
    html = (tmp_path / 'r.html').read_text()
    assert len(scores_in(html)) == 12
    assert html.count('class="map"') == 12
    assert 'text.png: cannot identify' in html
    test_demo.main(['--img', 'images', *scored, '--report', 'r.html', '--no-report_maps'])
    assert 'class="map"' not in (tmp_path / 'r.html').read_text()


def test_from_test_dataset(tiny, tmp_path, capsys, one_thread):
    main.main([*tiny, *SMALL, *MINI, '-e', '1', '--debug', '--trained_model_file', 'c.pth'])
    performance = test_dataset.main(['--trained_model_file', 'c.pth', '--im_dir', 'tiny/images', '--data_info',
                                     'tiny/info.mat', '--dataset', 'demo', '--part', 'all', '--device', 'cpu',
                                     '--no-pbar', '--report', 'r.html'])
    html = (tmp_path / 'r.html').read_text()
    assert 'Report: r.html' in capsys.readouterr().out
    assert scores_in(html) == sorted(performance.pq, reverse=True)
    assert f'<td>SROCC</td><td>{performance.srocc:.2f}' in html
    picture = re.search(r'id="scatter" src="data:image/svg\+xml;base64,([^"]*)"', html)[1]
    assert b'<svg' in base64.b64decode(picture)
