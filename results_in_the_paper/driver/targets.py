"""List the targets of the driver, and the runs that each figure or table needs."""
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from iqa_runtime.errors import UserError, pick
from results_in_the_paper import t_test
from results_in_the_paper.driver.cells import HEADERS, cells
from results_in_the_paper.driver.figure_runs import SWEEPS, FigureRun, figure_runs
from results_in_the_paper.driver.settings import LOSS_NAMES, PAPER, normalised

FIGURE5 = tuple(f'figure5_{sweep}' for sweep in SWEEPS)
CURVES = ('figure1', 'figure4', *FIGURE5, 'image_size')  # drawn from curves over epochs
ALL = ('figure1', 'figure4', *FIGURE5, 'figure6', 'figure7', 'figureA', 'table1', 'table2', 'tableA1', 'tableA2',
       't-test')
GROUPS = {'figure5': FIGURE5, 'bhat': ('figureA',), 'all': ALL}
TARGETS = (*ALL, 'image_size')  # the last is not in the paper, nor in 'all'
# targets that are whole systems with papers of their own -> 'module:function' (see driver/systems.py)
SYSTEMS = {'svd_cnniqa': 'results_in_the_paper.driver.svd_cnniqa:svd_cnniqa',
           'asna': 'results_in_the_paper.driver.asna:asna',
           'maniqa_ensemble': 'results_in_the_paper.driver.maniqa_ensemble:maniqa_ensemble'}


@dataclass
class WantedRun:
    """A training run, and all that the targets want of it besides its result on the test part.

    `curves` are the figures that draw its curves, `tested` other data sets that it is tested on, `bhat` whether its
    b-hat is drawn.
    """

    options: dict
    curves: list[FigureRun] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)
    bhat: bool = False

    def flags(self) -> list[str]:
        """Return the options by which main.py records the curves."""
        everywhere = any('train' in run.parts for run in self.curves)
        return [*(['--test_during_training'] if everywhere else []), *(['--log_bhat'] if self.bhat else [])]

    def tags(self) -> set[str]:
        """Return the TensorBoard tags of its curves."""
        return {run.tag(part, metric) for run in self.curves
                for part in run.parts for metric in run.metrics}


def expand(names: Iterable[str]) -> list[str]:
    """Return the targets that are named, groups resolved, each once; UserError for an unknown one."""
    picked = [pick((*TARGETS, *GROUPS, *SYSTEMS), name, 'target') for name in names]
    return list(dict.fromkeys(target for name in picked for target in GROUPS.get(name, [name])))


def runs_of(target: str, base: Mapping) -> list[WantedRun]:
    """Return the runs of one target; `base` changes the paper's setting for all of them."""
    return merge(_wanted(target, base))


def _wanted(target: str, base: Mapping) -> Iterator[WantedRun]:
    if target in CURVES:
        yield from (WantedRun(run.options, curves=[run]) for run in figure_runs(target, base))
    elif target in HEADERS:
        for cell in cells(target, base):
            yield WantedRun(cell.options, tested=[] if cell.tested == cell.options['dataset'] else [cell.tested])
    elif target == 't-test':
        yield from (WantedRun(t_test.run_options(loss, split, base)) for loss in LOSS_NAMES for split in t_test.SPLITS)
    else:
        yield WantedRun({**PAPER, **base}, bhat=True)


def merge(runs: Iterable[WantedRun]) -> list[WantedRun]:
    """Return the runs in order, those that train the same made one."""
    merged: dict[str, WantedRun] = {}
    for run in runs:
        same = merged.setdefault(_key(run.options), WantedRun(run.options))
        same.curves += [curve for curve in run.curves if curve not in same.curves]
        same.tested += [name for name in run.tested if name not in same.tested]
        same.bhat |= run.bhat
    return list(merged.values())


def _key(options: Mapping) -> str:
    return json.dumps(_alike(normalised(options)), sort_keys=True)


def _alike(value):
    """Return the value in the form in which 1 and 1.0, tuples and lists are the same."""
    if isinstance(value, Mapping):
        return {name: _alike(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_alike(item) for item in value]
    return float(value) if isinstance(value, (int, float)) else value


def check_free(targets: Iterable[str], given: Mapping) -> None:
    """Raise UserError if an option that the user gave is one that a target varies."""
    for target in targets:
        runs = runs_of(target, given)
        for name in given:
            if len({json.dumps(run.options[name]) for run in runs}) > 1:
                raise UserError(f'--{name}: {target} varies it by itself; leave the option out, or the target')
