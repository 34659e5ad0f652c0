"""Figure 5, by ratio of the backbone's learning rate: PLCC on the validation part over epochs, 3 losses, ResNet-50."""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from iqa_runtime.errors import command
from results_in_the_paper.lr_performance_plot import sweep


@command
def main(argv: list[str] | None = None) -> None:
    """Read the curves, draw, save, and print the best values."""
    sweep('figure5_ft_lr_ratio', 'ratio', __doc__, argv)


if __name__ == '__main__':
    main()
