"""Tables 1, 2, A1 and A2, with the paper's numbers, ours and the difference, as text, Markdown and LaTeX."""
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_results.table_formats import FORMATS, SUFFIXES, render
from iqa_runtime.errors import command, pick
from iqa_runtime.files import check_outputs, write_text
from iqa_runtime.options import Add, Command, group
from iqa_studies.published import Comparison, comparisons, triple
from results_in_the_paper import sources

TABLES = ('table1', 'table2', 'tableA1', 'tableA2')
SHOWN = (*TABLES, 'figure6', 'figure7')


@group('tables', 'the tables and their results')
def tables(add: Add) -> None:
    add('tables', nargs='*', default=TABLES, metavar='TABLE',
        help=f'any of {", ".join(SHOWN)}')
    sources.add_results(add)
    sources.add_format(add)
    add('--out_dir', metavar='DIR', help='also write each table there, as text, Markdown, LaTeX and CSV')


COMMAND = Command(__doc__, [tables])


def draw(found: Sequence[Comparison], style: str = 'text') -> str:
    """Return a table, a row per setting and data set: the paper's number, ours, and the difference, by criterion."""
    criteria = list(dict.fromkeys(row.criterion for row in found))
    cells = {(row.setting, row.data, row.criterion): triple(row.known, row.ours) for row in found}
    header = ['setting', 'data set', *(f'{name} {what}' for name in criteria for what in ('paper', 'ours', 'diff.'))]
    lines = [[*key, *(word for name in criteria for word in cells.get((*key, name), '---'))]
             for key in dict.fromkeys((row.setting, row.data) for row in found)]
    return render(header, lines, style)


@command
def main(argv: list[str] | None = None) -> None:
    """Print the tables, with the commands that make missing results; write them if asked to."""
    args = COMMAND.parse(argv)
    results = sources.results(args.result_dir)
    names = [pick(SHOWN, name, 'table') for name in args.tables]
    written = {(name, style): Path(args.out_dir or '', name + SUFFIXES[style]) for name in names for style in FORMATS}
    if args.out_dir:
        check_outputs({'--out_dir': list(written.values())}, {
            '--result_dir': [result.path.with_suffix(kind) for result in results for kind in ('.json', '.csv')]})
    for name in names:
        study, plan = sources.planned(name, None, results)
        found, missing = comparisons(study, plan), sources.missing_of(plan)
        print(f'{study.title}\n\n{draw(found, args.format)}')
        if missing:
            print('To fill in what is not there yet:', *missing, sep='\n  ', end='\n\n')
        for style in FORMATS if args.out_dir else ():
            write_text(written[name, style], draw(found, style))


if __name__ == '__main__':
    main()
