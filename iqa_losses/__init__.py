"""Collect the losses in the table LOSSES, and parse sums of losses.

Each family of losses has a file in iqa_losses/; IQAloss.py has the paper's losses.

A loss is a plain function of predictions and MOS under the decorator `loss`. The decorator adds it to LOSSES as
a row, and its optional parameters become flags of the command line (see iqa_runtime/variants.py). Its other parameters
are named by the keys of INPUTS.
"""
import inspect
import math
from collections.abc import Callable, Mapping

from iqa_runtime.errors import UserError, pick
from iqa_runtime.variants import Row, Variants

ALIASES = {'Lp': 'norm-in-norm'}  # the original's older name
INPUTS = {  # arguments of losses by the name of the parameter: (N, 1), except those in TABLES
    'y_pred': 'the predictions', 'y': 'the MOS', 'std': 'the standard deviations of the ratings (column std)',
    'interval': 'the confidence intervals of the MOS (columns std and votes, of 2 votes or more)',
    'flipped': 'the predictions of the mirrored images', 'log_variance': 'the output of a gaussian head',
    'logits': 'the outputs of a histogram head', 'ratings': 'the share of the ratings at each level'}
TABLES = {'logits', 'ratings'}  # (N, K)


def terms_of(loss_type: str) -> dict[str, float]:
    """Parse a sum of losses into name -> weight, in its order; a single loss has the weight 1.

    Raises UserError if a name is unknown or occurs twice, or if a weight is not a finite number above 0.

    >>> terms_of('mse+plcc:.5')
    {'mse': 1.0, 'plcc': 0.5}

    Args:
        loss_type: NAME or NAME:WEIGHT, several of them joined by +.
    """
    terms = {}
    for term in loss_type.split('+'):
        name, _, text = term.partition(':')
        name = pick([*LOSSES, *ALIASES], name.strip(), 'loss')
        name = ALIASES.get(name, name)
        if name in terms:
            raise UserError(f'loss {loss_type!r}: {name} occurs twice; expected each loss once')
        terms[name] = _weight(text, term) if ':' in term else 1.
    return terms


def _weight(text: str, term: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(f'loss {term!r}: the weight {text!r} is not a finite number above 0')
    return weight


def loss_type(text: str) -> str:
    """Return the canonical spelling of a sum of losses; raises as `terms_of` does.

    >>> loss_type('Lp+plcc:.50')
    'norm-in-norm+plcc:0.5'

    Args:
        text: a sum of losses, as `terms_of` takes it.
    """
    return '+'.join(name if weight == 1 else f'{name}:{weight!r}' for name, weight in terms_of(text).items())


def chosen(options: Mapping) -> list[str]:
    """Return the names of the losses that the options of a command select.

    >>> chosen({'loss_type': 'mse+plcc:.5', 'monotonicity_regularization': True})
    ['mse', 'plcc', 'monotonicity']

    Args:
        options: name -> value of the command's options.
    """
    return [*terms_of(options['loss_type']), *(['monotonicity'] if options['monotonicity_regularization'] else [])]


class Loss(Row):
    """A row of LOSSES: the function."""

    def needs(self) -> list[str]:
        """Return the names of INPUTS that the loss takes, in the order of its parameters."""
        parameters = inspect.signature(self.build).parameters.values()
        return [one.name for one in parameters if one.name in INPUTS]


LOSSES = Variants('loss_type', 'loss', ['IQAloss.py', 'iqa_losses/*.py'], Loss, chosen=chosen)


def loss(*names: str, **given) -> Callable[[Callable], Callable]:
    """Decorate a function `function(y_pred, y, ...)` of two (N, 1) tensors as a loss, and add it to LOSSES.

    The decorated function also takes (N,) tensors, of any floating type. It computes in float32 or float64, without
    autocast, and raises ValueError if its inputs differ in length.

    Args:
        names: names of its rows in LOSSES.
        given: values of its parameters in these rows.
    """
    def decorate(function: Callable) -> Callable:
        from iqa_losses.tensors import of_columns  # this imports torch
        return LOSSES.register(*names, **given)(of_columns(function, INPUTS, TABLES))
    return decorate
