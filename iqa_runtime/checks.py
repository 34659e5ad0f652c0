"""Validate values read from files: return the converted value, or raise ValueError naming the expected form."""
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iqa_runtime.errors import UserError

if TYPE_CHECKING:  # torch is slow to import, and most checks do without
    import torch

LARGEST = 1e100  # largest measured or fitted number; products of larger ones overflow


def checked_value(path: str | Path, key: str, check: Callable, value):
    """Return check(value); UserError that names the file, the key and the expected form."""
    try:
        return check(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f'{path}: {key}: expected {str(error)[:200]}') from None


def number(value) -> float:
    """Return a number of at most LARGEST as float, also numpy's and torch's numbers; ValueError otherwise."""
    if hasattr(value, 'item'):
        try:
            value = value.item()
        except (RuntimeError, ValueError):  # it has several elements
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError('a finite number')
    return float(value)


def whole(value) -> int:
    """Return a whole number of at least 0; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError('a whole number of at least 0')
    return value


def flag(value) -> bool:
    """Return True or False; ValueError otherwise."""
    if not isinstance(value, bool):
        raise ValueError('true or false')
    return value


def text(value) -> str:
    """Return a text; ValueError otherwise."""
    if not isinstance(value, str):
        raise ValueError('a text')
    return value


def line(value) -> str:
    """Return a text of one line that tables and terminals can display; ValueError otherwise."""
    if not text(value).isprintable():
        raise ValueError('a text of one line, without control characters and halves of others')
    return value


def file_name(value) -> str:
    """Return a text that is a file name without folders; ValueError otherwise."""
    if not isinstance(value, str) or not re.fullmatch(r'[\w.+=, -]{1,200}', value) or not value.strip('. '):
        raise ValueError('the name of a file, without folders')
    return value


def tensors(value) -> 'dict[str, torch.Tensor]':
    """Return a state dict; ValueError if the value is not a state dict, or contains NaN or infinity.

    Complex numbers, and those of 8 bits or fewer with a floating point, are refused: no network here has them.
    """
    import torch
    if not isinstance(value, Mapping) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()):
        raise ValueError('a dictionary of tensors')
    floating = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, tensor in value.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in floating:
            raise ValueError(f'numbers of 16, 32 or 64 bits, but {str(name)[:80]} has {tensor.dtype}')
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f'finite numbers, but {str(name)[:80]} contains NaN or infinity')
    return dict(value)


NOUNS = {number: 'a finite number', whole: 'a whole number', text: 'a text'}


def list_of(item: Callable) -> Callable[[object], list]:
    """Return a check of a non-empty list whose items pass `item`."""
    def check(value) -> list:
        if not isinstance(value, (list, tuple, np.ndarray)) or len(value) == 0:
            raise ValueError(f'a list, each item {NOUNS.get(item, "as documented")}')
        return [item(one) for one in value]
    return check


def dict_of(item: Callable) -> Callable[[object], dict]:
    """Return a check of a dictionary whose keys are texts and whose values pass `item`."""
    def check(value) -> dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError('a dictionary with texts as keys')
        return {key: item(one) for key, one in value.items()}
    return check


def fields(**checks: Callable) -> Callable[[object], dict]:
    """Return a check of a dictionary that has these keys; other keys are dropped."""
    def check(value) -> dict:
        lacks = sorted(set(checks) - set(value)) if isinstance(value, Mapping) else sorted(checks)
        if lacks:
            raise ValueError(f'a dictionary with {", ".join(checks)}')
        return {key: one(value[key]) for key, one in checks.items()}
    return check


def optional(item: Callable) -> Callable:
    """Return a check of None or a value that passes `item`."""
    return lambda value: None if value is None else item(value)


def plain(value):
    """Return a plain value: None, a text, a number, True, False, or a list or dictionary of these; else ValueError."""
    if isinstance(value, Mapping):
        return dict_of(plain)(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError('a plain value')
    if isinstance(value, int) and abs(value) >= 1 << 64:
        raise ValueError('whole numbers of 64 bits')
    return value


def json_text(value, **options) -> str:
    """Return a plain value as JSON; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_with_nulls(value), allow_nan=False, **options)


def _with_nulls(value):
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


LARGEST_IMAGE = 1 << 27  # pixels of the largest size that images may be resized to


def side(value) -> int:
    """Return a side in pixels, 1..32768; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 15:
        raise ValueError('a side in pixels')
    return value


def size(value) -> tuple[int, int]:
    """Return (h, w) in pixels; ValueError otherwise."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError('height and width')
    h, w = side(value[0]), side(value[1])
    if h * w > LARGEST_IMAGE:
        raise ValueError(f'at most {LARGEST_IMAGE} pixels')
    return h, w
