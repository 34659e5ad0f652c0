"""What the scripts here draw and where it lies: their studies, the runs of these, and what the authors published.

Runs write results/ and runs/ in the folder where they are started, so that both are looked for in the current folder
and in the repository. The authors' csv/, npy/ and bhat.log are looked for in results_in_the_paper/ and in the current
folder.
"""
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from iqa_results.charts import BLUE, DASHED, DOTTED, GREEN, INK, ORANGE, SKY, SOLID, VERMILION
from iqa_results.curves import Curve, as_curve, best, read_curve, read_scalars
from iqa_results.figures import files
from iqa_results.read import Result, read_results
from iqa_results.table_formats import FORMATS
from iqa_runtime.checks import checked_value, dict_of, file_name, plain
from iqa_runtime.errors import UserError
from iqa_runtime.files import check_outputs, read_json
from iqa_runtime.option_types import choice
from iqa_runtime.options import Add, Options, group
from iqa_studies.cells import Cell, Plan
from iqa_studies.chains import plan_chain
from iqa_studies.found import differences
from iqa_studies.study import Study
from iqa_studies.study_file import read_study
from iqa_training.options import TRAIN

HERE = Path(__file__).parent
STUDIES = {path.stem: path for path in sorted(HERE.glob('*.yaml'))}
LOSSES = ('MAE', 'MSE', 'Norm-in-Norm')
LOSS_STYLES = {'MAE': {'color': BLUE, 'linestyle': DASHED}, 'MSE': {'color': VERMILION, 'linestyle': DOTTED},
               'Norm-in-Norm': {'color': INK, 'linestyle': SOLID}}
LOSS_FILLS = {'MAE': SKY, 'MSE': ORANGE, 'Norm-in-Norm': GREEN}  # of bars, on which hatches can be seen
Curves = dict[tuple[str, str], Curve]  # (part, criterion) -> curve


# Options of the scripts

def own_folder(args: Options) -> Options:
    """Return the options with the folder for figures, if the user named none."""
    return args if args.out_dir else args.having(out_dir=out_dir())


@group('figure', 'where the figure is drawn', check=own_folder)
def figure(add: Add) -> None:
    add('--out_dir', metavar='DIR', help='folder for the PDF and the PNG (default: results/figures)')


@group('curves', 'the curves that are drawn')
def curves(add: Add) -> None:
    add('--csv_dir', metavar='DIR',
        help='folder of the curves as CSV files, that of export_csv.py or of the authors (default: the first that has '
             'them of results/csv, runs/ and csv/)')
    add('--dataset', default=TRAIN.defaults['dataset'], help='data set of the runs')


def add_format(add: Add) -> None:
    """Declare the format of printed tables."""
    add('--format', type=choice(FORMATS, 'format'), default='text', help=', '.join(FORMATS))


def add_results(add: Add) -> None:
    """Declare the folder of results that are read."""
    add('--result_dir', metavar='DIR',
        help='folder of results of tests (default: results, of the current folder or of the repository)')


# Places

def own(name: str) -> list[Path]:
    """Return the paths of this name that runs may have written: in the current folder, in the repository."""
    return _each_once(Path(name), HERE.parent / name)


def named(name: str) -> str:
    """Return the places of `own`, in words."""
    return ' or '.join(map(str, own(name)))


def authors(name: str) -> list[Path]:
    """Return the places at which the authors' file or folder of this name may lie."""
    return _each_once(HERE / name, Path(name))


def _each_once(*paths: Path) -> list[Path]:
    return [Path(_short(path)) for path in {path.resolve(): path for path in paths}]


