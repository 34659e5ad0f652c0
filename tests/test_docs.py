"""The documentation builds as a site without a warning, with a page for each module that it names."""
import importlib.util
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
    there = {str(path.relative_to(ROOT / 'docs')) for path in (ROOT / 'docs').rglob('*.md')}
    assert pages(PAGES) == there


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('mkdocstrings'), reason='needs pip install -r requirements-docs.txt')
def test_the_site_builds_without_a_warning(tmp_path):
    built = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', tmp_path], cwd=ROOT,
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for module in ('IQAmodel.create_model', 'IQAloss.IQALoss', 'IQAdataset.load_data', 'IQAperformance.evaluate'):
        assert any(f'id="{module}"' in path.read_text() for path in tmp_path.glob('api/*/index.html')), module
