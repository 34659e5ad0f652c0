"""The cells of the paper's figures 6 and 7 and of its tables: which run and test each is, and the paper's number."""
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from iqa_data.info import dataset_name
from iqa_scoring.results import Result
from results_in_the_paper.driver import paper
from results_in_the_paper.driver.settings import BACKBONE_NAMES, LOSS_NAMES, PAPER, command, differences, find, number

PAPER_BACKBONES = ('resnet18', 'resnet34', 'resnet50', 'resnext101_32x8d')
ALPHAS = {(1, 0): 'l', (1, .1): "l + 0.1 l'", (0, 1): "l'", (1, 1): "l + l'"}
OPTIMIZER_NAMES = {'adam': 'Adam', 'sgd': 'SGD', 'adadelta': 'Adadelta'}
LEARNING_RATES = (1e-2, 1e-3, 1e-4, 1e-5)  # the paper's are not known to us
OTHER = 'CLIVE'  # the data set tested as a whole, never trained on


class Cell(NamedTuple):
    """One number of the paper.

    `labels` say its row, one per column of HEADERS[target]; `options` train the run; `tested` is the data set tested;
    `paper` is None if the number is not known, or if the run is not the paper's.
    """

    target: str
    labels: tuple[str, ...]
    metric: str
    options: dict
    tested: str
    paper: float | None

    def ours(self, results: list[Result]) -> float | None:
        """Return the number measured here, None if there is no such result."""
        result = find(results, self.options, self.tested)
        return result.metrics.get(self.metric) if result else None

    def commands(self) -> list[str]:
        """Return the commands that make it: training, and testing if another data set is tested."""
        train = command(self.options)
        other = self.tested != self.options['dataset']
        return [train, *([command({**self.options, 'dataset': self.tested}, 'test_dataset.py')] if other else [])]


HEADERS = {
    'figure6': ('data set', 'backbone', 'loss'), 'figure7': ('data set', 'loss'),
    'table1': ('backbone', 'p', 'q'), 'table2': ('loss', 'data set'),
    'tableA1': ('optimizer', 'learning rate'), 'tableA2': ('backbone', 'loss', 'data set'),
}
TITLES = {
    'figure6': 'Figure 6: backbones and losses', 'figure7': 'Figure 7: the three losses, ResNeXt-101',
    'table1': "Table 1: p and q of the loss by backbone, KonIQ-10k's test part",
    'table2': 'Table 2: variants of the loss (alpha), ResNeXt-101',
    'tableA1': "Table A1: optimizers by learning rate, ResNet-50, KonIQ-10k's test part",
    'tableA2': 'Table A2: AlexNet and VGG-16',
}


def cells(target: str, base: Mapping | None = None) -> list[Cell]:
    """Return the cells of one of HEADERS; `base` changes the paper's setting for all of them."""
    return list(_MAKERS[target](base or {}))


def _cell(target: str, labels: tuple, metric: str, change: Mapping, base: Mapping, tested: str | None,
          known: float | None) -> Cell:
    own = {**PAPER, **change}
    options = {**PAPER, **base, **change}
    return Cell(target, tuple(map(str, labels)), metric, options, tested or options['dataset'],
                None if differences(options, own) else known)


def _figure6(base: Mapping) -> Iterator[Cell]:
    for (data, metric), table in paper.FIGURE6.items():
        for backbone in PAPER_BACKBONES:
            for loss in LOSS_NAMES:
                tested = OTHER if data == OTHER else None
                yield _cell('figure6', (_data(tested, base), BACKBONE_NAMES[backbone], LOSS_NAMES[loss]), metric,
                            {'architecture': backbone, 'loss_type': loss}, base, tested, table[loss, backbone])


def _figure7(base: Mapping) -> Iterator[Cell]:
    for tested in (None, OTHER):
        data = tested or PAPER['dataset']
        for loss in LOSS_NAMES:
            known = {'RMSE': paper.FIGURE7[loss, data]}
            for (shown, metric), table in paper.FIGURE6.items():
                if shown == data:
                    known[metric] = table[loss, PAPER['architecture']]
            if loss == PAPER['loss_type']:
                known |= paper.TABLE2[PAPER['alpha'], data]
            for metric in ('SROCC', 'PLCC', 'RMSE'):
                yield _cell('figure7', (_data(tested, base), LOSS_NAMES[loss]), metric, {'loss_type': loss}, base,
                            tested, known.get(metric))


def _table1(base: Mapping) -> Iterator[Cell]:
    for backbone in PAPER_BACKBONES:
        for p in (1, 2):
            for q in (1, 2):
                known = paper.TABLE1.get((backbone, p, q), {})
                for metric in ('SROCC', 'PLCC'):
                    yield _cell('table1', (BACKBONE_NAMES[backbone], p, q), metric,
                                {'architecture': backbone, 'p': p, 'q': q}, base, None, known.get(metric))


def _table2(base: Mapping) -> Iterator[Cell]:
    for alpha, name in ALPHAS.items():
        for tested in (None, OTHER):
            known = paper.TABLE2[alpha, tested or PAPER['dataset']]
            for metric in ('SROCC', 'PLCC'):
                yield _cell('table2', (name, _data(tested, base)), metric, {'alpha': alpha}, base, tested,
                            known[metric])


def _table_a1(base: Mapping) -> Iterator[Cell]:
    base = {'architecture': 'resnet50', **base}
    for optimizer, name in OPTIMIZER_NAMES.items():
        for rate in LEARNING_RATES:
            known = paper.TABLE_A1.get((optimizer, number(rate)), {})
            for metric in ('SROCC', 'PLCC'):
                yield _cell('tableA1', (name, number(rate)), metric, {'optimizer': optimizer, 'learning_rate': rate},
                            base, None, known.get(metric))


def _table_a2(base: Mapping) -> Iterator[Cell]:
    for backbone in ('alexnet', 'vgg16'):
        for loss in LOSS_NAMES:
            for tested in (None, OTHER):
                known = paper.TABLE_A2.get((backbone, loss, tested or PAPER['dataset']), {})
                for metric in ('SROCC', 'PLCC'):
                    yield _cell('tableA2', (BACKBONE_NAMES[backbone], LOSS_NAMES[loss], _data(tested, base)), metric,
                                {'architecture': backbone, 'loss_type': loss}, base, tested, known.get(metric))


def _data(tested: str | None, base: Mapping) -> str:
    return dataset_name(tested or base.get('dataset', PAPER['dataset']))


_MAKERS = {'figure6': _figure6, 'figure7': _figure7, 'table1': _table1, 'table2': _table2, 'tableA1': _table_a1,
           'tableA2': _table_a2}
