"""Does a learned rank loss help? Four losses, two networks, three seeds each, on the demo data set.

The ranker is trained first, in 750 steps. ASNA's simple network sees pairs, LinearityIQA with ResNet-18 the distorted
images alone; each is trained from random weights by a recipe (recipes/study_*.txt) that the losses share, the learning
rate too. All compare with z-scores, so that the losses that have a unit have the same. `--models` chooses networks.
"""
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

import numpy as np

from iqa_runtime.errors import pick
from iqa_runtime.options import words_of
from iqa_scoring.results import read_predictions
from IQAperformance import CRITERIA, interval
from results_in_the_paper.driver.asna import MACHINE
from results_in_the_paper.driver.systems import Setting, Step, System
from results_in_the_paper.driver.verdicts import RESAMPLES, Row

METRICS = ('SROCC', 'PLCC')
SEEDS = (1, 2, 3)
# name of the recipe, after study_ -> in the table
NETWORK_NAMES = {'asna': 'asna_simple', 'linearity_iqa': 'ResNet-18'}
RANKER = Path('checkpoints', 'study-ranker.pth')
# loss -> options of main.py
LOSS_OPTIONS = {
    'MSE': ('--loss_type', 'mse'),
    'MSE + PLCC': ('--loss_type', 'macs', '--spearman_factor', '0'),
    'macs': ('--loss_type', 'macs', '--ranker', str(RANKER)),
    'Norm-in-Norm': ('--loss_type', 'norm-in-norm'),
}


def loss_study(setting: Setting) -> System:
    """Return the runs of the study, and a row for each network, loss and criterion: the mean of the seeds."""
    networks = [pick(NETWORK_NAMES, name, 'network of the study') for name in setting.models or NETWORK_NAMES]
    given = {name: value for name, value in setting.given.items() if name in MACHINE and name != 'checkpoint_dir'}
    ranker = Step(('iqa_training/train_ranker.py', *words_of(given), '--rows', '240000', '-e', '1', '-bs', '256',
                   '--ranker', str(RANKER), '--resume'), RANKER)
    runs = {(network, loss): [setting.train(f'study_{network}', *words, '--seed', str(seed)) for seed in SEEDS]
            for network in networks for loss, words in LOSS_OPTIONS.items()}
    return System([[ranker], [step for steps in runs.values() for step in steps]],
                  lambda: [row(NETWORK_NAMES[network], loss, metric, steps) for (network, loss), steps in runs.items()
                           for metric in METRICS])


def row(network: str, loss: str, metric: str, steps: Sequence[Step]) -> Row:
    """Return the mean of a criterion over the seeds that are done, with its 95 % bootstrap interval over the images."""
    done = [read_predictions(step.makes.with_suffix('.csv')) for step in steps if step.makes.exists()]
    if not done:
        return Row(f'{network}, {loss}', metric, None, None)

    def mean(mos: np.ndarray, *predictions: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean([CRITERIA[metric](pq, mos, axis) for pq in predictions], 0)

    values = [float(CRITERIA[metric](run.pq, run.mos)) for run in done]
    spread = f', std {stdev(values):.3f}' if len(values) > 1 else ''
    return Row(f'{network}, {loss}, mean of {len(done)} seeds{spread},', metric, None, float(np.mean(values)),
               interval(mean, done[0].mos, *(run.pq for run in done), count=RESAMPLES))
