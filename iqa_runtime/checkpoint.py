"""Read, check and write checkpoints, which record how they were made, so that scoring needs no other option.

A checkpoint is a dictionary of tensors and plain Python values, written atomically and loaded with weights_only=True:

    format         2
    model          the network's state dict
    network        'name' and 'options': the arguments of IQAmodel.create_model
    input          'preprocessing': fields of iqa_data.transforms.Preprocess; 'normalise': name of the normalisation
    crops          if images are scored by crops: fields of iqa_data.crops.Crops
    target         'shift' and 'scale': the network was trained to predict (MOS - shift) / scale
    head           index of the scored head among the network's outputs
    k, b           lists: MOS = k raw + b, for the scored head and then the others in their order
    options        every option of training, by name
    dataset        name of the training data set
    split          {'train', 'val', 'test'} -> file names; test may be absent
    split_hash     16 hexadecimal digits of a hash of the split (iqa_runtime/split_file.py)
    mos            MOS of the training images: 'values' (sorted, float32), 'min', 'max', 'higher_is_better'
    epoch          the epoch of these weights
    metrics        {'val': ..., 'test': ...} -> criteria
    intervals      {'test': ...} -> criterion -> [low, high], 95 % over its images
    finished       whether training has ended
    versions       versions of the packages

A checkpoint trained on several data sets has k, b, split, mos, target, metrics and intervals of the first, and one more
key:

    sets           name of a data set -> the same keys, of each (see `of_set`); 'dataset' are the names with + between

A checkpoint that test_demo.py --calibrate wrote has the ratings in 'mos', and two more keys:

    calibration    'kind', 'images', and the criteria 'before', 'fitted', 'leave-one-out'
    mapping        for a curve: its 'name' and 'parameters' (see iqa_scoring/scorer.py), instead of k[0], b[0]

Format 1 (LinearityIQA only) has 'preprocessing', and the network among its options; a checkpoint of the original
package has only model, k and b. Both are converted to format 2 when they are read. Every value is checked, and unknown
keys are ignored.
"""
import os
import pickle
import platform
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from iqa_runtime.checks import (
    LARGEST,
    checked_value,
    dict_of,
    fields,
    flag,
    list_of,
    number,
    optional,
    plain,
    size,
    tensors,
    text,
    whole,
)
from iqa_runtime.errors import UserError, first_line, one_line
from iqa_runtime.files import check_regular, replacing
from iqa_runtime.names import PARTS
from iqa_runtime.published import is_published, read_published

FORMAT = 2
DEEPEST = 50  # levels of nested dictionaries and lists
MOST_VALUES = 1 << 22  # plain values and tensors in a file, such as the names of images and the logged scalars


def versions() -> dict[str, str]:
    """Return what affects the numbers: the versions of Python and of the packages, and the machine.

    The machine is its processor and the number of threads, or the GPU that the process uses.
    """
    import PIL
    import torchvision
    return {'python': platform.python_version(), 'torch': str(torch.__version__),
            'torchvision': torchvision.__version__, 'numpy': np.__version__, 'pillow': PIL.__version__,
            'machine': machine()}


def machine() -> str:
    """Return the name of the GPU that this process uses, or else the kind of processor and the number of threads."""
    if torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f'{platform.machine()} processor, {threads} thread{"s" if threads > 1 else ""}'


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write a checkpoint atomically; UserError if it cannot be written."""
    write_tensors(path, {'format': FORMAT, 'versions': versions(), **checkpoint})


def halved(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict with its weights in half precision: all tensors of several dimensions.

    Biases and the statistics of batch normalisation are few, may be too small or too large for half precision, and
    stay as they are. Loading such a state dict into a network turns it into single precision again.
    """
    return {name: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
            for name, tensor in state.items()}


def write_tensors(path: str | Path, content: dict) -> None:
    """Write tensors and plain values atomically, for `read_tensors`; UserError if they cannot be written."""
    with replacing(path) as temporary:
        try:
            with open(temporary, 'wb') as file:  # torch would store the name of a file that it opens
                torch.save(content, file)
        except RuntimeError as error:  # torch hides the system's error, such as a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise UserError(f'cannot write {path}: {str(error).splitlines()[0]}') from None


