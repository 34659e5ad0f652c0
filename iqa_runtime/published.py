"""Read and write published models: a folder, or a model on the hub (iqa_runtime/hub.py), without pickles.

    model.safetensors    the network's state dict
    config.json          the other values of a checkpoint (iqa_runtime/checkpoint.py), and `model_sha256`, the SHA-256
                         of model.safetensors
    split.csv            the split, which is not in config.json: columns image and part; of several data sets, the
                         names are SET/IMAGE. It is absent if the checkpoint has no split.

iqa_scoring/publish.py adds files for people: README.md, recipe.txt, and predictions.csv.
"""
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_runtime.checks import checked_value, dict_of, json_text, list_of, number
from iqa_runtime.errors import UserError, first_line, needed
from iqa_runtime.files import check_regular, read_json, replacing, sha256, write_text
from iqa_runtime.hub import fetched, on_hub
from iqa_runtime.split_file import by_set, read_split

if TYPE_CHECKING:  # torch is slow to import
    import torch

WEIGHTS, CONFIG, SPLIT = 'model.safetensors', 'config.json', 'split.csv'
README, RECIPE, PREDICTIONS = 'README.md', 'recipe.txt', 'predictions*.csv'
FILES = (WEIGHTS, CONFIG, SPLIT, README, RECIPE, PREDICTIONS)
HASH = 'model_sha256'
# keys of config.json that come first, the others follow
FIRST = ('format', 'network', 'input', 'crops', 'head', 'k', 'b', 'mapping', 'target', 'dataset', 'split_hash', 'epoch',
         'finished', 'metrics', 'intervals', 'options', 'versions')


def is_published(path: str | os.PathLike) -> bool:
    """Return whether a path is that of a published model: a folder, or a name on the hub."""
    return on_hub(path) or os.path.isdir(path)


def folder_of(path: str | os.PathLike) -> Path:
    """Return the folder of a published model, which is fetched if it is on the hub."""
    return fetched(path, FILES) if on_hub(path) else Path(path)


def read_published(path: str | os.PathLike) -> dict:
    """Return the content of a published model, with the keys of a checkpoint, each to be checked as a checkpoint's.

    Raises UserError if a file is missing, is not of its format, or is larger or smaller than it says, or if the weights
    are not those that belong to the config.
    """
    folder = folder_of(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            raise UserError(f'{path}: no {name} in it; expected a folder that linearity-iqa publish wrote (weights in '
                            'other files are not read)')
        check_regular(folder / name)
    config = read_json(folder / CONFIG, dict_of(lambda value: value), 'the config of a published model')
    content = {key: value for key, value in config.items() if key not in (HASH, 'model', 'split')}
    content['model'] = read_safetensors(folder / WEIGHTS)
    if HASH in config and config[HASH] != sha256(folder / WEIGHTS).hex():
        raise UserError(f'{folder / WEIGHTS}: its SHA-256 is not the {HASH} of {CONFIG}: the files are not of the same '
                        'model, or one of them is not complete')
    sets = _described(content, folder / CONFIG)
    splits = by_set(read_split(folder / SPLIT), list(sets), folder / SPLIT) if (folder / SPLIT).exists() else {}
    first = next(iter(sets))
    for name, one in {**sets, '': content}.items():
        if splits:
            one['split'] = splits[name or first]
        if isinstance(one.get('mos'), Mapping):
            one['mos'] = _with_tensor(one['mos'], folder / CONFIG)
    return content


def write_published(folder: Path, checkpoint: Mapping, form: int) -> None:
    """Write model.safetensors and config.json of a checkpoint of format `form` to a folder.

    The split is left out: it is to be written to split.csv.
    """
    save = needed('safetensors.torch', 'safetensors', WEIGHTS).save_file
    with replacing(folder / WEIGHTS) as temporary:
        mode = temporary.stat().st_mode  # which the package changes
        save({name: tensor.clone().contiguous() for name, tensor in checkpoint['model'].items()}, temporary,
             metadata={'format': 'pt'})  # clones: tensors that share memory are refused
        temporary.chmod(mode)
    config = {'format': form, HASH: sha256(folder / WEIGHTS).hex(), **_plain(checkpoint)}
    if 'sets' in config:
        config['sets'] = {name: _plain(one) for name, one in config['sets'].items()}
    order = sorted(config, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
    lines = [f'  {json_text(key)}: {json_text(config[key])}' for key in order]
    write_text(folder / CONFIG, '{\n' + ',\n'.join(lines) + '\n}\n')


def _plain(checkpoint: Mapping) -> dict:
    """Return the values of a checkpoint that config.json holds, without tensors."""
    values = {key: value for key, value in checkpoint.items() if key not in ('model', 'split')}
    if 'mos' in values:
        values['mos'] = {**values['mos'], 'values': values['mos']['values'].tolist()}
    return values


def _described(content: dict, path: Path) -> dict[str, dict]:
    """Return name of a data set -> the dictionary in a content that describes it; '' -> the content if it is the only.
    """
    if not content.get('sets'):
        return {'': content}
    content['sets'] = checked_value(path, 'sets', dict_of(dict_of(lambda value: value)), content['sets'])
    return content['sets']


def _with_tensor(mos: Mapping, path: Path) -> dict:
    import torch
    values = checked_value(path, 'mos: values', list_of(number), mos.get('values'))
    return {**mos, 'values': torch.tensor(values, dtype=torch.float64)}


def read_safetensors(path: str | Path) -> 'dict[str, torch.Tensor]':
    """Read a state dict in the safetensors format; UserError if the file is missing or damaged."""
    try:
        check_regular(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UserError(f'{path}: {"no such file" if missing else error.strerror or error}') from None
    load_file = needed('safetensors.torch', 'safetensors', path).load_file
    try:
        return load_file(path)
    except Exception as error:  # the package raises many kinds on a broken file
        raise UserError(f'{path}: not a safetensors file ({first_line(error)[:200]})') from None
