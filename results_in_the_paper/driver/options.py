"""Declare the options of the scripts that draw figures and print tables."""
from iqa_runtime.option_types import choice
from iqa_runtime.options import Add, Options, group
from iqa_runtime.table_formats import FORMATS
from results_in_the_paper.driver import places
from results_in_the_paper.driver.settings import PAPER


def own_folder(args: Options) -> Options:
    """Return the options with the folder for figures, if the user named none."""
    return args if args.out_dir else args.having(out_dir=places.out_dir())


@group('figure', 'where the figure is drawn', check=own_folder)
def figure(add: Add) -> None:
    add('--out_dir', metavar='DIR', help='folder for the PDF and the PNG (default: results/figures)')


@group('curves', 'the curves that are drawn')
def curves(add: Add) -> None:
    add('--csv_dir', metavar='DIR',
        help='folder of the curves as CSV files, that of export_csv.py or of the authors (default: the first that has '
             'them of results/csv, runs/ and csv/)')
    add('--dataset', default=PAPER['dataset'], help='data set of the runs')


def add_format(add: Add) -> None:
    """Declare the format of printed tables."""
    add('--format', type=choice(FORMATS, 'format'), default='text', help=', '.join(FORMATS))


def add_results(add: Add) -> None:
    """Declare the folder of results that are read."""
    add('--result_dir', metavar='DIR',
        help='folder of results of tests (default: results, of the current folder or of the repository)')