def read_tensors(path: str | Path):
    """Read tensors and plain values that torch.save wrote; UserError if the file is missing, corrupt or malicious."""
    try:
        check_regular(path)
        with torch.serialization.safe_globals(_numpy_numbers()):
            return _bounded(torch.load(_uncompressed(path), map_location='cpu', weights_only=True))
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f'{path}: no such file') from None
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from None
    except pickle.UnpicklingError as error:
        unsafe = re.search(r'GLOBAL (\S+)', str(error))
        reason = f'it holds {unsafe[1]}, which could run code' if unsafe else 'corrupt, or of unknown types'
        raise UserError(f'{path}: not a checkpoint ({reason})') from None
    except Exception as error:  # torch.load raises many kinds on a broken file
        reason = first_line(error)
        raise UserError(f'{path}: not a checkpoint, or a corrupt one ({reason[:200]})') from None


def _uncompressed(path: str | Path) -> str | Path:
    """Return the path; ValueError if the file unpacks to more than its size: torch.save does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > os.path.getsize(path):
            raise ValueError(f'it unpacks to {unpacked} bytes')
    return path


def _bounded(content):
    """Return the content of a file; ValueError if it claims more than the file holds, or is nested too deeply.

    A malicious file can declare a tensor larger than its data, or a list that contains itself or the same list many
    times.
    """
    count, waiting = 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        inside = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
        if isinstance(inside, (list, tuple, set)):
            count += len(inside)
            if count > MOST_VALUES or depth == DEEPEST:
                raise ValueError(f'more than {MOST_VALUES} values, or more than {DEEPEST} in one another')
            waiting.extend((item, depth + 1) for item in inside)
        elif isinstance(value, torch.Tensor) and (
                value.layout != torch.strided or value.device.type != 'cpu' or value.is_quantized
                or value.numel() * value.element_size() > value.untyped_storage().nbytes()):
            raise ValueError('a tensor that is not stored in full')
    return content


def _numpy_numbers() -> list:
    """Return the types that unpickling numpy's numbers and arrays needs, none of which runs code.

    The original package stored k and b as numpy numbers.
    """
    array = np.array(0.).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names = [(array, '_reconstruct'), (scalar, 'scalar')]
    old_and_new = [(function, f'{module}.multiarray.{name}') for function, name in names
                   for module in ('numpy.core', 'numpy._core')]
    return [*old_and_new, np.ndarray, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType,
            np.dtypes.Int64DType]


def checksum(content) -> int:
    """Return a CRC-32 of tensors and plain values, nested in dictionaries and lists."""
    if isinstance(content, torch.Tensor):
        data = content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return zlib.crc32(data, zlib.crc32(f'{content.dtype}{tuple(content.shape)}'.encode()))
    if isinstance(content, Mapping):
        content = [item for pair in content.items() for item in pair]
    if isinstance(content, (list, tuple)):
        return zlib.crc32(','.join(str(checksum(item)) for item in content).encode())
    return zlib.crc32(repr(content).encode())


# Reading a checkpoint

def _mos(value) -> dict:
    mos = fields(values=lambda values: values, min=number, max=number, higher_is_better=flag)(value)
    values = mos['values']
    if not isinstance(values, torch.Tensor) or values.ndim != 1 or not torch.isfinite(values).all():
        raise ValueError('values that are a vector of finite numbers')
    if mos['min'] > mos['max']:
        raise ValueError('a min that is not above max')
    return {**mos, 'values': values.double().clamp(-LARGEST, LARGEST).sort().values}


def _split(value) -> dict[str, list[str]]:
    split = dict_of(lambda names: [text(name) for name in names])(value)
    if not set(split) <= set(PARTS):
        raise ValueError(f'the parts {", ".join(PARTS)}')
    return split


def _interval(value) -> list[float]:
    ends = list_of(number)(value)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError('the two ends of an interval')
    return ends


def _preprocessing(value) -> dict:
    checks = {'resize': optional(size), 'first_resize': optional(size), 'filter': text, 'fit': text}
    if not isinstance(value, Mapping) or not set(value) <= set(checks):
        raise ValueError(f'a dictionary of {", ".join(checks)}')
    return {key: checks[key](one) for key, one in value.items()}


def _sets(value) -> dict[str, dict]:
    sets = dict_of(lambda one: {key: CHECKS[key](dict_of(lambda part: part)(one)[key]) for key in OF_SET if key in one}
                   )(value)
    if len(sets) < 2 or not all({'k', 'b'} <= set(one) and len(one['k']) == len(one['b']) for one in sets.values()):
        raise ValueError('k and b, of the same length, of several data sets')
    return sets


OF_SET = ('k', 'b', 'split', 'target', 'mos', 'metrics', 'intervals')
CHECKS: dict[str, Callable] = {
    'model': tensors, 'k': list_of(number), 'b': list_of(number),
    'network': fields(name=text, options=dict_of(plain)),
    'input': fields(preprocessing=_preprocessing, normalise=text),
    'crops': fields(count=whole, size=size, places=text),
    'target': fields(shift=number, scale=number), 'head': whole,
    'options': dict_of(plain), 'dataset': text, 'split': _split, 'split_hash': text, 'mos': _mos, 'epoch': whole,
    'metrics': dict_of(dict_of(plain)), 'intervals': dict_of(dict_of(_interval)), 'finished': flag,
    'versions': dict_of(text),
    'calibration': dict_of(plain), 'mapping': fields(name=text, parameters=list_of(number)),
    'preprocessing': _preprocessing, 'sets': _sets,
}
OF_FORMAT_1 = {'architecture': text, 'pool': text, 'use_bn_end': flag, 'P6': whole, 'P7': whole}


def load_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint of this project or of the original package (keys model, optimizer, amp, k, b).

    `path`: a file, or a published model: its folder, or hf-hub:USER/NAME (iqa_runtime/published.py).

    Returns the keys that the module describes, each value checked; of the original package only model, k and b. Nothing
    in the file is executed. Raises UserError that names the file and the key.
    """
    content = read_content(path)
    checkpoint = check_checkpoint(content, path)
    if is_published(path) and not {'network', 'input'} <= set(content):
        raise UserError(f'{path}: its config lacks the network or the input; expected one of linearity-iqa publish')
    return checkpoint


