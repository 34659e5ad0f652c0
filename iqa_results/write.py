"""Write the results of a test: predictions of each image and metrics, as files and as a printed table."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from iqa_runtime.checks import json_text
from iqa_runtime.files import replacing, write_text
from iqa_runtime.names import cell
from IQAperformance import CRITERIA, Performance, criterion_title


def write_results(folder: str | Path, name: str, names: list[str], performance: Performance,
                  about: dict, votes: np.ndarray | None = None) -> list[Path]:
    """Write FOLDER/NAME.csv (per image) and FOLDER/NAME.json (metrics, k, b, and `about`); return both paths.

    The table's columns: name; mos and std of the opinions; pq, pq1, pq2, the predictions of the scored head and of the
    others in MOS units; pq_before, pq1_before, pq2_before, their raw outputs; spread, if images are scored by crops;
    uncertainty, if the network predicts distributions; votes, (N,), if they are given. All digits are kept, so that
    iqa_studies/check.py can compute the metrics again. A metric that is not defined is null in the JSON file.
    """
    rated = {} if votes is None else {'votes': votes}
    table = pd.DataFrame({'name': list(map(cell, names)), **performance.columns(), **rated})
    csv, summary = (Path(folder, f'{name}.{kind}') for kind in ('csv', 'json'))
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    content = {'metrics': performance.criteria, 'k': performance.k, 'b': performance.b, 'images': len(names), **about}
    write_text(summary, json_text(content, indent=2) + '\n')
    return [csv, summary]


def results_table(performance: Performance, heads: Sequence[str]) -> str:
    """Return the criteria of all heads as lines of text; `heads`: their names, the scored head first.

    Correlations are shown by their magnitude; a last line names the heads whose scores fall as MOS rises.
    """
    lines = [f'{"":12}' + ''.join(f'{criterion_title(name):>9}' for name in CRITERIA)]
    named = list(zip(heads, performance.heads, strict=True))
    for name, head in named:
        lines.append(f'{name:12}' + ''.join(f'{abs(head.criteria[criterion]):9.4f}' for criterion in CRITERIA))
    falling = [name for name, head in named if head.criteria['SROCC'] < 0]
    if falling:
        lines.append(f'SROCC is negative, the scores fall as MOS rises: {", ".join(falling)}')
    return '\n'.join(lines)
