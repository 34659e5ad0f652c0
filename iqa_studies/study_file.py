"""Read a study: a YAML file that says which settings are trained on which data, splits and seeds, and tested where.

    title: Losses on two data sets
    options: -e 30 -bs 8               # of main.py, for all settings: as it is typed, or option: value
    settings:                          # label: a recipe and options, which win
      LinearityIQA: {recipe: linearity_iqa, architecture: resnet50}
      CNNIQA: --recipe cnniqa_koniq
      fine-tuned: {recipe: cnniqa_agiqa, after: CNNIQA}   # starts from the checkpoint of another setting
    vary:                              # a grid: every setting with every value, or label: value
      lr: [1e-3, 1e-4]
      loss: {MSE: {loss_type: mse}, EMD: --loss_type emd --head histogram}   # or a name of one's own, label: options
    choose: {lr: [1e-3, 1e-4]}         # chosen for each setting by validation on the first split and seed, then fixed
    dataset: [KonIQ-10k, CLIVE]        # trained on each; without it, settings and recipes choose data and split
    splits: {repeats: 10}              # by content; or {images: 10}: by image; {folds: 5}, official, all (see tests)
    seeds: [1, 2, 3]                   # default: that of the options
    tests: [CLIVE, {dataset: mine.csv, im_dir: photos}]   # other data sets, tested as a whole
    predictions: {NIQE: niqe.csv}      # others' scores of the same images: columns image, score
    published: {CNNIQA: {PLCC: .919, SROCC on CLIVE: .766, best val PLCC: .93, mean PLCC: null}}   # null: not known
    tolerance: .003                    # of a published correlation: PASS or FAIL
    note: What it can tell, and what it cannot.   # shown on the page
    by: {prompt: reference}            # groups of the tested images: label: column of the info file
    by_name: {generator: '^[^_]+'}     # and label: regular expression that finds the group in an image's name

Of studies without `dataset` alone: `splits: {fold: [0, 1, 2]}`, an option of the split and its values; `keep: [curves,
bhat]`, what runs also record; `curves: {files: NAME, parts: [val], criteria: [PLCC]}`, their curves as CSV files;
`ranker: true`, that of the loss macs, trained first; `ensemble: {views: asna}`, all networks tested together, or `{how:
iqr}`, what splits, settings and a rule for outliers add; `predict: FOLDER`, images that all networks score;
`not_judged: WHY`, unless all start from the file whose SHA-256 begins with `judged_from`.

Every value is checked as on the command line. What decides the data and the split is the study's, not the recipes'.
"""
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from iqa_data import options as of_data
from iqa_data.datasets import dataset_name
from iqa_runtime.checks import dict_of, fields, flag, line, list_of, number, optional, text, whole
from iqa_runtime.errors import UserError, pick
from iqa_runtime.files import read_yaml
from iqa_runtime.names import PARTS
from iqa_runtime.options import machine
from iqa_scoring.options import HOW
from iqa_studies.grid import axes_of, in_full, labelled, settings_of, unique
from iqa_studies.steps import OF_RECIPES, a_list, mapping, options_in
from iqa_studies.study import ENSEMBLE, KEEP, PLACES, CurveFiles, Measure, Study
from iqa_training.options import TRAIN, recording
from IQAperformance import CRITERIA

MOST_RUNS = 10_000
SHARES = ('train_ratio', 'train_and_val_ratio', 'split_seed')  # of all splits: in `options` alone
CHOSEN = {'checkpoint_dir', 'result_dir', 'log_dir', 'trained_model_file', 'name', 'resume', 'again', 'evaluate',
          'list_models'}
FREE = (OF_RECIPES | TRAIN.names(of_data.places, machine, recording) | {'recipe'}) - {*PLACES, *CHOSEN}
OF_THE_SPLIT = TRAIN.names(of_data.split)
MEASURE = re.compile(rf'(mean |best val |)({"|".join(CRITERIA)})(?: on (.+))?')


