"""What a test leaves behind: a table per image, the metrics, and a few lines on the screen."""
import json
from pathlib import Path

import pandas as pd

from iqa_runtime.files import replacing, write_text
from IQAperformance import CRITERIA, SUFFIXES, criteria_of

HEADS = ('both levels', 'level 6', 'level 7')


def write_results(folder: str | Path, name: str, names: list[str], performance: dict, about: dict) -> list[Path]:
    """Write FOLDER/NAME.csv (per image) and FOLDER/NAME.json (metrics, k, b, and what `about` says); return both.

    The table's columns: name; mos and std of the opinions; pq, pq1, pq2 the scores of the final head, level 6 and
    level 7 in MOS units; the same with _before, raw.
    """
    table = pd.DataFrame({'name': names, 'mos': performance['sq'], 'std': performance['sq_std']})
    for column in (f'pq{suffix}{raw}' for raw in ('', '_before') for suffix in SUFFIXES):
        if column in performance:
            table[column] = performance[column]
    csv, summary = (Path(folder, f'{name}.{kind}') for kind in ('csv', 'json'))
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    write_text(summary, json.dumps({'metrics': criteria_of(performance), 'k': performance['k'], 'b': performance['b'],
                                    'images': len(names), **about}, indent=2) + '\n')
    return [csv, summary]


def table(performance: dict) -> str:
    """The criteria of all heads as lines of text."""
    lines = [f'{"":12}' + ''.join(f'{name:>9}' for name in CRITERIA)]
    for suffix, head in zip(SUFFIXES, HEADS, strict=True):
        if CRITERIA[0] + suffix in performance:
            lines.append(f'{head:12}' + ''.join(f'{performance[name + suffix]:9.4f}' for name in CRITERIA))
    return '\n'.join(lines)
