"""The documentation builds as a site without a warning, with a page for each module that it names."""
import importlib.util
import json
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

PAGES = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']


def pages(nav) -> set[str]:
    """Return the pages in a part of the navigation."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(pages, nav.values() if isinstance(nav, dict) else nav))


def test_every_page_is_in_the_navigation():
    folder = ROOT / 'docs'
    there = {str(path.relative_to(folder)) for kind in ('*.md', '*.ipynb') for path in folder.rglob(kind)}
    assert pages(PAGES) == there


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('mkdocstrings'), reason='needs pip install -r requirements-docs.txt')
def test_the_site_builds_without_a_warning(tmp_path):
    built = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', tmp_path], cwd=ROOT,
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for module in ('IQAmodel.create_model', 'IQAloss.IQALoss', 'IQAdataset.load_data', 'IQAperformance.evaluate'):
        assert any(f'id="{module}"' in path.read_text() for path in tmp_path.glob('api/*/index.html')), module


NOTEBOOK = ROOT / 'docs/first_steps.ipynb'


def test_the_notebook_holds_no_outputs():
    cells = json.loads(NOTEBOOK.read_text())['cells']
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbclient, nbformat = (pytest.importorskip(name) for name in ('nbclient', 'nbformat'))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    (tmp_path / 'docs').mkdir()
    done = nbclient.execute(nbformat.read(NOTEBOOK, 4), cwd=tmp_path / 'docs', timeout=None)
    outputs = [output for cell in done.cells for output in cell.get('outputs', [])]
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 3
    text = ''.join(output.get('text', '') for output in outputs)
    whole, blurred = map(float, re.search(r'as it is: ([\d.]+), half blurred: ([\d.]+)', text).groups())
    assert whole > blurred
    assert re.search(r'norm-in-norm - mse +SROCC', text)
