"""Write the README of a published model: the hub's description in YAML, how to use it, and the model card."""
from collections.abc import Mapping
from dataclasses import dataclass

from iqa_runtime.checkpoint import sets_in
from iqa_runtime.errors import UserError, needed, one_line
from iqa_runtime.files import parse_yaml
from iqa_runtime.hub import on_hub
from iqa_runtime.names import PARTS
from iqa_runtime.published import CONFIG, RECIPE, SPLIT, WEIGHTS
from iqa_training.card import code, command_of, entry_in, measured, page, sections
from IQAmodel import PREFIX
from IQAperformance import CRITERIA

TASK = 'image-quality-assessment'
METRICS = {'SROCC': 'spearmanr', 'PLCC': 'pearsonr', 'KROCC': 'kendalltau', 'RMSE': 'rmse'}  # the hub's names
NO_LICENSE = 'The publisher named no license: ask before you build on the model.'
LICENSE = 'The publisher chose {}.'
RIGHTS = 'The licenses of the training data and of the initial weights apply too.'


@dataclass(frozen=True)
class Publication:
    """What the README of a published model says that the checkpoint does not.

    Attributes:
        name: name of the model.
        place: the folder, or hf-hub:USER/NAME.
        license: name of the license, as the hub spells it; 'other': none was named.
        predictions: files of predictions -> the data set and the part that they are of, for people.
    """

    name: str
    place: str
    license: str
    predictions: Mapping[str, str]


def readme(checkpoint: Mapping, made: Publication, options: Mapping, refused: int) -> str:
    """Return the README of a checkpoint (see `load_checkpoint`).

    `options`, `refused`: its options of training that differ from the defaults (see `changed_options`).
    """
    card = sections(checkpoint)
    command = command_of(checkpoint, options, refused)
    parts = {'Use': use(checkpoint, made), **card, 'How it was made': command, 'Files': files(checkpoint, made),
             'License': [LICENSE.format(code(made.license)) if made.license != 'other' else NO_LICENSE, RIGHTS]}
    return f'---\n{front_matter(checkpoint, made)}---\n\n{page(one_line(made.name), parts)}'


def use(checkpoint: Mapping, made: Publication) -> list[str]:
    """Return the lines that say how to score with the model, with the toolkit."""
    entry = entry_in(checkpoint)
    pair = bool(entry and entry.inputs == 2)
    place = made.place if on_hub(made.place) else 'FOLDER'  # which the reader moves
    words = '--img photo.jpg' + ' --ref reference.jpg' * pair
    images = "'photo.jpg', 'reference.jpg'" if pair else "'photo.jpg'"
    return ['With the toolkit LinearityIQA' + ('' if on_hub(made.place) else ' (`FOLDER` is the folder of these files)')
            + ', from the command line or from Python:', '',
            '```', f'python test_demo.py {words} --trained_model_file {place}', '```', '',
            '```python', 'import IQAmodel', f"IQAmodel.load('{place}').score({images})  # in MOS units", '```', '',
            'No file of it is a pickle, and none runs code.']


def files(checkpoint: Mapping, made: Publication) -> list[str]:
    """Return the table of the files."""
    rows = {WEIGHTS: 'the weights, under the names of the toolkit',
            CONFIG: 'network, preprocessing, line to MOS, range of MOS, metrics, options of training, versions',
            RECIPE: f'the options of training: `python main.py --recipe {RECIPE}`'}
    if 'split' in checkpoint:
        rows[SPLIT] = 'which images trained, validated and tested it'
    rows |= {name: f'MOS and scores of the {what} images' for name, what in made.predictions.items()}
    check = (['', 'Every number of the table above follows from the predictions: `python iqa_studies/check.py FOLDER` '
              'computes them again.'] if made.predictions else
             ['', 'The predictions of the test images are not among them: the metrics cannot be computed again.'])
    return ['| | |', '|---|---|', *(f'| `{name}` | {what} |' for name, what in rows.items()), *check]


# The hub's description

def front_matter(checkpoint: Mapping, made: Publication) -> str:
    """Return the description of a model as the hub's YAML."""
    yaml, entry = needed('yaml', 'pyyaml', 'README.md'), entry_in(checkpoint)
    name = checkpoint.get('network', {}).get('name', '')
    tags = [TASK, 'full-reference' if entry and entry.inputs == 2 else 'no-reference',
            *([_slug(entry.system)] if entry else []), *(['timm'] if name.startswith(PREFIX) else [])]
    results = [one for part in tested_parts(checkpoint) for one in [result(*part)] if one['metrics']]
    about = {'license': made.license, 'library_name': 'linearity-iqa', 'tags': tags,
             'datasets': [one_line(name) for name, _, _ in tested_parts(checkpoint)] or None,
             'metrics': list(METRICS.values()) if results else None,
             'model-index': [{'name': one_line(made.name), 'results': results}] if results else None}
    return yaml.safe_dump({key: value for key, value in about.items() if value is not None}, sort_keys=False,
                          allow_unicode=True, width=120)


def tested_parts(checkpoint: Mapping) -> list[tuple[str, str, dict]]:
    """Return (name, part, checkpoint as that of the set) of each data set: the part that it was tested on.

    It is test, or else the last one of PARTS that has metrics; '' if there are none.
    """
    found = []
    for name, one in sets_in(checkpoint).items():
        parts = [part for part in PARTS if part in one.get('metrics', {})]
        found += [(name or one.get('dataset', ''), parts[-1] if parts else '', one)]
    return [one for one in found if one[0]]


def result(name: str, part: str, checkpoint: Mapping) -> dict:
    """Return the metrics on a part of a data set as an entry of the hub's model-index, to four decimals."""
    rows = []
    for criterion in CRITERIA:
        found = measured(checkpoint, part, criterion) if part else None
        if found:
            value, ends = found
            rows.append({'type': METRICS.get(criterion, criterion.lower()), 'name': criterion, 'value': round(value, 4),
                         **({'args': {'interval_95': [round(end, 4) for end in ends]}} if ends else {})})
    return {'task': {'type': TASK, 'name': 'Image quality assessment'},
            'dataset': {'name': one_line(name), 'type': _slug(name), 'split': part}, 'metrics': rows}


def described_in(text: str, where: str) -> dict:
    """Return the description at the beginning of a README; UserError if it has none."""
    _, dashes, rest = text.partition('---\n')
    about, end, _ = rest.partition('\n---\n')
    found = parse_yaml(about, where) if text.startswith(dashes) and end else None
    if not isinstance(found, dict):
        raise UserError(f'{where}: expected a description in YAML between two lines --- at its beginning')
    return found


def _slug(text: str) -> str:
    letters = ''.join(letter if letter.isalnum() else '-' for letter in text.lower())
    return '-'.join(filter(None, letters.split('-'))) or 'unnamed'
