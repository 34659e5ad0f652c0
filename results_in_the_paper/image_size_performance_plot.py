"""By image size (not in the paper): SROCC and PLCC on the validation part over epochs, Norm-in-Norm."""
import sys
from collections.abc import Mapping
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results.curves import Curve
from iqa_runtime.errors import command
from iqa_runtime.options import Command
from results_in_the_paper import sources


def draw(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw the two panels from {criterion: {size as height x width: curve}}."""
    sizes = list(next(iter(curves.values())))
    styles = dict(zip(sizes, figures.VALUE_STYLES, strict=False))
    return figures.draw_panels({f'validation {metric}': panel for metric, panel in curves.items()}, styles,
                                width=figures.COLUMN, height=1.9)


IMAGE_SIZE = Command(__doc__, [sources.figure, sources.curves])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the curves, draw, save, and print the best values."""
    args = IMAGE_SIZE.parse(argv)
    runs = sources.read_figure('image_size', args)
    curves = {criterion: {size: run['val', criterion] for size, run in runs.items()} for criterion in ('SROCC', 'PLCC')}
    figures.save(draw(curves), args.out_dir, 'image_size')
    sources.print_best(curves)


if __name__ == '__main__':
    main()
