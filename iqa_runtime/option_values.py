"""Values of options: those that a file stores are checked as if they were typed, and any are written as typed."""
import argparse
from collections.abc import Mapping


class Joined(argparse.Action):
    """Stores the words of an option as one text, with + between them."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, '+'.join(values))


def checked(action: argparse.Action, default, value):
    """Return a stored value of an option, converted, if the command line accepts it; ValueError otherwise."""
    if value is None:
        return default  # earlier versions had no default for some options
    if isinstance(default, bool) or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ValueError(f'{_brief(value)} is neither true nor false')
        return value
    if isinstance(action, Joined):
        values = value if isinstance(value, (list, tuple)) and value else [value]
        return '+'.join(_checked_item(action, item) for item in values)
    many = action.nargs is not None and action.nargs != '?'
    if many != isinstance(value, (list, tuple)):
        raise ValueError(f'{_brief(value)} is not {"a list" if many else "a single value"}')
    if isinstance(action.nargs, int) and len(value) != action.nargs:
        raise ValueError(f'{_brief(value)}: expected {action.nargs} values')
    items = [_checked_item(action, item) for item in (value if many else [value])]
    return items if many else items[0]


def _checked_item(action: argparse.Action, item):
    if isinstance(item, bool) or not isinstance(item, (str, int, float)):
        raise ValueError(f'{_brief(item)} is neither a number nor a text')
    text = item if isinstance(item, str) else f'{item!r}'
    value = action.type(text) if action.type else text
    if action.choices is not None and value not in action.choices:
        raise ValueError(f'{_brief(item)} is none of: {", ".join(map(str, action.choices))}')
    if action.type is None and not isinstance(item, str):
        raise ValueError(f'{_brief(item)} is not a text')
    return value


def _brief(value) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None), list, tuple)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + '...'


def shown(value) -> str:
    """Return the value of an option as it is typed."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return ' '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in values)


def words_of(options: Mapping) -> list[str]:
    """Return options, name -> value, as the words of a command line."""
    words = []
    for name, value in options.items():
        if value is None:
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [] if isinstance(value, bool) else [value]
        words += [f'--no-{name}' if value is False else f'--{name}', *map(str, values)]
    return words
