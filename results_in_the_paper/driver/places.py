"""Find files if no folder is named: those that runs of main.py wrote, then those that the authors published.

Runs write results/ and runs/ in the folder where they are started, so that both lie in the current folder or in the
repository. The authors' csv/, npy/ and bhat.log are looked for in results_in_the_paper/ and in the current folder.
"""
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_scoring.results import Result, read_results
from iqa_training.scalars import read_scalars
from results_in_the_paper.driver.figure_runs import FigureRun
from results_in_the_paper.driver.settings import differences
from results_in_the_paper.export_csv import read_options

HERE = Path(__file__).resolve().parents[1]  # results_in_the_paper/
Scalars = dict[str, list[tuple[float, int, float]]]


def own(name: str) -> list[Path]:
    """Return the paths of this name that runs may have written: in the current folder, in the repository."""
    return _each_once(Path(name), HERE.parent / name)


def named(name: str) -> str:
    """Return the places of `own`, in words."""
    return ' or '.join(map(str, own(name)))


def published(name: str) -> list[Path]:
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


def results(result_dir: str | None) -> list[Result]:
    """Return the results in a folder, or else in all folders where runs may have written some."""
    return [result for folder in ([result_dir] if result_dir else own('results')) for result in read_results(folder)]


def logs_of(runs: Iterable[FigureRun]) -> dict[tuple, Scalars] | None:
    """Return {key of the run: its scalars} from the logs in runs/; None unless there are all curves of all runs."""
    logs = _logs()
    found = {}
    for run in runs:
        wanted = [run.tag(part, metric) for part in run.parts for metric in run.metrics]
        fitting = (folder for folder, options in logs if not differences(options, run.options))
        scalars = next((curves for curves in map(_scalars, fitting) if all(tag in curves for tag in wanted)), None)
        if scalars is None:
            return None
        found[run.key] = scalars
    return found


def _logs() -> list[tuple[Path, dict]]:
    logs = []
    for folder in own('runs'):
        for file in sorted(folder.glob('*/options.json'), key=lambda path: path.stat().st_mtime, reverse=True):
            with suppress(UserError):
                logs.append((file.parent, read_options(file.parent)))
    return logs


def _scalars(folder: Path) -> Scalars:
    with suppress(UserError):
        return read_scalars(folder)
    return {}


def newest(pattern: str) -> Path | None:
    """Return the latest of the files in the folders of runs/ that match a pattern; None if there is none."""
    files = [path for folder in own('runs') for path in folder.glob(f'*/{pattern}')]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


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
    return UserError(f'{what} not found: looked in: {places}; this makes it: {command}; or put {name}, which the '
                     f'original package has in its results_in_the_paper, into {_short(HERE)}, or name its '
                     f'place with {option}')
