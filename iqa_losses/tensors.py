"""Convert the arguments of losses: predictions and MOS become (N, 1) tensors in float32 or float64."""
import inspect
from collections.abc import Callable, Collection
from functools import wraps

import torch
from torch import Tensor

from iqa_runtime.option_types import flags_in

SHORT = {'y': 'MOS'}  # names of inputs in messages


def wide(values: Tensor) -> Tensor:
    """Convert half-precision values to float32; return other values unchanged.

    In half precision, small constants underflow to 0 and sums overflow.

    >>> wide(torch.tensor([1.], dtype=torch.float16)).dtype
    torch.float32

    Args:
        values: a tensor of any shape and floating type.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def in_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a function of tensors so that it computes in float32 or float64, without autocast.

    Args:
        function: takes tensors and other options, and returns a tensor.
    """
    @wraps(function)
    def computed(*tensors, **options) -> Tensor:
        tensors = [wide(one) if isinstance(one, Tensor) else one for one in tensors]
        options = {name: wide(one) if isinstance(one, Tensor) else one for name, one in options.items()}
        device = next(one.device.type for one in (*tensors, *options.values()) if isinstance(one, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*tensors, **options)
    return computed


def of_columns(loss: Callable[..., Tensor], inputs: Collection[str], tables: Collection[str] = ()
               ) -> Callable[..., Tensor]:
    """Decorate a loss so that its inputs are checked and shaped by `columns`, and computed by `in_float32`.

    Options are checked as on the command line: UserError, a ValueError, if one is out of range.

    Args:
        loss: takes predictions (N, 1), MOS (N, 1), other inputs and options, and returns a scalar.
        inputs: names of its parameters that are tensors.
        tables: those of them that are (N, K), not columns.
    """
    names, flags = list(inspect.signature(loss).parameters), flags_in(loss)

    @wraps(loss)
    def computed(*arguments, **options) -> Tensor:
        given = dict(zip(names, arguments, strict=False)) | options
        tensors = {name: value for name, value in given.items() if name in inputs}
        first, *others = tensors
        for name in others:
            shaped = histograms if name in tables else columns
            given[first], given[name] = shaped(tensors[first], tensors[name], SHORT.get(name, name))
        for name, flag in flags.items():
            flag.check(name, given.get(name))
        return in_float32(loss)(**given)
    return computed


def columns(y_pred: Tensor, y: Tensor, what: str = 'MOS') -> tuple[Tensor, Tensor]:
    """Return predictions and MOS as (N, 1); ValueError that names both shapes if they are not (N,) or (N, 1).

    >>> [column.shape for column in columns(torch.ones(3), torch.ones(3, 1))]
    [torch.Size([3, 1]), torch.Size([3, 1])]

    Args:
        y_pred: predictions, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,), of the same length.
        what: name of `y` in the error.
    """
    shapes = tuple(y_pred.shape), tuple(y.shape)
    if any(len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) for shape in shapes) \
            or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
        raise ValueError(f'predictions {shapes[0]} and {what} {shapes[1]}: expected (N, 1) or (N,), of the same N, at '
                         'least 1')
    return y_pred.reshape(-1, 1), y.reshape(-1, 1)


def histograms(logits: Tensor, ratings: Tensor, what: str = 'ratings') -> tuple[Tensor, Tensor]:
    """Check that outputs and ratings have one shape (N, K), and return them; ValueError names both shapes otherwise.

    >>> [table.shape for table in histograms(torch.ones(3, 5), torch.ones(3, 5))]
    [torch.Size([3, 5]), torch.Size([3, 5])]

    Args:
        logits: outputs of a histogram head, (N, K).
        ratings: shares of the ratings, (N, K).
        what: name of `ratings` in the error.
    """
    if logits.shape != ratings.shape or logits.ndim != 2 or not logits.numel():
        raise ValueError(f'logits {tuple(logits.shape)} and {what} {tuple(ratings.shape)}: expected (N, K), alike')
    return logits, ratings
