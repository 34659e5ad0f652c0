"""The settings of the paper's runs: the options that make a run, whether a run has them, the command that trains it."""
import math
import shlex
from collections.abc import Iterable, Mapping

from iqa_data.info import dataset_name
from iqa_data.options import PREPROCESSING, data, split
from iqa_runtime.options import Command
from iqa_scoring.results import Result
from iqa_training.options import LOSS, NETWORK, TRAINING

LOSS_NAMES = {'mae': 'MAE', 'mse': 'MSE', 'norm-in-norm': 'Norm-in-Norm'}
BACKBONE_NAMES = {'resnet18': 'ResNet-18', 'resnet34': 'ResNet-34', 'resnet50': 'ResNet-50',
                  'resnext101_32x8d': 'ResNeXt-101', 'alexnet': 'AlexNet', 'vgg16': 'VGG-16'}

# Options of training that do not make another run of the paper: precision, processes, what other options imply
NOT_COMPARED = {'opt_level', 'amp_backend', 'sync_bn', 'randomness', 'data_info', 'train_ratio', 'train_and_val_ratio',
                'angle', 'crop_size_h', 'crop_size_w', 'hflip_p'}
MAIN_DEFAULTS = {name: tuple(value) if isinstance(value, list) else value
                 for name, value in Command('', [*NETWORK, *LOSS, *TRAINING, data, split,
                                                  *PREPROCESSING]).defaults.items()
                 if name not in NOT_COMPARED}
PAPER = {**MAIN_DEFAULTS, 'resize': True}  # the paper's own setting
FLAGS = {'architecture': '-arch', 'learning_rate': '-lr', 'batch_size': '-bs', 'epochs': '-e'}  # others: --name
NORM_ONLY = ('p', 'q', 'alpha')  # without effect on MAE and MSE
FIRST = ('dataset', 'resize')  # where a reader looks for them


def normalised(options: Mapping) -> dict:
    """Return the options that make a run, in one spelling; those not in `options` are as in the paper.

    Options without effect (the size without resize, p and q with MAE) take the paper's values, so that two runs
    which train the same are equal.
    """
    run = {name: options.get(name, value) for name, value in PAPER.items()}
    run['loss_type'] = 'norm-in-norm' if run['loss_type'] == 'Lp' else run['loss_type']
    run['val_criterion'] = str(run['val_criterion']).rstrip('12')  # of the head that is trained: it follows from beta
    run['weights'] = 'none' if run['weights'] == 'none' else 'imagenet'  # a path stands for weights downloaded before
    plain, monotone = run['loss_type'] in ('mae', 'mse'), run['monotonicity_regularization']
    ignored = [*(NORM_ONLY if plain else ()), *(('detach',) if plain and not monotone else ()),
               *(() if monotone else ('gamma',)),
               *(() if run['resize'] else ('resize_size_h', 'resize_size_w'))]
    return run | {name: PAPER[name] for name in ignored}


def differences(options: Mapping, wanted: Mapping) -> list[str]:
    """Return the names of the options in which two runs differ; empty if they train the same."""
    found, expected = normalised(options), normalised(wanted)
    return [name for name in PAPER if not _same(found[name], expected[name])]


def _same(a, b) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def find(results: Iterable[Result], options: Mapping, tested: str) -> Result | None:
    """Return the newest result of a training run tested on a data set, or None.

    The data set trained on counts by its test part, another one as a whole.
    """
    part = 'test' if tested == options['dataset'] else 'all'
    return next((result for result in results if result.tested == dataset_name(tested) and result.part == part
                 and not differences(result.options, options)), None)


def number(value: float) -> str:
    """Write a learning rate, ratio or count as the file names do: 1e-4, 0.01, 8."""
    mantissa, exponent = f'{value:e}'.split('e')
    return f'{float(mantissa):g}e{int(exponent)}' if 0 < value < .01 else f'{value:g}'


def command(options: Mapping, script: str = 'main.py', *extra: str) -> str:
    """Return the command that trains (or, with test_dataset.py, tests) a run, with no option that is the default."""
    return shlex.join(['python', script, *option_words(options), *extra])


def option_words(options: Mapping) -> list[str]:
    """Return the options of a run as the words of a command, without those that are main.py's defaults."""
    wanted = {name: options.get(name, value) for name, value in PAPER.items()}
    words = []
    for name in sorted(PAPER, key=lambda name: name not in FIRST):
        if not _same(wanted[name], MAIN_DEFAULTS[name]):
            words += [FLAGS.get(name, f'--{name}'), *_words(wanted[name])]
    return words


def _words(value) -> list[str]:
    if value is True:
        return []
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in _words(item)]
    short = number(value) if isinstance(value, (int, float)) else None
    return [short if short and float(short) == value else str(value)]
