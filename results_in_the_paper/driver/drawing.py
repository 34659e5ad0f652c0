"""Draw any target of the driver from what is on the shelf, by the script of its figure or table."""
from collections.abc import Callable
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_runtime.files import write_text
from iqa_runtime.table_formats import FORMATS, SUFFIXES
from iqa_training import figures
from results_in_the_paper import (
    backbone_performance_plot,
    batch_size_performance_plot,
    bhat,
    bnMSE,
    ft_lr_ratio_performance_plot,
    image_size_performance_plot,
    loss_performance_curves,
    lr_performance_plot,
    scatter_plots,
    t_test,
    tables,
)
from results_in_the_paper.driver.cells import cells
from results_in_the_paper.driver.settings import PAPER
from results_in_the_paper.driver.shelf import Shelf
from results_in_the_paper.driver.targets import runs_of

CURVE_SCRIPTS = {
    'figure1': loss_performance_curves, 'figure4': bnMSE, 'figure5_lr': lr_performance_plot,
    'figure5_bs': batch_size_performance_plot, 'figure5_ft_lr_ratio': ft_lr_ratio_performance_plot,
    'image_size': image_size_performance_plot,
}


def draw(target: str, shelf: Shelf, out_dir: Path) -> list[str]:
    """Draw one target into `out_dir`; return a list of its failure in words, empty if it is drawn."""
    drawer = _curves if target in CURVE_SCRIPTS else _DRAWERS.get(target, _table)
    try:
        drawer(target, shelf, out_dir)
    except (UserError, SystemExit) as error:  # a script's own main has printed the reason
        return [f'{target} is not drawn' + (f': {error}' if isinstance(error, UserError) else '')]
    return []


def _curves(target: str, shelf: Shelf, out_dir: Path) -> None:
    missing = [shelf.name(run) for run in runs_of(target, shelf.base) if not shelf.holds(run)]
    if missing:
        raise UserError(f'nothing is there of {", ".join(missing)}')
    CURVE_SCRIPTS[target].main(['--csv_dir', str(shelf.csv_dir), '--out_dir', str(out_dir),
                                '--dataset', shelf.base.get('dataset', PAPER['dataset'])])


def _figure6(target: str, shelf: Shelf, out_dir: Path) -> None:
    figure = backbone_performance_plot.draw(cells(target, shelf.base), shelf.results)
    figures.save(figure, out_dir, target)


def _figure7(target: str, shelf: Shelf, out_dir: Path) -> None:
    figures.save(scatter_plots.draw(scatter_plots.from_results(shelf.results, shelf.base)), out_dir, target)


def _bhat(target: str, shelf: Shelf, out_dir: Path) -> None:
    run, = runs_of(target, shelf.base)
    bhat.main([str((shelf.log(run) or shelf.log_dir / shelf.name(run)) / 'bhat.csv'), '--out_dir', str(out_dir)])


def _table(target: str, shelf: Shelf, out_dir: Path) -> None:
    for style in FORMATS:
        write_text(out_dir / f'{target}{SUFFIXES[style]}', tables.draw(cells(target, shelf.base), shelf.results, style))


def _t_test(target: str, shelf: Shelf, out_dir: Path) -> None:
    plcc = t_test.read_plcc(shelf.results, shelf.base)
    if not any(plcc.values()):
        raise UserError('none of the 30 runs is there')
    for style in FORMATS:
        write_text(out_dir / f'{target}{SUFFIXES[style]}', t_test.draw(plcc, style))
    print(t_test.draw(plcc), end='')


_DRAWERS: dict[str, Callable] = {'figure6': _figure6, 'figure7': _figure7, 'figureA': _bhat, 't-test': _t_test}
