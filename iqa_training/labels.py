"""Labels that losses and heads need beside the MOS: check before the training that the data set has them."""
from collections.abc import Mapping
from dataclasses import replace

from iqa_data.loaders import Data
from iqa_losses import INPUTS, LOSSES, chosen
from iqa_networks.network import Network
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels


def lack_of(options: Mapping, labels: Labels, name: str) -> str:
    """Return which labels of training images are lacking that the losses of options need; '' if none are.

    Args:
        options: name -> value, of main.py.
        labels: those of the training images.
        name: of the data set.
    """
    known = {'std': labels.std, **labels.more}
    for loss in chosen(options):
        for need in set(LOSSES[loss].needs()) & {'std', 'interval', 'ratings'}:
            images = len(labels.mos)
            missing = int(known[need].isnan().any(1).sum()) if need in known else images
            if missing:
                of = '' if missing == images else f' of {missing} of its {images} training images'
                return f'--loss_type {loss} needs {INPUTS[need]}: {name} does not have them{of}'
    return ''


def check_labels(options: Mapping, data: Data) -> None:
    """Raise UserError if a training image lacks what the losses that the options choose need."""
    if why := lack_of(options, data.datasets['train'].labels, data.name):
        raise UserError(why)


def fit_distribution(network: Network, data: Data) -> None:
    """Place the levels of a network's histograms on the MOS, and add the training images' own histograms to the labels.

    Raises UserError if the data set has neither ratings nor std, or ratings at another number of levels.
    """
    if not hasattr(network.distribution, 'fit'):
        return
    dataset, levels = data.datasets['train'], network.distribution.outputs
    labels = dataset.labels.onto(data.target, data.target.scale)
    ratings = labels.more.get('ratings')
    if ratings is not None and ratings.shape[1] != levels:
        raise UserError(f'--levels {levels}: {data.name} has ratings at {ratings.shape[1]} levels')
    if ratings is None and labels.std.isnan().any():
        raise UserError('--head histogram needs counts of the ratings (columns c1 ... cK) or their standard deviations '
                        f'(column std): {data.name} does not have them of all its training images')
    ratings = network.distribution.fit(labels.mos, labels.std, ratings)
    dataset.labels = replace(dataset.labels, more={**dataset.labels.more, 'ratings': ratings})
