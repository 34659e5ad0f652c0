"""Write the model card of a checkpoint in Markdown: data, metrics, intended use, limits, and the training command.

All of it comes from the checkpoint, so that the card of any checkpoint can be printed. Texts from the file are shown as
inline code, on one line, in printable characters.
"""
import argparse
import hashlib
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from iqa_networks.size import without_memory
from iqa_results.table_formats import places
from iqa_runtime.checkpoint import check_checkpoint, load_checkpoint, sets_in, versions
from iqa_runtime.errors import UserError, one_line
from iqa_runtime.files import write_text
from iqa_runtime.names import PARTS
from iqa_runtime.option_values import shown, words_of
from iqa_training.naming import card_file
from iqa_training.options import TRAIN
from IQAmodel import NETWORKS, PREFIX, Entry, create_model, entry_of, list_models
from IQAperformance import CRITERIA, criterion_title

LONGEST = 200  # characters of a text from a checkpoint
MOST = 12      # items of a list from a checkpoint
LIMITS = (
    'The scores estimate the mean opinion of the people who rated this data set, under the conditions of that study; '
    'other raters, screens and questions give other scores.',
    'The model has not learned to score images, distortions and processing unlike those that were rated. A score '
    'outside the range of MOS is an extrapolation.',
    'The intervals show how much the criteria depend on the choice of test images. They do not cover the seed, the '
    'split, or other data sets.',
    'The model rates how an image looks, not what it shows: no person, and no one\'s work, should be judged by a score '
    'alone.')
OF_DEMO = 'The scores of the demo data set are computed from the strength of a distortion; they are not human opinions.'


def about(path: str | Path) -> str:
    """Return the card of a checkpoint file; raise UserError if the file is not a checkpoint."""
    return card(load_checkpoint(path), card_file(Path(path)).stem)


def write_card(path: Path, content: Mapping) -> None:
    """Write the card of a checkpoint beside its file, whose content, written or about to be, is `content`."""
    checkpoint = check_checkpoint({'versions': versions(), **content}, path)
    write_text(card_file(path), card(checkpoint, card_file(path).stem))


def card(checkpoint: Mapping, name: str) -> str:
    """Return the card of a checkpoint (see `load_checkpoint`), without sections that the checkpoint has no data for."""
    return page(f'Model card: {code(name)}', sections(checkpoint))


def page(title: str, parts: Mapping[str, list[str]]) -> str:
    """Return a page in Markdown: its title, and the title and the lines of each section that has any."""
    written = [f'## {title}\n\n' + '\n'.join(lines) for title, lines in parts.items() if lines]
    return '\n\n'.join([f'# {title}', *written]) + '\n'


def sections(checkpoint: Mapping) -> dict[str, list[str]]:
    """Return title -> lines of the sections of a card; a section without data has no lines."""
    return {'Model': model(checkpoint), 'Data': data(checkpoint), 'Metrics': metrics(checkpoint),
            'Calibration': calibration(checkpoint), 'Intended use': intended_use(checkpoint),
            'Limits': limits(checkpoint), 'How it was made': command_of(checkpoint, *changed_options(checkpoint))}


def code(text) -> str:
    """Return text as inline Markdown code: on one line, truncated, without backticks and bars, which would break it."""
    line = one_line(str(text).replace('`', "'").replace('|', '/'))
    return f'`{line[:LONGEST]}{"..." if len(line) > LONGEST else ""}`'


def codes(values: Mapping) -> str:
    """Return names and values as inline Markdown code, at most MOST of them."""
    some = [code(f'{name} {shown(value)}') for name, value in list(values.items())[:MOST]]
    return ', '.join(some) + (', ...' if len(values) > MOST else '')


def model(checkpoint: Mapping) -> list[str]:
    """Return the lines on the network, its input and its weights."""
    lines = []
    if 'network' in checkpoint:
        network = checkpoint['network']
        changed = {name: value for name, value in network['options'].items()
                   if value != TRAIN.defaults.get(name, value)}
        lines.append(f'- Network: {code(network["name"])}' + (f' with {codes(changed)}' if changed else ''))
    lines.append(f'- Weights: {sum(tensor.numel() for tensor in checkpoint["model"].values()):,} numbers'
                 + (f', of epoch {checkpoint["epoch"]}' if 'epoch' in checkpoint else '')
                 + ('' if checkpoint.get('finished', True) else '; the training was not finished'))
    if 'input' in checkpoint:
        preprocessing = checkpoint['input']['preprocessing']
        lines.append(f'- Input: 8-bit RGB, {_sizing(preprocessing)}'
                     + f', normalised by {code(checkpoint["input"]["normalise"])}')
    if checkpoint.get('crops'):
        crops = checkpoint['crops']
        lines.append(f'- Score: the mean of {crops["count"]} crops of {crops["size"][1]}x{crops["size"][0]} (w x h), '
                     f'places {code(crops["places"])}')
    return lines


