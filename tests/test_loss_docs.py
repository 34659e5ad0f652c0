"""The page on losses has a section for each row of LOSSES, and no other; the picture lies beside it."""
import re

from conftest import ROOT

from IQAloss import LOSSES


def test_every_loss_has_its_section():
    page = (ROOT / 'docs' / 'losses.md').read_text()
    sections = dict(re.findall(r'^### (\S+)\n(.*?)(?=^##|\Z)', page, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(LOSSES)
    for name, text in sections.items():
        assert re.search(r'Range|Any real number', text), name
        assert re.search(r'\*.+\*\n', text), name
        for need in {'std', 'logits', 'log_variance', 'interval'} & set(LOSSES[name].needs()):
            assert 'Needs' in text, (name, need)
    assert (ROOT / 'docs' / re.search(r'!\[.*\]\((.*)\)', page)[1]).is_file()