def _short(path: Path) -> str:
    """Return the path of a file as it is or from the current folder, whichever is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


def out_dir() -> str:
    """Return the folder for figures: results/figures of the repository from within it, else of the current folder."""
    inside = Path.cwd().is_relative_to(HERE.parent)
    return _short(HERE.parent / 'results/figures') if inside else 'results/figures'


def newest(pattern: str) -> Path | None:
    """Return the latest of the files in the folders of runs/ that match a pattern; None if there is none."""
    found = [path for folder in own('runs') for path in folder.glob(f'*/{pattern}')]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def missing(what: str, looked_in: Iterable[str | Path], command: str, name: str, option: str) -> UserError:
    """Return the error that names the missing files, the places searched, and both ways to get them.

    Args:
        what: the file or result, and the verb.
        looked_in: files and folders.
        command: what makes it.
        name: the authors' file or folder.
        option: the option that names another place.
    """
    places = ', '.join(map(str, dict.fromkeys(looked_in)))
    return UserError(f'{what} not found: looked in: {places}; make it with: {command}; or put {name}, which the '
                     f'original package has in its results_in_the_paper, into {_short(HERE)}, or name its '
                     f'place with {option}')


# Studies, their runs and numbers

def planned(name: str, given: Mapping | None = None, results: Sequence[Result] = ()) -> tuple[Study, Plan]:
    """Return a study of this folder, with options in place of its own, and its plan with the results that are there."""
    study = read_study(STUDIES[name]).having(given or {})
    return study, plan_chain(study, None, results)


def cells_drawn(name: str, base: Mapping) -> list[Cell]:
    """Return the runs of a study here whose curves are drawn, with options in place of those that all runs share."""
    study = read_study(STUDIES[name])
    given = {name: value for name, value in base.items() if name not in study.varied}
    return plan_chain(study.having(given), None, ()).cells if study.curves else []


def missing_of(plan: Plan) -> list[str]:
    """Return the commands, in order and each once, that make the results which are not there."""
    return list(dict.fromkeys(line for cell in plan.cells for line in cell.missing()))


def results(result_dir: str | None) -> list[Result]:
    """Return the results in a folder, or else in all folders where runs may have written some."""
    return [result for folder in ([result_dir] if result_dir else own('results')) for result in read_results(folder)]


# Curves

def read_options(run_dir: str | Path) -> dict:
    """Read the options of a run from its options.json; UserError if it is missing or holds no options."""
    path = Path(run_dir) / 'options.json'
    if not path.exists():
        raise UserError(f'{path} not found; expected the TensorBoard folder of a run of main.py')
    options = read_json(path, lambda content: content, 'the options of a run as JSON')
    if not isinstance(options, dict) or 'run_name' not in options:
        raise UserError(f'{path}: expected the options of a run with its run_name')
    checked_value(path, 'run_name', file_name, options['run_name'])
    return checked_value(path, 'the options', dict_of(plain), options)


def csv_files(cell: Cell, folder: str | Path) -> dict[tuple[str, str], Path]:
    """Return (part, criterion) -> the CSV file of the curve in a folder."""
    return {tuple(tag.split('/')[::2]): Path(folder, path.name) for path, tag in cell.curves.items()}


def read_figure(name: str, args: Options) -> dict[str, Curves]:
    """Read all curves of a figure: {setting: {(part, criterion): curve}}.

    From --csv_dir, or else from the first place that has them all: results/csv and runs/, which reproduce.py,
    export_csv.py and main.py write, and the csv/ that the authors published.
    """
    given = {'dataset': args.dataset} if args.dataset != TRAIN.defaults['dataset'] else {}
    cells = planned(name, given)[1].cells
    if args.csv_dir:
        return from_files(cells, args.csv_dir, files(args.out_dir, name))
    written, published = own('results/csv'), authors('csv')
    for folders, logs in ((written, None), ((), logs_of), (published, None)):
        for folder in folders:
            if all(path.is_file() for cell in cells for path in csv_files(cell, folder).values()):
                print(f'Curves of {folder}')
                return from_files(cells, folder, files(args.out_dir, name))
        found = logs(cells) if logs else None
        if found:
            print('Curves of the logs in runs/')
            return found
    there = [cell for cell in cells if any(all(path.is_file() for path in csv_files(cell, folder).values())
                                           for folder in [*written, *published])]
    lacking = next((cell for cell in cells if cell not in there), cells[0])
    raise missing(f'{next(iter(csv_files(lacking, "").values()))}, a curve of {name}, is', [
        *written, *own('runs'), *published], lacking.trained_by(), 'csv/', '--csv_dir')


def from_files(cells: Sequence[Cell], folder: str | Path, outputs: Sequence[Path]) -> dict[str, Curves]:
    """Read the curves of runs from CSV files; the error of a missing one names the command that trains it."""
    check_outputs({'--out_dir': outputs}, {'--csv_dir': [
        path for cell in cells for path in csv_files(cell, folder).values()]})
    return {cell.setting: {key: read_curve(path, cell.trained_by()) for key, path in csv_files(cell, folder).items()}
            for cell in cells}


def logs_of(cells: Iterable[Cell]) -> dict[str, Curves] | None:
    """Return the curves of runs from the logs in runs/; None unless there are all curves of all runs."""
    logs, found = [], {}
    for folder in own('runs'):
        for file in sorted(folder.glob('*/options.json'), key=lambda path: path.stat().st_mtime, reverse=True):
            with suppress(UserError):
                logs.append((file.parent, read_options(file.parent)))
    for cell in cells:
        tags = {tuple(tag.split('/')[::2]): tag for tag in cell.curves.values()}
        fitting = (_scalars(folder) for folder, options in logs if not differences(options, cell.options))
        scalars = next((one for one in fitting if all(tag in one for tag in tags.values())), None)
        if scalars is None:
            return None
        table = {key: np.array(scalars[tag], float) for key, tag in tags.items()}
        found[cell.setting] = {key: as_curve(rows[:, 1], rows[:, 2]) for key, rows in table.items()}
    return found


def _scalars(folder: Path) -> dict:
    with suppress(UserError):
        return read_scalars(folder)
    return {}


def print_best(panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """Print the best value of each curve of {criterion: {label: curve}}."""
    for criterion, panel in panels.items():
        print(f'best {criterion}: ' + ', '.join(f'{label} {best(curve, criterion):.3f}'
                                                for label, curve in panel.items()))
