"""Read a study: a YAML file that says which settings are trained on which data, splits and seeds, and tested where.

    title: Losses on two data sets
    options: -e 30 -bs 8               # of main.py, for all settings: as it is typed, or option: value
    settings:                          # label: a recipe and options, which win
      LinearityIQA: {recipe: linearity_iqa, architecture: resnet50}
      CNNIQA: --recipe cnniqa_koniq
    vary: {lr: [1e-3, 1e-4]}           # a grid: every setting with every value
    dataset: [KonIQ-10k, CLIVE]        # trained on each
    splits: {repeats: 10}              # by content; or {folds: 5}, official, all (no test part: see tests)
    seeds: [1, 2, 3]                   # default: that of the options
    tests: [CLIVE, {dataset: mine.csv, im_dir: photos}]   # other data sets, tested as a whole
    predictions: {NIQE: niqe.csv}      # others' scores of the same images: columns image, score

Every value is checked as on the command line. What decides the data and the split is the study's, not the recipes'.
"""
import math
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from iqa_data import options as of_data
from iqa_runtime.checks import whole
from iqa_runtime.errors import UserError, pick
from iqa_runtime.options import machine, shown
from iqa_runtime.yaml_files import read_yaml
from iqa_training.option_files import OF_RECIPES, Given, a_list, mapping, merged, options_in
from iqa_training.options import TRAIN, recording

MOST_RUNS = 10_000
KEYS = ('title', 'options', 'settings', 'vary', 'dataset', 'splits', 'seeds', 'tests', 'predictions')
PLACES = ('dataset', 'data_info', 'im_dir', 'ref_dir')  # of a data set
SHARES = ('train_ratio', 'train_and_val_ratio', 'split_seed')  # of all splits: in `options` alone
FREE = (OF_RECIPES | TRAIN.names(of_data.places, machine, recording) | {'recipe'}) - {
    *PLACES, 'checkpoint_dir', 'result_dir', 'log_dir', 'trained_model_file', 'resume', 'evaluate', 'list_models'}


@dataclass(frozen=True)
class Study:
    """What a study says; options are name -> value, checked.

    Attributes:
        title: heading of the report.
        settings: label -> options; the grid is multiplied out.
        datasets, tests: places of the data sets to train on, and of others to test on.
        splits: label -> options.
        seeds: seeds of each run; None: that of the options.
        predictions: label -> table of others' scores.
        at: the file, for error messages.
    """

    title: str
    settings: Mapping[str, Given]
    datasets: Sequence[Given]
    splits: Mapping[str, Given]
    seeds: Sequence[int | None]
    tests: Sequence[Given]
    predictions: Mapping[str, Path]
    at: Path


def read_study(path: str | Path, large: bool = False) -> Study:
    """Read a study; UserError for what it cannot mean, and unless `large`, for more than MOST_RUNS runs."""
    path, content = Path(path), read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f'{path}: expected a study: {", ".join(KEYS)}')
    study = {pick(KEYS, str(key), f'key of the study {path}'): value for key, value in content.items()}
    for key in ('settings', 'dataset'):
        if not study.get(key):
            raise UserError(f'{path}: {key}: expected at least one')
    splits, seeds = splits_of(study.get('splits', 'official'), path), seeds_of(study.get('seeds'), path)
    settings, grid = mapping(study['settings'], f'{path}: settings'), mapping(study.get('vary') or {}, f'{path}: vary')
    lists = {name: a_list(values, f'{path}: vary: {name}') for name, values in grid.items()}
    datasets = a_list(study['dataset'], f'{path}: dataset')
    runs = math.prod(map(len, (settings, *lists.values(), datasets, splits, seeds)))
    if runs > MOST_RUNS and not large:
        raise UserError(f'{path}: {runs:,} training runs; --yes if that is meant')
    fixed = {'seed'} if seeds != [None] else set()
    common = options_in(study.get('options') or '', f'{path}: options', FREE | set(SHARES) - fixed)
    data, tests = (places_of(some, f'{path}: {key}') for some, key in (
        (datasets, 'dataset'), (a_list(study.get('tests') or [], f'{path}: tests'), 'tests')))
    if 'all' in splits and not tests:
        raise UserError(f'{path}: splits: all leaves no test part: name other data sets in tests')
    multiplied = unique(settings_of(settings, lists, common, path, FREE - fixed), f'{path}: settings')
    predictions = predictions_of(study.get('predictions') or {}, path)
    for label in predictions.keys() & multiplied:
        raise UserError(f'{path}: predictions: {label!r} is the name of a setting too')
    return Study(str(study.get('title') or path.stem), multiplied, data, splits, seeds, tests, predictions, path)