def _sizing(preprocessing: Mapping) -> str:
    """Describe how preprocessing changes the size of an image."""
    if not preprocessing.get('resize'):
        return 'at its original size'
    height, width = preprocessing['resize']
    how = 'enlarged, if smaller, to at least' if preprocessing.get('fit') == 'enlarge' else 'resized to'
    return f'{how} {width}x{height} (w x h)'


def data(checkpoint: Mapping) -> list[str]:
    """Return the lines on the data set, its split and its opinion scores."""
    if len(sets := sets_in(checkpoint)) > 1:
        weights = checkpoint.get('options', {}).get('data_weights')
        shares = f'in the proportions {code(shown(weights))}' if weights else 'of each as many'
        return [f'- Trained on {len(sets)} data sets at once: a batch holds images {shares}. Each has a line to MOS of '
                'its own; the first one\'s is used for other images.',
                *(line for one in list(sets.values())[:MOST] for line in data(one))]
    lines = []
    if 'dataset' in checkpoint:
        lines.append(f'- Data set: {code(checkpoint["dataset"])}')
    if 'split' in checkpoint:
        counts = [f'{len(checkpoint["split"][part]):,} {part}' for part in PARTS if part in checkpoint['split']]
        names = sorted(name for part in checkpoint['split'].values() for name in part)
        listed = hashlib.sha256(''.join(f'{name}\n' for name in names).encode(errors='replace')).hexdigest()
        lines += [f'- Images: {", ".join(counts)}', f'- SHA-256 of their names, sorted, each on a line: {code(listed)}']
    if 'split_hash' in checkpoint:
        lines.append(f'- Hash of the split: {code(checkpoint["split_hash"])}')
    if 'mos' in checkpoint:
        mos = checkpoint['mos']
        whose = 'the calibration ratings' if 'calibration' in checkpoint else 'the training images'
        lines.append(f'- MOS of {whose}: {mos["min"]:.4g} to {mos["max"]:.4g}, '
                     f'{"higher" if mos["higher_is_better"] else "lower"} is better')
    return lines


def metrics(checkpoint: Mapping) -> list[str]:
    """Return the table of the criteria of the scored head, with their intervals."""
    rows = [f'| {" ".join(filter(None, [name and code(name), part]))} | '
            + ' | '.join(_criterion(one, part, criterion) for criterion in CRITERIA) + ' |'
            for name, one in list(sets_in(checkpoint).items())[:MOST] for part in PARTS
            if part in one.get('metrics', {})]
    if not rows:
        return []
    titles = [criterion_title(name).replace('|', r'\|') for name in CRITERIA]
    return [f'| | {" | ".join(titles)} |', '|---' * (len(CRITERIA) + 1) + '|', *rows, '',
            'Criteria of the scored head; RMSE in MOS units. Brackets: 95 % bootstrap intervals over images. The epoch '
            'was chosen on val; the line to MOS comes from train.'
            + (' The mean over the data sets chose the epoch.' if 'sets' in checkpoint else ''),
            *_uncertainty(checkpoint)]


def _uncertainty(checkpoint: Mapping) -> list[str]:
    """Return the line on the uncertainty of a network that predicts distributions."""
    parts = [f'{part} {_criterion(checkpoint, part, "sharpness")} (coverage error '
             f'{_criterion(checkpoint, part, "coverage_error")})' for part in PARTS
             if 'sharpness' in checkpoint['metrics'].get(part, {})]
    return ['', f'Uncertainty: the mean standard deviation of the predictions, in MOS units: {", ".join(parts)}.'
            ] if parts else []


def measured(checkpoint: Mapping, part: str, name: str) -> tuple[float, list[float]] | None:
    """Return a criterion on a part and the ends of its interval, [] if it has none; None if it is not known.

    A negative correlation is returned as its magnitude.
    """
    value = checkpoint['metrics'][part].get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
        return None
    ends = checkpoint.get('intervals', {}).get(part, {}).get(name, [])
    falls = value < 0 and name in CRITERIA and CRITERIA[name].correlation
    return (-value, [-end for end in reversed(ends)]) if falls else (value, list(ends))