def read_study(path: str | Path, large: bool = False, changes: Mapping[str, object] | None = None) -> Study:
    """Read a study; UserError for a mistake in it, and for more than MOST_RUNS runs unless `large`.

    Args:
        path: the file.
        large: whether more runs are wanted.
        changes: values of keys, in place of the file's own.
    """
    path, content = Path(path), read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f'{path}: expected a study: {", ".join(KEYS)}')
    study = {pick(KEYS, str(key), f'key of the study {path}'): value for key, value in content.items()}
    study |= changes or {}
    if not study.get('settings') or not study.get('dataset', True):
        raise UserError(f'{path}: {"settings" if not study.get("settings") else "dataset"}: expected at least one')
    splits, seeds = splits_of(study, path), seeds_of(study.get('seeds'), path)
    settings = mapping(study['settings'], f'{path}: settings')
    datasets = a_list(study['dataset'], f'{path}: dataset') if 'dataset' in study else []
    fixed = {'seed'} if seeds != [None] else set()
    free = (FREE if datasets else FREE | TRAIN.names() | {*PLACES}) - fixed
    varied, choices = (axes_of(study.get(key), f'{path}: {key}', free) for key in ('vary', 'choose'))
    tried = math.prod(map(len, choices)) if choices else 0
    runs = math.prod(map(len, (settings, *varied, datasets or [None]))) * (len(splits) * len(seeds) + tried)
    if runs > MOST_RUNS and not large:
        raise UserError(f'{path}: {runs:,} training runs; --yes if they are intended')
    common = options_in(study.get('options') or '', f'{path}: options', free | set(SHARES))
    data, tests = (places_of(some, f'{path}: {key}') for some, key in (
        (datasets, 'dataset'), (a_list(study.get('tests') or [], f'{path}: tests'), 'tests')))
    if 'all' in splits and not tests:
        raise UserError(f'{path}: splits: all leaves no test part: name other data sets in tests')
    if choices and (not datasets or 'all' in splits):
        raise UserError(f'{path}: choose: expected `dataset`, and splits that have a test part')
    own, after = apart(settings, path)
    multiplied = unique(settings_of(own, varied, str(path), free), f'{path}: settings')
    predictions = predictions_of(study.get('predictions') or {}, path)
    for label in predictions.keys() & multiplied:
        raise UserError(f'{path}: predictions: {label!r} is the name of a setting too')
    more = {key: checked(path, study, key) for key in MORE if key in study}
    more['choose'] = unique(labelled(choices), f'{path}: choose')
    tested = [dataset_name(str(one['dataset'])) for one in tests]
    if 'curves' in more.get('keep', ()):
        more.setdefault('curves', CurveFiles('', PARTS, ('SROCC',)))
    more['published'] = {label: {measure_of(words, tested, f'{path}: published: {label}'): value
                                 for words, value in some.items()} for label, some in more.get('published', {}).items()}
    if shared := more.get('by', {}).keys() & more.get('by_name', {}).keys():
        raise UserError(f'{path}: by and by_name: two kinds of groups are called {min(shared)!r}')
    for label in more['published']:
        pick((*multiplied, ENSEMBLE), label, f'setting ({path}: published)')
    title = str(study.get('title') or path.stem)
    return Study(title, common, multiplied, data, splits, seeds, tests, predictions, path, after, **more)


def one_of(names: Iterable[str]) -> Callable[[object], str]:
    """Return the check of a text that is one of these names."""
    def check(value) -> str:
        return pick(tuple(names), text(value), 'name')
    return check


def fraction(value) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= number(value) <= 1:
        raise ValueError('a number from 0 to 1')
    return float(value)


def curves_of(value) -> CurveFiles:
    """Return the curves that a study keeps, checked."""
    return CurveFiles(**fields(files=text, parts=list_of(one_of(PARTS)), criteria=list_of(one_of(CRITERIA)))(value))


def ensemble_of(value) -> dict[str, str]:
    """Return {'views': name} or {'how': name}."""
    from iqa_scoring.views import VIEWS
    found = dict_of(text)(value)
    for key, name in found.items():
        pick({'views': VIEWS, 'how': HOW}[pick(('views', 'how'), key, 'key')], name, key)
    if len(found) != 1:
        raise ValueError('either views or how')
    return found


