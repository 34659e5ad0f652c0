"""The losses: their table, and sums of them. A family of losses is a file; IQAloss.py holds those of the paper.

A loss is a plain function of predictions and MOS under the decorator `loss`, which makes it a row of LOSSES, and those
of its parameters that are options flags of the command line (see iqa_runtime/variants.py).
"""
import math
from collections.abc import Callable, Mapping

from iqa_runtime.errors import UserError, pick
from iqa_runtime.variants import Variants

ALIASES = {'Lp': 'norm-in-norm'}  # the original's older name


def terms_of(loss_type: str) -> dict[str, float]:
    """Return name -> weight of the losses in a sum, in its order; one loss is a sum of weight 1.

    >>> terms_of('mse+plcc:.5')
    {'mse': 1.0, 'plcc': 0.5}

    Raises UserError for a name that is not in LOSSES, or is there twice, and for a weight that is not above 0.
    """
    terms = {}
    for term in loss_type.split('+'):
        name, _, text = term.partition(':')
        name = pick([*LOSSES, *ALIASES], name.strip(), 'loss')
        name = ALIASES.get(name, name)
        if name in terms:
            raise UserError(f'loss {loss_type!r}: {name} is in the sum twice')
        terms[name] = _weight(text, term) if ':' in term else 1.
    return terms


def _weight(text: str, term: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(f'loss {term!r}: the weight {text!r} is no finite number above 0')
    return weight


def loss_type(text: str) -> str:
    """Return a sum of losses in its one spelling, as 'mse+plcc:0.5'; UserError as `terms_of`."""
    return '+'.join(name if weight == 1 else f'{name}:{weight!r}' for name, weight in terms_of(text).items())


def chosen(options: Mapping) -> list[str]:
    """Return the names of the losses that the options of a command add up."""
    return [*terms_of(options['loss_type']), *(['monotonicity'] if options['monotonicity_regularization'] else [])]


LOSSES = Variants('loss_type', 'loss', ['IQAloss.py', 'iqa_losses/*.py'], chosen=chosen)


def loss(*names: str, **given) -> Callable[[Callable], Callable]:
    """Decorate a loss: `function(y_pred, y, ...)` of (N, 1) float32 or float64 tensors, which returns a scalar.

    The decorated function takes (N,) too, of any type, computes in float32 at least, without autocast, and raises
    ValueError if the numbers of predictions and MOS differ.

    Args:
        names: of the rows of LOSSES that it becomes.
        given: values of its parameters in these rows.
    """
    def decorate(function: Callable) -> Callable:
        from iqa_losses.tensors import of_columns  # it imports torch
        return LOSSES.register(*names, **given)(of_columns(function))
    return decorate
