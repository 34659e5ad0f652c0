"""Info tables, splits, transforms, decoded images, samplers.

An augmentation is a function under the decorator `augmentation` in augmentation.py: options -> the change, a callable
of PIL images that draws from torch's global generator; its parameters are options of the command line.
"""
from collections.abc import Mapping

from iqa_runtime.variants import Variants

PAPERS = ('rotate', 'hflip', 'crop')  # the augmentation in the paper of LinearityIQA


def chosen(options: Mapping) -> list[str]:
    """Return the names of the augmentations of a command's options; crops that are scored are of the same size."""
    parts = [] if options['augmentation'] is None else options['augmentation'] or PAPERS
    return [*parts, *(['crop'] if options.get('test_crops') or options.get('enlarge') else [])]


AUGMENTATIONS = Variants('augmentation', 'augmentation', ['iqa_data/augmentation.py'], chosen=chosen)
augmentation = AUGMENTATIONS.register