def _criterion(checkpoint: Mapping, part: str, name: str) -> str:
    found = measured(checkpoint, part, name)
    if found is None:
        return '-'
    value, ends = found
    if not ends:
        return f'{value:.4f}'
    low, high = ends
    digits = places(low, high)
    return f'{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]'


def calibration(checkpoint: Mapping) -> list[str]:
    """Return the line on the ratings that the scores were fitted to."""
    if 'calibration' not in checkpoint:
        return []
    fitted = {key: value for key, value in checkpoint['calibration'].items() if key in ('kind', 'images')}
    return [f'The scores are fitted to ratings ({codes(fitted)}); the metrics above were measured before the fit, on '
            'the MOS scale of the training images.']


def entry_in(checkpoint: Mapping) -> Entry | None:
    """Return the row of a checkpoint's network; None if it is unknown, as a class of the user's own may be."""
    name = checkpoint.get('network', {}).get('name', '')
    return entry_of(name) if name in NETWORKS or name.startswith(PREFIX) else None


def intended_use(checkpoint: Mapping) -> list[str]:
    """Return the sentence on the intended use of the model."""
    entry = entry_in(checkpoint)
    compared = 'beside its reference' if entry and entry.inputs == 2 else 'without a reference'
    return [f'To predict how good an image looks to people, {compared}, as a mean opinion score (MOS) on the scale of '
            'the data set: to rank images like those that were rated, and to compare ways of processing them.']


def limits(checkpoint: Mapping) -> list[str]:
    """Return the lines on the limits of the model and of its metrics."""
    sentences = (*LIMITS, OF_DEMO) if 'demo' in (checkpoint.get('dataset'), *checkpoint.get('sets', ())) else LIMITS
    return [f'- {sentence}' for sentence in sentences]


def command_of(checkpoint: Mapping, options: Mapping, refused: int) -> list[str]:
    """Return the training command and the versions; `options`, `refused`: see `changed_options`."""
    lines = []
    if 'options' in checkpoint:
        lines += ['```', one_line(shlex.join(['python', 'main.py', *words_of(options)])), '```', '',
                  'Add the paths of your files (`--im_dir` ...) if they are not the default ones.']
    if refused:
        lines += ['', f'{refused} of its options are left out: they are too long to show, or main.py does not accept '
                  'their values.']
    if 'versions' in checkpoint:
        lines += ['', f'Made with {codes(checkpoint["versions"])}.']
    return lines


def changed_options(checkpoint: Mapping) -> tuple[dict[str, object], int]:
    """Return the options of training that differ from the defaults, checked, and the number of those left out.

    Options that main.py does not accept, or that are too long to show, are left out.
    """
    changed, refused = {}, 0
    for name, value in checkpoint.get('options', {}).items():
        if name not in TRAIN.names() or value == TRAIN.defaults[name]:
            continue
        try:
            checked = TRAIN.checked(name, value)
            if any(len(word) > LONGEST for word in words_of({name: checked})):
                raise ValueError
            changed[name] = checked
        except (ValueError, argparse.ArgumentTypeError):
            refused += 1
    return changed, refused


# A list of the networks, for --list_models

MOST_BUILT = 60  # networks that are built to count their parameters; timm has more than a thousand


def models_table(pattern: str = '*') -> str:
    """Return a line for each network whose name matches: name, number of parameters, input images, and system.

    If more than MOST_BUILT networks match, the lines hold the names alone.
    """
    names = list_models(pattern)
    if not names:
        raise UserError(f'--list_models {pattern}: no network has such a name; without a pattern, all are listed')
    if len(names) > MOST_BUILT:
        return '\n'.join([*names, f'{len(names)} networks; sizes are shown if at most {MOST_BUILT} match'])
    lines = [f'{"network":24}{"parameters":>14}  {"input":<30}system']
    return '\n'.join([*lines, *map(_line, names)])


def _line(name: str) -> str:
    network = without_memory(partial(create_model, name))
    size = f'{network.side}x{network.side}' if network.side else 'any size'
    images = f'{"image" if network.inputs == 1 else "reference and image"}, {size}'
    count = sum(parameter.numel() for parameter in network.parameters())
    return f'{name:24}{count:14,}  {images:<30}{entry_of(name).system}'
