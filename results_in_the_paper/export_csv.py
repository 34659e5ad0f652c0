"""Write the TensorBoard curves of training runs as CSV files (Wall time,Step,Value) for the figures of the paper.

    python results_in_the_paper/export_csv.py runs/NAME

Curves of a run that a figure draws get the names that the figure reads; those of any other run begin with its name. The
scripts of figures also read runs/ themselves.
"""
import ast
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from iqa_results.curves import read_scalars
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs, write_text
from iqa_runtime.options import Add, Command, group
from iqa_studies.found import differences
from iqa_training.options import TRAIN
from results_in_the_paper import sources

CSV_DIR = 'results/csv'


def csv_text(curve: Iterable[tuple[float, int, float]]) -> str:
    """Return a curve in TensorBoard's download format."""
    return 'Wall time,Step,Value\n' + ''.join(f'{time},{step},{value}\n' for time, step, value in curve)


def file_names(options: Mapping, tags: Iterable[str], base: Mapping | None = None) -> dict[str, list[str]]:
    """Return {tag: names of the CSV files, without .csv} of a run with these options.

    Several names if several figures draw the run; `base` is the setting of the figures if it is not the paper's.
    """
    names = {}
    for cell in (cell for study in sources.STUDIES for cell in sources.cells_drawn(study, base or {})):
        if not differences(options, cell.options):
            for path, tag in cell.curves.items():
                names.setdefault(tag, []).append(path.stem)
    if names:
        return {tag: list(dict.fromkeys(names[tag])) for tag in tags if tag in names}
    return {tag: [f'{options["run_name"]}-' + re.sub(r'[^\w.+=-]', '_', tag)[:100]] for tag in tags}


def export(run_dir: str | Path, csv_dir: str | Path = CSV_DIR, base: Mapping | None = None) -> list[Path]:
    """Write the curves of one run into `csv_dir`; return the paths written. See `file_names` for their names."""
    texts = csv_texts(run_dir, csv_dir, base)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def csv_texts(run_dir: str | Path, csv_dir: str | Path, base: Mapping | None = None) -> dict[Path, str]:
    """Return the CSV files of a run's curves, path -> content; UserError if there is none."""
    options, curves = sources.read_options(run_dir), read_scalars(run_dir)
    written = {Path(csv_dir) / f'{name}.csv': csv_text(curves[tag])
               for tag, names in file_names(options, curves, base).items() for name in names}
    if not written:
        raise UserError(f'{run_dir}: its event file holds no curve to export; was the run stopped in its first epoch?')
    return written


def base_of(words: Iterable[str]) -> dict:
    """Read a changed setting given as NAME=VALUE words; UserError for an option that makes no run."""
    base = {}
    for word in words:
        name, _, value = word.partition('=')
        if name not in TRAIN.names() or not value:
            raise UserError(f'--base {word!r}: expected NAME=VALUE with NAME one of {", ".join(sorted(TRAIN.names()))}')
        try:
            base[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            base[name] = value
    return base


@group('curves', 'the runs whose curves are written')
def curves(add: Add) -> None:
    add('run_dir', nargs='+', metavar='RUN_DIR', help='folder of a run: its event file and its options.json')
    add('--csv_dir', metavar='DIR', default=CSV_DIR, help='folder for the CSV files')
    add('--base', nargs='*', default=[], metavar='NAME=VALUE',
        help='what is not as in the paper for all runs of a figure, as dataset=demo epochs=5')


EXPORT_CSV = Command(__doc__, [curves])


@command
def main(argv: list[str] | None = None) -> None:
    """Export the runs and print the files."""
    args = EXPORT_CSV.parse(argv)
    base = base_of(args.base)
    files = {run_dir: csv_texts(run_dir, args.csv_dir, base) for run_dir in args.run_dir}
    check_outputs({run_dir: list(texts) for run_dir, texts in files.items()},
                  {run_dir: list(Path(run_dir).iterdir()) for run_dir in args.run_dir})
    for texts in files.values():
        for path, text in texts.items():
            write_text(path, text)
            print(path)


if __name__ == '__main__':
    main()
