"""Figure 5, for its three scripts: PLCC on the validation part over epochs, a panel per loss, a line per value."""
from collections.abc import Mapping

from matplotlib.figure import Figure

from iqa_runtime.options import Command
from iqa_training import figures
from iqa_training.curves import Curve, best
from results_in_the_paper.driver import paper, plotting
from results_in_the_paper.driver.options import curves as curve_options
from results_in_the_paper.driver.options import figure
from results_in_the_paper.driver.settings import LOSS_NAMES


def draw(curves: Mapping[str, Mapping[str, Curve]], name: str) -> Figure:
    """Draw a panel per loss from {loss: {value: curve}}; `name` stands before the value in the legend."""
    styles = {f'{name} {value}': style for value, style in
              zip(next(iter(curves.values())), figures.VALUE_STYLES, strict=False)}
    panels = {f'{LOSS_NAMES[loss]}, validation PLCC': {f'{name} {value}': curve for value, curve in panel.items()}
              for loss, panel in curves.items()}
    return figures.draw_panels(panels, styles, width=figures.PAGE, height=2.1, share=True)


def run(option: str, name: str, description: str, argv: list[str] | None = None) -> None:
    """Read the curves of one option (lr, bs, ft_lr_ratio), draw, save, and print the best values beside the paper's."""
    args = Command(description, [figure, curve_options]).parse(argv)
    curves = {}
    for (loss, value), run_curves in plotting.read_figure(f'figure5_{option}', args).items():
        curves.setdefault(loss, {})[value] = run_curves['val', 'PLCC']
    figures.save(draw(curves, name), args.out_dir, f'figure5_{option}')
    print(f'Best PLCC on the validation part by {name}, the paper\'s in brackets:')
    for loss, panel in curves.items():
        cells = (f'{value}: {best(curve, "PLCC"):.3f} ({paper.show(paper.FIGURE5[option].get((loss, value)))})'
                 for value, curve in panel.items())
        print(f'{LOSS_NAMES[loss]:>12}  ' + '  '.join(cells))