NUMBERS = dict_of(dict_of(optional(number)))
MORE = {'published': NUMBERS, 'tolerance': fraction, 'not_judged': text, 'judged_from': text,
        'keep': list_of(one_of(KEEP)), 'curves': curves_of, 'ranker': flag, 'ensemble': ensemble_of, 'predict': text,
        'note': text, 'by': dict_of(line), 'by_name': dict_of(line)}
KEYS = ('title', 'options', 'settings', 'vary', 'choose', 'dataset', 'splits', 'seeds', 'tests', 'predictions', *MORE)
OWN_DATA = ('keep', 'curves', 'ranker', 'ensemble', 'predict')  # of studies whose settings choose their data
GROUPS = ('by', 'by_name')  # of studies with `dataset`


def checked(path: Path, study: Mapping, key: str):
    """Return the value of one of MORE; UserError if it is not valid."""
    if key in OWN_DATA and study.get('dataset'):
        raise UserError(f'{path}: {key}: of studies without `dataset`, whose settings choose it')
    if key in GROUPS and not study.get('dataset'):
        raise UserError(f'{path}: {key}: of studies with `dataset`')
    try:
        return MORE[key](study[key])
    except (ValueError, TypeError) as error:
        raise UserError(f'{path}: {key}: expected {str(error)[:200]}') from None


def measure_of(words: str, tested: Sequence[str], where: str) -> Measure:
    """Parse what a published number measures; `tested`: the other data sets that are tested."""
    found = MEASURE.fullmatch(words)
    if not found or (found[3] and (found[3] not in tested or found[1] == 'best val ')):
        raise UserError(f'{where}: {words!r}: expected a criterion ({", ".join(CRITERIA)}), as PLCC, mean PLCC, best '
                        f'val PLCC, or PLCC on {tested[0] if tested else "one of the tests"}')
    return Measure(*found.groups(), words)


def apart(settings: Mapping[str, object], path: Path) -> tuple[dict[str, object], dict[str, str]]:
    """Return the settings without the key `after`, and label -> the setting that it names; UserError for a circle."""
    own = {label: {key: one for key, one in value.items() if key != 'after'} if isinstance(value, dict) else value
           for label, value in settings.items()}
    after = {label: pick(tuple(settings), str(value['after']), f'setting ({path}: {label}: after)')
             for label, value in settings.items() if isinstance(value, dict) and 'after' in value}
    for label in after:
        seen = [label]
        while seen[-1] in after:
            seen.append(after[seen[-1]])
            if len(seen) > len(settings):
                raise UserError(f'{path}: {label}: after: it starts from itself')
    return own, after


def splits_of(study: Mapping, path: Path) -> dict[str, dict]:
    """Return label -> options of the splits: repeated by content or by image, folds, official, or the whole set.

    Of a study without `dataset`: values of an option of the split; {'': {}}, that of each setting.
    """
    value, own = study.get('splits'), 'dataset' not in study
    if value is None and own:
        return {'': {}}
    if isinstance(value or 'official', str):
        kind = pick(('official', 'all'), value or 'official',
                    f'kind of splits ({path}; or repeats: N, images: N, folds: N)')
        return {kind: {'split': kind}}
    (kind, count), *more = mapping(value, f'{path}: splits').items() or [('', 0)]
    if own and kind in OF_THE_SPLIT and isinstance(count, list) and not more:
        return unique(((str(one), options_in({kind: one}, f'{path}: splits', OF_THE_SPLIT)) for one in count),
                      f'{path}: splits')
    kind = pick(('repeats', 'images', 'folds'), kind, f'kind of splits ({path}; or official, all)')
    if more or isinstance(count, bool) or not isinstance(count, int) or not 1 + 2 * (kind == 'folds') <= count <= 1000:
        raise UserError(f'{path}: splits: expected repeats or images: 1 to 1000, or folds: 3 to 1000')
    if kind != 'folds':
        return {str(i): {'split': 'reference' if kind == 'repeats' else 'random', 'exp_id': i} for i in range(count)}
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
    if value == []:
        raise UserError(f'{path}: seeds: expected at least one')
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
