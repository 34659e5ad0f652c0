"""Data sets: info files, splits, transforms, caches of decoded images, samplers; and the table AUGMENTATIONS.

An augmentation is a function under the decorator `augmentation` in augmentation.py. Its parameters are options of the
command line; it returns a callable of PIL images, which draws from torch's global generator.
"""
from collections.abc import Mapping

from iqa_runtime.variants import Variants

PAPERS = ('rotate', 'hflip', 'crop')  # the augmentation in the paper of LinearityIQA


def chosen(options: Mapping) -> list[str]:
    """Return the augmentations whose options a command uses; --test_crops and --enlarge use the size of crop."""
    parts = [] if options['augmentation'] is None else options['augmentation'] or PAPERS
    return [*parts, *(['crop'] if options.get('test_crops') or options.get('enlarge') else [])]


AUGMENTATIONS = Variants('augmentation', 'augmentation', ['iqa_data/augmentation.py'], chosen=chosen)
augmentation = AUGMENTATIONS.register
