"""Figure 5, by learning rate: PLCC on the validation part over epochs for three losses, ResNet-50."""
import sys
from collections.abc import Mapping
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results.curves import Curve, best
from iqa_runtime.errors import command
from iqa_runtime.options import Command
from iqa_studies.published import triple
from results_in_the_paper import sources


def draw(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draw a panel per loss from {loss: {value, as in the legend: curve}}."""
    styles = dict(zip(next(iter(curves.values())), figures.VALUE_STYLES, strict=False))
    panels = {f'{loss}, validation PLCC': panel for loss, panel in curves.items()}
    return figures.draw_panels(panels, styles, width=figures.PAGE, height=2.1, share=True)


def sweep(study: str, name: str, description: str, argv: list[str] | None = None) -> None:
    """Read the curves of a study over one option, draw, save, and print the best values beside the published ones.

    `name` stands before the value in the legend.
    """
    args = Command(description, [sources.figure, sources.curves]).parse(argv)
    curves, lines, known = {}, {}, sources.planned(study)[0].published
    for setting, found in sources.read_figure(study, args).items():
        loss, value = setting.split(', ')
        value, curve = value.split(' ')[1], found['val', 'PLCC']
        curves.setdefault(loss, {})[f'{name} {value}'] = curve
        number, = known[setting].values()
        lines.setdefault(loss, []).append(f'{value}: {best(curve, "PLCC"):.3f} ({triple(number, None)[0]})')
    figures.save(draw(curves), args.out_dir, study)
    print(f'Best PLCC on the validation part by {name}, the paper\'s in brackets:')
    for loss, words in lines.items():
        print(f'{loss:>12}  ' + '  '.join(words))


@command
def main(argv: list[str] | None = None) -> None:
    """Read the curves, draw, save, and print the best values."""
    sweep('figure5_lr', 'lr', __doc__, argv)


if __name__ == '__main__':
    main()
