"""List the runs that the figures draw, the CSV files of their curves, and the commands that train them."""
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from iqa_data.info import dataset_name
from results_in_the_paper.driver.settings import LOSS_NAMES, PAPER, command, number

PARTS = ('train', 'val', 'test')
METRICS = ('SROCC', 'PLCC', 'RMSE')
FIGURE4 = {'MSE': {'loss_type': 'mse'}, 'bnMSE': {'loss_type': 'mse', 'use_bn_end': True},
           'Norm-in-Norm': {'loss_type': 'norm-in-norm'}}
SWEEPS = {'lr': ('learning_rate', (1e-3, 1e-4, 1e-5)), 'bs': ('batch_size', (4, 8, 16)),
          'ft_lr_ratio': ('ft_lr_ratio', (0, .01, .1, 1))}
SIZES = ((249, 332), (498, 664), (768, 1024))  # height, width: half of the paper's, the paper's, KonIQ-10k's own


class FigureRun(NamedTuple):
    """A training run that a figure draws.

    `key` tells the runs of a figure apart (the loss, or the loss and the value); `template` is the name of its CSV
    files with {part} and {metric} in it; `parts` and `metrics` are what the figure shows; `options` train the run.
    """

    figure: str
    key: tuple[str, ...]
    template: str
    parts: tuple[str, ...]
    metrics: tuple[str, ...]
    options: dict

    def path(self, csv_dir: str | Path, part: str, metric: str) -> Path:
        """Return the CSV file of one curve."""
        return Path(csv_dir) / f'{self.template.format(part=part, metric=metric)}.csv'

    def is_in(self, csv_dir: str | Path) -> bool:
        """Return whether the CSV files of all its curves are in a folder."""
        return all(self.path(csv_dir, part, metric).is_file() for part in self.parts for metric in self.metrics)

    def tag(self, part: str, metric: str) -> str:
        """Return the TensorBoard tag of one curve."""
        return f'{part}/{dataset_name(self.options["dataset"])}/{metric}'

    def command(self) -> str:
        """Return the command that trains this run."""
        return command(self.options, 'main.py', *(['--test_during_training'] if 'train' in self.parts else []))


def figure_runs(figure: str | None = None, base: Mapping | None = None) -> list[FigureRun]:
    """Return the runs of one figure (figure1, figure4, figure5_lr, figure5_bs, figure5_ft_lr_ratio, image_size) or all.

    `base` changes the paper's setting for all of them, as in {'dataset': 'demo', 'architecture': 'resnet18'}.
    """
    runs = [*_figure1(base or {}), *_figure4(base or {}), *_figure5(base or {}), *_image_size(base or {})]
    return [run for run in runs if figure in (None, run.figure)]


def _figure1(base: Mapping) -> Iterator[FigureRun]:
    for loss in LOSS_NAMES:
        options = {**PAPER, **base, 'loss_type': loss}
        name = f'loss={loss}-{{part}}_{dataset_name(options["dataset"])}_{{metric}}'
        yield FigureRun('figure1', (loss,), name, PARTS, METRICS, options)


def _figure4(base: Mapping) -> Iterator[FigureRun]:
    for label, change in FIGURE4.items():
        options = {**PAPER, **base, **change}
        mark = '' if options['dataset'] == PAPER['dataset'] else f'-{dataset_name(options["dataset"])}'
        yield FigureRun('figure4', (label,), f'{label}{mark}_{{metric}}', ('val',), ('SROCC', 'PLCC'), options)


def _figure5(base: Mapping) -> Iterator[FigureRun]:
    for short, (option, values) in SWEEPS.items():
        for loss in LOSS_NAMES:
            for value in values:
                options = {**PAPER, 'architecture': 'resnet50', **base, 'loss_type': loss, option: value}
                name = f'loss={loss}-{short}={number(value)}-{{part}}_{dataset_name(options["dataset"])}_{{metric}}'
                yield FigureRun(f'figure5_{short}', (loss, number(value)), name, ('val',), ('PLCC',), options)


def _image_size(base: Mapping) -> Iterator[FigureRun]:
    for height, width in SIZES:
        resize = (height, width) != SIZES[-1]
        size = {'resize': True, 'resize_size_h': height, 'resize_size_w': width} if resize else {'resize': False}
        options = {**PAPER, **base, **size}
        name = f'size={height}x{width}-{{part}}_{dataset_name(options["dataset"])}_{{metric}}'
        yield FigureRun('image_size', (f'{height}x{width}',), name, ('val',), ('SROCC', 'PLCC'), options)
