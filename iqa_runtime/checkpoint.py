"""Checkpoints that say how they were made, so that scoring needs no other option.

A checkpoint is a dictionary of tensors and plain Python values, written whole and loaded with weights_only=True:

    format         1
    model          the network's state dict
    k, b           lists: MOS = k raw + b, for the final head, level 6, level 7
    options        every option of training, by name
    dataset        the name of the data set that it was trained on
    split          {'train', 'val', 'test'} -> file names
    split_hash     16 hexadecimal digits of it (IQAsplits)
    preprocessing  {'resize', 'first_resize'} -> (h, w) or None
    mos            of the training images: 'values' (sorted, float32), 'min', 'max', 'higher_is_better'
    epoch          the epoch of these weights
    metrics        {'val': ..., 'test': ...} -> criteria; 'test' only once training has ended
    versions       of the packages

One that test_demo.py --calibrate made has the ratings in 'mos', and besides:

    calibration    'kind', 'images', and the criteria 'before', 'fitted', 'leave-one-out'
    mapping        where it is a curve: its 'name' and 'parameters' (see scorer.MAPPINGS), instead of k[0], b[0]
"""
import pickle
import platform
import re
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision

from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing

FORMAT = 1


def versions() -> dict[str, str]:
    """The versions of what computes the numbers."""
    return {'python': platform.python_version(), 'torch': str(torch.__version__),
            'torchvision': torchvision.__version__,
            'numpy': np.__version__, 'pillow': PIL.__version__}


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write a checkpoint, whole or not at all; UserError where it cannot be written."""
    write_tensors(path, {'format': FORMAT, 'versions': versions(), **checkpoint})


def write_tensors(path: str | Path, content: dict) -> None:
    """Write what `read` reads, whole or not at all; UserError where it cannot be written."""
    with replacing(path) as temporary:
        try:
            with open(temporary, 'wb') as file:  # an open file: its name is not stored
                torch.save(content, file)
        except RuntimeError as error:  # how torch tells that the disk is full
            raise UserError(f'cannot write {path}: {str(error).splitlines()[0]}') from error


def load_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint of this project or of the original package (keys model, optimizer, amp, k, b).

    Nothing in the file is executed. Raises UserError that says what is wrong with it.
    """
    checkpoint = read_tensors(path)
    if not isinstance(checkpoint, dict) or not {'model', 'k', 'b'} <= set(checkpoint):
        found = list(checkpoint)[:5] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise UserError(f'{path}: not a checkpoint of LinearityIQA: expected the keys model, k and b, found {found}')
    if checkpoint.get('format', FORMAT) > FORMAT:
        raise UserError(f'{path}: written by a newer version (format {checkpoint["format"]}, this one reads {FORMAT})')
    checkpoint['k'], checkpoint['b'] = ([float(value) for value in checkpoint[name]] for name in ('k', 'b'))
    return checkpoint


def read_tensors(path: str | Path):
    """Read what torch.save wrote, tensors and plain values alone; UserError where it is missing, broken or hostile."""
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise UserError(f'{path}: no such checkpoint') from None
    except pickle.UnpicklingError as error:
        unsafe = re.search(r'GLOBAL (\S+)', str(error))
        reason = f'it holds {unsafe[1]}, which could run code' if unsafe else 'corrupt, or of unknown types'
        raise UserError(f'{path}: not a checkpoint ({reason})') from None
    except Exception as error:  # torch.load raises many kinds on a broken file
        raise UserError(f'{path}: not a checkpoint, or a corrupt one ({str(error).strip().splitlines()[0]})') from None


def _numpy_numbers() -> list:
    """What numpy's numbers and arrays are made of: the original package kept k and b as such. They hold no code."""
    array = np.array(0.).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    names = [(array, '_reconstruct'), (scalar, 'scalar')]
    old_and_new = [(function, f'{module}.multiarray.{name}') for function, name in names
                   for module in ('numpy.core', 'numpy._core')]
    return [*old_and_new, np.ndarray, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType,
            np.dtypes.Int64DType]


def load_weights(model: torch.nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Put the checkpoint's weights into the network, strictly; UserError where they are another network's."""
    try:
        model.load_state_dict(checkpoint['model'])
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(f'{path}: the weights are not those of this network, check --architecture, --pool, --P6, --P7, '
                        f'--use_bn_end ({lines[min(1, len(lines) - 1)].strip()[:200]})') from None


def find_file(folder: str, candidates: dict[str, str]) -> Path:
    """The first checkpoint that is there, of {data set: run name}; says where several are. UserError where none is."""
    paths = {dataset: Path(folder, f'{name}.pth') for dataset, name in candidates.items()}
    found = [dataset for dataset, path in paths.items() if path.exists()]
    if not found:
        wanted = ' or '.join(map(str, paths.values()))
        there = ', '.join(sorted(path.name for path in Path(folder).glob('*.pth'))[:5]) or 'none'
        raise UserError(f'no checkpoint of a run with these options: {wanted} (in the folder: {there}); '
                        'train it with main.py, or give --trained_model_file')
    for other in found[1:]:
        print(f'Trained on {found[0]}; there is one trained on {other} too: --trained_on {other}')
    return paths[found[0]]


def adopt(args, checkpoint: dict, path: str | Path, ignore: tuple[str, ...] = ()) -> None:
    """Take the options of training from the checkpoint into `args`; those of the original package have none.

    Raises UserError where the user gave one that conflicts, `ignore` aside.
    """
    for name, value in checkpoint.get('options', {}).items():
        if name in ignore:
            continue
        if name in args.given and getattr(args, name) != value:
            raise UserError(f'--{name} {getattr(args, name)} conflicts with {path}, which was trained with {value}: '
                            'leave the option out, or name another checkpoint')
        setattr(args, name, value)
