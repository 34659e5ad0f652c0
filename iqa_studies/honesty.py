"""Honesty of an outcome: its numbers follow from its predictions, its split is the one it names, and nothing leaks."""
import math
from collections.abc import Iterator

import numpy as np

from iqa_data.info import dataset_name, named_source, read_info
from iqa_data.splits import split_hash
from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table
from iqa_studies.outcome import Outcome
from IQAperformance import CRITERIA, agreement

CLOSE = 1e-9  # relative: the predictions are written with all their digits


def check(outcome: Outcome) -> tuple[list[str], list[str]]:
    """Return what does not hold of an outcome, and what could not be looked at."""
    wrong = [*numbers(outcome)]
    if outcome.log is None or not (outcome.log / 'split.csv').exists():
        return wrong, ['the split: no split.csv of the run']
    table = Table.read(outcome.log / 'split.csv')
    table.needs('image', 'part')
    part_of = dict(zip(table.images(), table.columns['part'], strict=True))
    wrong += split(outcome, part_of)
    own = dataset_name(str(outcome.options.get('dataset'))) == outcome.summary['dataset']
    if not own:
        return wrong, []
    try:
        source = named_source(outcome.options['dataset'], None, outcome.options.get('data_info'))
        info = read_info(source.info)
    except (UserError, OSError):
        return wrong, ['the contents: no info file of the data set here']
    wrong += contents(outcome, part_of, dict(zip(info.names, info.ref_ids.tolist(), strict=True)))
    return wrong, []


def numbers(outcome: Outcome) -> Iterator[str]:
    """Yield the metrics that do not follow from the predictions, head by head."""
    table = Table.read(outcome.result.with_suffix('.csv'))
    table.once(table.images('name'))
    mos = table.numbers('mos')
    for head in [column.removeprefix('pq') for column in table.columns if column in ('pq', 'pq1', 'pq2')]:
        found = agreement(table.numbers(f'pq{head}', finite=False), mos)
        for name in CRITERIA:
            claimed, value = outcome.metrics.get(name + head, math.nan), found[name]
            if not np.isclose(claimed, value, rtol=CLOSE, atol=CLOSE, equal_nan=True):
                yield f'{name}{head} is {value:.6f} by the predictions, but {claimed:.6f} in the results'
    images = outcome.summary['images']
    if images is not None and images != len(mos):
        yield f'{len(mos)} images are predicted, but the results say {images}'


def split(outcome: Outcome, part_of: dict[str, str]) -> Iterator[str]:
    """Yield what does not hold of the split: its hash, the tested images, images that other parts have too."""
    names = {part: [name for name, other in part_of.items() if other == part] for part in set(part_of.values())}
    if outcome.split_hash != split_hash(names):
        yield f'the split has the hash {split_hash(names)}, but the results say {outcome.split_hash}'
    if outcome.summary['dataset'] != outcome.trained_on or outcome.summary['part'] == 'all':
        return
    tested, part = set(outcome.predictions().image), outcome.summary['part']
    if tested != set(names.get(part, ())):
        yield f'the tested images are not those of the {part} part of the split'
    for other in {'train', 'val'} - {part}:
        if shared := sorted(tested & set(names.get(other, ()))):
            yield f'{len(shared)} tested images are in {other} too, as {shared[0]}'


def contents(outcome: Outcome, part_of: dict[str, str], content: dict[str, int]) -> Iterator[str]:
    """Yield the contents that are both trained and tested on, or validated and tested on."""
    tested = {content[name] for name in outcome.predictions().image if name in content}
    for part in ('train', 'val'):
        if part != outcome.summary['part']:
            shared = {content[name] for name, other in part_of.items() if other == part and name in content} & tested
            if shared:
                example = next(name for name in part_of if part_of[name] == part and content.get(name) in shared)
                yield f'{len(shared)} contents are in {part} and tested too, as that of {example}'
