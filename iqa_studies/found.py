"""Find the results of a run by its options, whatever its name."""
import math
from collections.abc import Collection, Iterable, Mapping

from iqa_data.datasets import dataset_name
from iqa_results.read import Result
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN

# options of training that do not make another run: precision, processes, and what other options imply
NOT_COMPARED = frozenset({'opt_level', 'amp_backend', 'sync_bn', 'randomness', 'data_info', 'train_ratio', 'angle',
                          'train_and_val_ratio', 'crop_size_h', 'crop_size_w', 'hflip_p'})


def effective(options: Mapping) -> dict:
    """Return the options of training in one spelling, with those that are missing or have no effect as by default."""
    defaults = {name: TRAIN.defaults[name] for name in sorted(TRAIN.names())}
    try:
        run = TRAIN.effective(defaults | TRAIN.stored(options, 'the options of a run', known=False))
    except UserError:  # of another version, or of a loss or network that is not here: compared as they are
        run = {name: options.get(name, default) for name, default in defaults.items()}
    run['val_criterion'] = str(run['val_criterion']).rstrip('12')  # of the head that is trained: it follows from beta
    run['weights'] = 'none' if run['weights'] == 'none' else 'imagenet'  # a path stands for weights downloaded before
    without_effect = [*(() if run['monotonicity_regularization'] else ('gamma',)),
                      *(() if run['resize'] else ('resize_size_h', 'resize_size_w'))]
    return run | {name: defaults[name] for name in without_effect}


def differences(options: Mapping, wanted: Mapping, ignored: Collection[str] = NOT_COMPARED) -> list[str]:
    """Return the names of the options, but for some, in which two runs differ; empty if they train the same."""
    found, expected = effective(options), effective(wanted)
    return [name for name in found if name not in ignored and not _same(found[name], expected[name])]


def _same(a, b) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def find(results: Iterable[Result], options: Mapping, tested: str, ignored: Collection[str] = NOT_COMPARED
         ) -> Result | None:
    """Return the newest result of a training run tested on a data set, or None.

    The data set trained on counts by its test part (val, if there is none), another one as a whole.
    """
    parts = ('test', 'val') if tested == dataset_name(options['dataset']) else ('all',)
    return next((result for result in results if result.tested == tested and result.part in parts
                 and not differences(result.options, options, ignored)), None)
