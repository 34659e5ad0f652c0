"""Tables 1, 2, A1 and A2, with the paper's numbers, ours and the difference, as text, Markdown and LaTeX."""
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.errors import command, pick
from iqa_runtime.files import check_outputs, write_text
from iqa_runtime.options import Add, Command, group
from iqa_runtime.table_formats import FORMATS, SUFFIXES, render
from iqa_scoring.results import Result
from results_in_the_paper.driver import paper, places
from results_in_the_paper.driver.cells import HEADERS, TITLES, Cell, cells
from results_in_the_paper.driver.options import add_format, add_results


@group('tables', 'the tables and their results')
def tables(add: Add) -> None:
    add('tables', nargs='*', default=('table1', 'table2', 'tableA1', 'tableA2'), metavar='TABLE',
        help=f'any of {", ".join(HEADERS)}')
    add_results(add)
    add_format(add)
    add('--out_dir', metavar='DIR', help='also write each table there, as text, Markdown, LaTeX and CSV')


TABLES = Command(__doc__, [tables])


def draw(rows_of: Sequence[Cell], results: list[Result], style: str = 'text') -> str:
    """Return one table from its cells: a row per run and test; paper, ours and difference of each criterion."""
    metrics = list(dict.fromkeys(cell.metric for cell in rows_of))
    header = [*HEADERS[rows_of[0].target], *(f'{metric} {what}' for metric in metrics
                                             for what in ('paper', 'ours', 'diff.'))]
    rows = {}
    for cell in rows_of:
        rows.setdefault(cell.labels, []).extend(triple(cell.paper, cell.ours(results)))
    return render(header, [[*labels, *words] for labels, words in rows.items()], style)


def triple(known: float | None, ours: float | None) -> list[str]:
    """Return the paper's number, ours and the difference as words; '-' for a number that is not there (yet)."""
    shown = '-' if ours is None else f'{ours:.3f}'
    both = known is not None and ours is not None and math.isfinite(ours)
    return [paper.show(known), shown, f'{ours - known:+.3f}' if both else '-']


def missing(rows_of: Sequence[Cell], results: list[Result]) -> list[str]:
    """Return the commands, in order and each once, that make the numbers of ours which are not there."""
    return list(dict.fromkeys(line for cell in rows_of if cell.ours(results) is None for line in cell.commands()))


@command
def main(argv: list[str] | None = None) -> None:
    """Print the tables, with the commands that make missing results; write them if asked to."""
    args = TABLES.parse(argv)
    results = places.results(args.result_dir)
    names = [pick(HEADERS, name, 'table') for name in args.tables]
    written = {(name, style): Path(args.out_dir or '', name + SUFFIXES[style]) for name in names for style in FORMATS}
    if args.out_dir:
        check_outputs({'--out_dir': list(written.values())}, {
            '--result_dir': [result.path.with_suffix(kind) for result in results for kind in ('.json', '.csv')]})
    for name in names:
        rows_of = cells(name)
        print(f'{TITLES[name]}\n\n{draw(rows_of, results, args.format)}')
        if lines := missing(rows_of, results):
            print('To fill in what is not there yet:', *lines, sep='\n  ', end='\n\n')
        for style in FORMATS if args.out_dir else ():
            write_text(written[name, style], draw(rows_of, results, style))


if __name__ == '__main__':
    main()
