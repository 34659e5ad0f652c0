"""Multiply out the grids of a study: labels and options of every combination of values."""
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product

from iqa_runtime.errors import UserError
from iqa_runtime.option_values import shown
from iqa_studies.steps import SPELLINGS, Given, a_list, mapping, options_in

Axis = list[tuple[str, Given]]  # label and options of each value


def axes_of(grid: object, where: str, allowed: Collection[str]) -> list[Axis]:
    """Return the axes of a grid; UserError if a value is not as on the command line, or not `allowed`.

    Args:
        grid: option -> values, option -> {label: value}, or a name of one's own -> {label: options}.
        where: the file and the key, for error messages.
        allowed: names of the options that may be given.
    """
    axes = {name: axis_of(name, values, where, allowed) for name, values in mapping(grid or {}, where).items()}
    for name in (name for name, axis in axes.items() if not axis):
        raise UserError(f'{where}: {name}: expected at least one value')
    return list(axes.values())


def axis_of(name: str, values: object, where: str, allowed: Collection[str]) -> Axis:
    """Return the label and the options of each value of an axis."""
    if not isinstance(values, dict):
        return [(f'{name} {in_full(value)}', options_in({name: value}, where, allowed))
                for value in a_list(values, f'{where}: {name}')]
    named = mapping(values, f'{where}: {name}')
    if name in SPELLINGS:
        return [(label, options_in({name: value}, where, allowed)) for label, value in named.items()]
    return [(label, options_in(value or '', f'{where}: {name}: {label}', allowed)) for label, value in named.items()]


def labelled(axes: Collection[Axis]) -> Iterator[tuple[str, dict]]:
    """Yield the label and the options of every combination of the values of axes; none without axes."""
    for chosen in product(*axes) if axes else ():
        yield ', '.join(label for label, _ in chosen), {name: one for _, given in chosen for name, one in given.items()}


def settings_of(settings: Mapping, axes: Collection[Axis], where: str, allowed: Collection[str]
                ) -> Iterator[tuple[str, dict]]:
    """Yield the label and the options of every setting, with every combination of values, whose options win."""
    for label, value in settings.items():
        own = options_in(value or '', f'{where}: {label}', allowed)
        varied = [(f'{label}, {mark}', {**own, **options}) for mark, options in labelled(axes)]
        yield from varied if axes else [(label, own)]


def unique(items: Iterable[tuple[str, object]], where: str) -> dict:
    """Return pairs as a dictionary; UserError if a label comes twice."""
    found = {}
    for label, value in items:
        if label in found:
            raise UserError(f'{where}: {label!r} twice')
        found[label] = value
    return found


def in_full(value) -> str:
    """Return the value of an option as it is typed, a number with all its digits."""
    values = value if isinstance(value, list) else [value]
    return ' '.join(repr(one) if isinstance(one, float) and float(shown(one)) != one else shown(one) for one in values)