def read_content(path: str | Path):
    """Read a published model, or a file of tensors and plain values, unchecked; UserError if it cannot be read."""
    return read_published(path) if is_published(path) else read_tensors(path)


def of_set(checkpoint: Mapping, name: str) -> dict:
    """Return a checkpoint as that of one of the data sets that it was trained on; one of a single set as it is."""
    if 'sets' not in checkpoint:
        return dict(checkpoint)
    rest = {key: value for key, value in checkpoint.items() if key != 'sets' and key not in OF_SET}
    return {**rest, **checkpoint['sets'][name], 'dataset': name}


def sets_in(checkpoint: Mapping) -> dict[str, dict]:
    """Return name -> the checkpoint as that of this data set (see `of_set`); of a single set, {'': the checkpoint}."""
    return {name: of_set(checkpoint, name) for name in checkpoint.get('sets', [''])}


def check_checkpoint(content, path: str | Path) -> dict:
    """Check every value of a checkpoint and return it in format 2; raises as `load_checkpoint` does."""
    form = checked_value(path, 'format', whole, content.get('format', 1)) if isinstance(content, dict) else 1
    if form > FORMAT:
        raise UserError(f'{path}: written by a newer version (format {form}, this one reads {FORMAT})')
    if not isinstance(content, dict) or not {'model', 'k', 'b'} <= set(content):
        found = [str(key)[:40] for key in list(content)[:5]] if isinstance(content, dict) else type(content).__name__
        raise UserError(f'{path}: not a checkpoint of LinearityIQA: expected the keys model, k and b, found {found}')
    checkpoint = {key: checked_value(path, key, check, content[key]) for key, check in CHECKS.items() if key in content}
    if len(checkpoint['k']) != len(checkpoint['b']):
        raise UserError(f'{path}: k has {len(checkpoint["k"])} values and b {len(checkpoint["b"])}')
    for name, one in checkpoint.get('sets', {}).items():
        if len(one['k']) != len(checkpoint['k']):
            raise UserError(f'{path}: sets: {one_line(name)}: k has {len(one["k"])} values, expected '
                            f'{len(checkpoint["k"])}')
    return _as_format_2(checkpoint, path)


def _as_format_2(checkpoint: dict, path: str | Path) -> dict:
    options, metrics = checkpoint.get('options', {}), checkpoint.get('metrics', {})
    if 'network' not in checkpoint and 'architecture' in options:
        network = {name: checked_value(path, f'options: {name}', check, options[name])
                   for name, check in OF_FORMAT_1.items() if name in options}
        checkpoint['network'] = {'name': network.pop('architecture'), 'options': network}
    if 'preprocessing' in checkpoint:
        checkpoint.setdefault('input', {'preprocessing': checkpoint.pop('preprocessing'), 'normalise': 'imagenet'})
        checkpoint.setdefault('finished', 'test' in metrics)
    return checkpoint


def load_weights(model: torch.nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Load the checkpoint's weights into the network, strictly; UserError if they belong to another network."""
    try:
        model.load_state_dict(checkpoint['model'])
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(f'{path}: the weights are not those of this network, check --architecture, --pool, --P6, --P7, '
                        f'--use_bn_end ({lines[min(1, len(lines) - 1)].strip()[:200]})') from None
    checked_value(path, 'model', tensors, model.state_dict())  # a float64 number can overflow in the network's float32
