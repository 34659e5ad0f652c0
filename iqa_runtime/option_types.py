"""Types of options: convert and check the numbers, names and devices that the command line's options take."""
import argparse
import importlib
import inspect
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from iqa_runtime.errors import UserError, first_line, pick


def number(kind: type, low: float, high: float = math.inf, open_low: bool = False,
           open_high: bool = False) -> Callable[[str], float]:
    """Return an argparse type for a finite number in low..high (`open_low`: above low, `open_high`: below high)."""
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not {"a whole" if kind is int else "a"} number') from None
        outside = not low <= value <= high or (open_low and value == low) or (open_high and value == high)
        if outside or not math.isfinite(value):
            limits = f'{"above" if open_low else "at least"} {low}'
            limits += f', {"below" if open_high else "at most"} {high}' if high < math.inf else ''
            raise argparse.ArgumentTypeError(f'{text} is out of range: {limits}')
        return value
    return parse


MOST = 10 ** 9  # a larger count is a typing error
count = number(int, 1, MOST)
whole = number(int, 0, MOST)
seed = number(int, 0, 2 ** 64 - 1)
positive = number(float, 0, 1e9, open_low=True)
weight = number(float, 0, 1e9)
share = number(float, 0, 1)


def choice(table: Collection[str] | str, what: str,
           aliases: Mapping[str, str] | str | None = None) -> Callable[[str], str]:
    """Return an argparse type for a name in a table (see errors.pick) or an alias; an error lists the nearest name.

    Args:
        table: the names, or 'module:TABLE', which is imported when a name is checked.
        what: noun for the name, for the error message.
        aliases: other spellings -> name, or 'module:TABLE'.
    """
    def parse(text: str) -> str:
        names = look_up(table) if isinstance(table, str) else table
        others = look_up(aliases) if isinstance(aliases, str) else aliases or {}
        try:
            name = pick([*names, *others], text, what)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return others.get(name, name)
    return parse


def named(place: str) -> Callable[[str], str]:
    """Return an argparse type that calls the function 'module:NAME', which is imported at the first call."""
    def parse(text: str) -> str:
        try:
            return look_up(place)(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return parse


def among(names: Collection[str]) -> str:
    """Return the metavar of an option that takes one of a few names, such as {avg,max}."""
    return f'{{{",".join(names)}}}'


def look_up(place: str):
    """Return the object that 'module:NAME' names."""
    module, name = place.split(':')
    return getattr(importlib.import_module(module), name)


def device(text: str) -> str:
    """Return the text if it names a device on which this machine can compute: an argparse type."""
    import torch  # slow to import, and needed only if a device is named
    try:
        kind = torch.device(text).type
        if kind == 'meta':
            raise RuntimeError('it computes nothing')
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = first_line(error)
        raise argparse.ArgumentTypeError(f'{text!r} is not a device of this machine ({reason})') from None
    return text


# Types of the parameters that are options (see iqa_runtime/variants.py): the Python type, and its Flag

@dataclass(frozen=True)
class Flag:
    """How the words of an option are read: `type`, `nargs` and `metavar` as argparse's add_argument takes them."""

    type: Callable[[str], object] | None = None  # None: a switch, without a word
    nargs: int | str | None = None
    metavar: str | tuple[str, ...] | None = None

    def arguments(self, default) -> dict:
        """Return the arguments for argparse's add_argument; a switch that is on by default gets a --no- form."""
        if self.type is None:
            return {'action': 'store_true' if default is False else argparse.BooleanOptionalAction}
        return {'type': self.type, 'nargs': self.nargs, **({'metavar': self.metavar} if self.metavar else {})}

    def check(self, name: str, value) -> None:
        """Raise UserError if the number or text that Python code gives the option is refused on the command line.

        Other values, as None, networks and tensors, are not checked.
        """
        several = bool(self.nargs) and isinstance(value, Sequence)
        if several and isinstance(self.nargs, int) and len(value) != self.nargs:
            raise UserError(f'{name} {value}: expected {self.nargs} values')
        for one in value if several else [value]:
            if self.type and isinstance(one, (int, float, str)):
                try:
                    self.type(str(one))
                except argparse.ArgumentTypeError as error:
                    raise UserError(f'{name}: {error}') from None


def flags_in(function: Callable) -> dict[str, Flag]:
    """Return the Flags of those parameters of a function that are options, by name."""
    flags = {name: flag_of(one.annotation) for name, one in inspect.signature(function).parameters.items()}
    return {name: flag for name, flag in flags.items() if flag}


def flag_of(annotation) -> Flag | None:
    """Return the Flag of a parameter's annotation: `bool` or a type below, each also with `| None`; else None."""
    if annotation is bool:
        return Flag()
    if get_origin(annotation) is Annotated:
        return next((one for one in annotation.__metadata__ if isinstance(one, Flag)), None)
    if get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(flag_of, get_args(annotation))), None)
    return None


Count = Annotated[int, Flag(count)]
Whole = Annotated[int, Flag(whole)]
Positive = Annotated[float, Flag(positive)]
Weight = Annotated[float, Flag(weight)]
Share = Annotated[float, Flag(share)]
Decay = Annotated[float, Flag(number(float, 0, 1, open_low=True))]
Degrees = Annotated[float, Flag(number(float, 0, 180))]
Exponent = Annotated[float, Flag(number(float, .05, 100))]
TwoWeights = Annotated[Sequence[float], Flag(weight, 2, ('A0', 'A1'))]
Epochs = Annotated[Sequence[int], Flag(count, '+', 'EPOCH')]
Side = Annotated[int, Flag(number(int, 1, 1 << 15))]
Levels = Annotated[int, Flag(number(int, 1, 64))]
Blocks = Annotated[int, Flag(number(int, 0, 64))]
Channels = Annotated[int, Flag(number(int, 1, 1 << 14))]
TenChannels = Annotated[Sequence[int], Flag(number(int, 1, 1 << 14), 10, 'N')]
FourKernels = Annotated[Sequence[int], Flag(number(int, 1, 64), 4, 'K')]
RankerFile = Annotated[Any, Flag(str, metavar='FILE')]
PoolName = Annotated[str, Flag(choice('IQAmodel:POOLS', 'pool'))]
BackboneName = Annotated[str, Flag(named('iqa_networks.hyperiqa:backbone_name'))]
SoftRanks = Annotated[str, Flag(choice('iqa_losses.soft_ranks:SOFT_RANKS', 'soft ranks'))]
RatesName = Annotated[str, Flag(choice('iqa_training.schedules:HYPERIQA_RATES', 'variant of rates'))]
