"""ASNA: the ranker, the pretraining of the networks, their fine-tuning on PIPAL, and the mean of their predictions.

The published weights are not to be had any more, and the test set of the challenge never was: its number stands beside
ours on the validation part of PIPAL's training set. `--models` trains some of the networks alone, and `--ranker FILE`
leaves out the first stage.
"""
from collections.abc import Sequence
from pathlib import Path

from iqa_runtime.errors import UserError, pick
from iqa_runtime.options import words_of
from iqa_scoring.options import TEST
from iqa_training.naming import joined
from iqa_training.options import TRAIN
from results_in_the_paper.driver.systems import Setting, Step, System
from results_in_the_paper.driver.verdicts import Row

METRICS = ('SROCC', 'PLCC', 'KROCC')
# network -> its pretraining; None: from random weights
MODELS = {'model1': 'model1_pretrained', 'model2': 'model2_pretrained', 'model3': None, 'model4': None,
          'model123': None, 'model114': None, 'bn': 'bn_pretrained', 'attention': 'attention_pretrained',
          'tiled': 'tiled_pretrained'}
PUBLISHED_PLCC = .831  # on the challenge's test set, of 12 networks and 22 variants of each image, in others' listings
RANKER = 'asna_ranker.pth'
MACHINE = ('device', 'pbar', 'checkpoint_dir', 'result_dir')  # options that train_ranker.py has too


def asna(setting: Setting) -> System:
    """Return the chain of the chosen networks."""
    models = {pick(MODELS, name, 'network of asna'): None for name in setting.models or MODELS}
    places = sorted({'im_dir', 'ref_dir', 'data_info'} & setting.given.keys())
    if places and 'dataset' not in setting.given:
        raise UserError(f'--{places[0]}: asna trains on two data sets: link the folders PIPAL and asna_pretrain')
    first = [] if 'ranker' in setting.given else [ranker(setting)]
    before = {name: setting.train(f'asna_{MODELS[name]}') for name in models if MODELS[name]}
    runs = {name: setting.train(f'asna_{name}', *(['--pretrained', str(before[name].checkpoint)] if name in before
                                                  else [])) for name in models}
    mean = together(setting, list(runs.values()))
    return System([first, list(before.values()), list(runs.values()), [mean]], lambda: rows(setting, runs, mean))


def ranker(setting: Setting) -> Step:
    """Return the step that trains the ranker in the published way, where the runs look for it."""
    given = {name: value for name, value in setting.given.items() if name in MACHINE}
    file = Path(given.get('checkpoint_dir', TRAIN.defaults['checkpoint_dir']), RANKER)
    return Step(('iqa_training/train_ranker.py', *words_of(given), '--resume'), file)


def together(setting: Setting, runs: Sequence[Step]) -> Step:
    """Return the step that tests the mean score of several networks and of 22 views of each image."""
    given = {name: value for name, value in setting.given.items() if name in set(TEST.actions) - TRAIN.names()}
    folder = Path(given.get('result_dir', TRAIN.defaults['result_dir']))
    name = joined([step.checkpoint.stem for step in runs])
    return Step(('test_dataset.py', *words_of(given), '--views', 'asna', '--trained_model_file',
                 *(str(step.checkpoint) for step in runs)), folder / f'{name}-views-asna.json')


def rows(setting: Setting, runs: dict[str, Step], mean: Step) -> list[Row]:
    """Return ours of each network, and of their mean, on the part that they were tested on."""
    table = [setting.row(f'ASNA, {name}', metric, None, step) for name, step in runs.items() for metric in METRICS]
    return table + [setting.row(f'ASNA, mean of {len(runs)}, 22 views', metric,
                                PUBLISHED_PLCC if metric == 'PLCC' else None, mean, 'another test set')
                    for metric in METRICS]
