"""Format tables as text, Markdown, LaTeX or CSV."""
import csv
import io
import math
from collections.abc import Sequence

from iqa_runtime.errors import one_line
from iqa_runtime.names import cell

TextRow = Sequence[str]
LATEX_ESCAPES = str.maketrans({'\\': r'\textbackslash{}', '_': r'\_', '&': r'\&', '%': r'\%', '#': r'\#', '$': r'\$',
                               '{': r'\{', '}': r'\}', '^': r'\^{}', '~': r'\~{}', '<': r'\textless{}',
                               '>': r'\textgreater{}', '|': r'\textbar{}'})

MARKDOWN_ESCAPES = str.maketrans({'|': r'\|', '<': '&lt;'})


def _text(header: TextRow, rows: Sequence[TextRow]) -> str:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in [header, ['-' * width for width in widths], *rows]]
    return '\n'.join(lines) + '\n'


def _markdown(header: TextRow, rows: Sequence[TextRow]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return ''.join('| ' + ' | '.join(cell.translate(MARKDOWN_ESCAPES) for cell in row) + ' |\n' for row in lines)


def _latex(header: TextRow, rows: Sequence[TextRow]) -> str:
    def line(row: TextRow) -> str:
        return ' & '.join(cell.translate(LATEX_ESCAPES) for cell in row) + r' \\'
    return '\n'.join([rf'\begin{{tabular}}{{{"l" * len(header)}}}', r'\toprule', line(header), r'\midrule',
                      *map(line, rows), r'\bottomrule', r'\end{tabular}']) + '\n'


def _csv(header: TextRow, rows: Sequence[TextRow]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator='\n').writerows([header, *([cell(word) for word in row] for row in rows)])
    return file.getvalue()


FORMATS = {'text': _text, 'markdown': _markdown, 'latex': _latex, 'csv': _csv}
SUFFIXES = {'text': '.txt', 'markdown': '.md', 'latex': '.tex', 'csv': '.csv'}


def render(header: TextRow, rows: Sequence[TextRow], style: str = 'text') -> str:
    """Format a table of texts in one of FORMATS; each row is as long as the header. LaTeX needs booktabs.

    A line break inside a cell, as in a prompt, would end its row: it is escaped, as other control characters are.
    """
    return FORMATS[style]([*map(one_line, header)], [[*map(one_line, row)] for row in rows])


def places(low: float, high: float, most: int = 4) -> int:
    """Return the decimal places that an interval justifies, at most `most`: to the second digit of half its width.

    >>> places(.81, .87), places(.8411, .8419), places(12, 19)
    (3, 4, 1)
    """
    half = (high - low) / 2
    return min(most, max(0, 1 - math.floor(math.log10(half)))) if 0 < half < math.inf else most


def as_word(value: float, form: str = '.3f') -> str:
    """Return a number as a word; - if it is not defined."""
    return format(value, form) if math.isfinite(value) else '-'
