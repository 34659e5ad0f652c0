"""Read YAML files safely: plain values only, limited in size, without duplicate keys."""
from collections.abc import Callable
from pathlib import Path

from iqa_runtime.errors import UserError, needed
from iqa_runtime.files import read_text

LARGEST = 1 << 18  # bytes of a file, and characters of its content with aliases written out


def read_yaml(path: str | Path):
    """Return the content of a YAML file; UserError if it is not YAML, or contains other than plain values."""
    yaml = needed('yaml', 'pyyaml', f'{path}: reading YAML')
    text = read_text(path, LARGEST)
    try:
        loader = yaml.SafeLoader(text)
        _check(yaml.compose(text, yaml.SafeLoader), {}, loader.construct_object)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = f' line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UserError(f'{path}{place}: no YAML: {error.problem}') from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: no YAML: {str(error)[:200]}') from None


def _check(node, sizes: dict[int, int], value_of: Callable) -> int:
    """Return the number of characters of a node with its aliases written out.

    Raises ValueError if they are more than LARGEST, as in a node that contains itself, or if two keys of a mapping are
    equal, such as `yes` and `true`: YAML would silently take the last.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if not isinstance(getattr(node, 'value', None), list):
        return 1 + len(getattr(node, 'value', ''))
    sizes[id(node)] = LARGEST  # until it is known
    keys, size = set(), 1
    for item in node.value:
        size += sum(_check(child, sizes, value_of) for child in (item if isinstance(item, tuple) else (item,)))
        if size > LARGEST:
            raise ValueError(f'with its aliases written out, it has more than {LARGEST} characters')
        if isinstance(item, tuple) and isinstance(item[0].value, str):
            key = '<<' if item[0].tag.endswith(':merge') else value_of(item[0])
            if key in keys:
                raise ValueError(f'the key {item[0].value!r} twice (line {item[0].start_mark.line + 1})')
            keys.add(key)
    sizes[id(node)] = size
    return size
