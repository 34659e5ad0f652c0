"""Figure 4: does batch normalisation of the predictions explain Norm-in-Norm? MSE, MSE with it (bnMSE), Norm-in-Norm.

SROCC and PLCC on the validation part over epochs.
"""
import sys
from collections.abc import Mapping
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results.charts import DASH_DOTTED, GREEN
from iqa_results.curves import Curve
from iqa_runtime.errors import command
from iqa_runtime.options import Command
from results_in_the_paper import sources

STYLES = {'MSE': sources.LOSS_STYLES['MSE'], 'bnMSE': {'color': GREEN, 'linestyle': DASH_DOTTED},
          'Norm-in-Norm': sources.LOSS_STYLES['Norm-in-Norm']}


def draw(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw the two panels from {criterion: {MSE, bnMSE, Norm-in-Norm: curve}}."""
    return figures.draw_panels({f'validation {metric}': panel for metric, panel in curves.items()}, STYLES,
                                width=figures.COLUMN, height=1.9)


FIGURE4 = Command(__doc__, [sources.figure, sources.curves])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the curves, draw, save, and print the best values."""
    args = FIGURE4.parse(argv)
    runs = sources.read_figure('figure4', args)
    curves = {criterion: {name: run['val', criterion] for name, run in runs.items()} for criterion in ('SROCC', 'PLCC')}
    figures.save(draw(curves), args.out_dir, 'figure4')
    sources.print_best(curves)


if __name__ == '__main__':
    main()