def unique(items: Iterable[tuple[str, object]], where: str) -> dict:
    """Return pairs as a dictionary; UserError if a label comes twice."""
    found = {}
    for label, value in items:
        if label in found:
            raise UserError(f'{where}: {label!r} twice')
        found[label] = value
    return found


def settings_of(settings: Mapping, grid: Mapping[str, list], common: Given, path: Path, allowed
                ) -> Iterator[tuple[str, dict]]:
    """Yield the label and the options of every setting with every combination of the grid."""
    steps = [[(f'{name} {in_full(value)}', options_in({name: value}, f'{path}: vary', allowed)) for value in values]
             for name, values in grid.items()]
    for label, value in settings.items():
        own = options_in(value or '', f'{path}: {label}', allowed)
        for varied in product(*steps):
            yield ', '.join([label, *(mark for mark, _ in varied)]), merged(common, own, *(one for _, one in varied))


def in_full(value) -> str:
    """Return the value of an option as it is typed, a number with all its digits."""
    values = value if isinstance(value, list) else [value]
    return ' '.join(repr(one) if isinstance(one, float) and float(shown(one)) != one else shown(one) for one in values)


def splits_of(value, path: Path) -> dict[str, dict]:
    """Return label -> options of the splits that are repeated, folds, official, or the whole set."""
    if isinstance(value, str):
        kind = pick(('official', 'all'), value, f'kind of splits ({path}; or repeats: N, folds: N)')
        return {kind: {'split': kind}}
    (kind, count), *more = mapping(value, f'{path}: splits').items() or [('', 0)]
    kind = pick(('repeats', 'folds'), kind, f'kind of splits ({path}; or official, all)')
    if more or isinstance(count, bool) or not isinstance(count, int) or not 1 + 2 * (kind == 'folds') <= count <= 1000:
        raise UserError(f'{path}: splits: expected repeats: 1 to 1000, or folds: 3 to 1000')
    if kind == 'repeats':
        return {str(i): {'split': 'reference', 'exp_id': i} for i in range(count)}
    return {str(i): {'split': 'kfold', 'folds': count, 'fold': i} for i in range(count)}


def places_of(values: list, where: str) -> list[dict]:
    """Return the options of data sets, each a name or a mapping of PLACES; UserError if one comes twice."""
    found = [options_in({'dataset': one} if isinstance(one, str) else one, where, PLACES) for one in values]
    for i, one in enumerate(found):
        if one in found[:i]:
            raise UserError(f'{where}: {in_full(list(one.values()))!r} twice')
    return found


def seeds_of(value, path: Path) -> list[int | None]:
    """Return the seeds, each once; [None] if the study names none."""
    if value is None:
        return [None]
    try:
        return list(dict.fromkeys(TRAIN.checked('seed', whole(one)) for one in a_list(value, f'{path}: seeds')))
    except (ArgumentTypeError, ValueError) as error:
        raise UserError(f'{path}: seeds: {error}') from None


def predictions_of(value, path: Path) -> dict[str, Path]:
    """Return label -> table of others' predictions; UserError if a file is not there."""
    tables = {Path(value).stem: value} if isinstance(value, str) else mapping(value, f'{path}: predictions')
    for file in tables.values():
        if not isinstance(file, str) or not Path(file).is_file():
            raise UserError(f'{path}: predictions: {str(file)[:80]} not found')
    return {label: Path(file) for label, file in tables.items()}
