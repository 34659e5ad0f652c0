"""Read YAML files: plain values, no key twice."""
from collections.abc import Callable
from pathlib import Path

from iqa_runtime.errors import UserError, needed
from iqa_runtime.files import read_text

LARGEST = 1 << 18  # bytes


def read_yaml(path: str | Path):
    """Return the content of a YAML file; UserError if it is no YAML, or holds anything but plain values."""
    yaml = needed('yaml', 'pyyaml', f'{path}: reading YAML')
    text = read_text(path, LARGEST)
    try:
        loader = yaml.SafeLoader(text)
        _check_keys(yaml.compose(text, yaml.SafeLoader), set(), loader.construct_object)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = f' line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UserError(f'{path}{place}: no YAML: {error.problem}') from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: no YAML: {str(error)[:200]}') from None


def _check_keys(node, seen: set[int], value_of: Callable) -> None:
    """Raise ValueError if two keys of a mapping are equal, as `yes` and `true`: YAML would silently take the last."""
    if not isinstance(getattr(node, 'value', None), list) or id(node) in seen:
        return
    seen.add(id(node))
    keys = set()
    for item in node.value:
        for child in item if isinstance(item, tuple) else (item,):
            _check_keys(child, seen, value_of)
        if isinstance(item, tuple) and isinstance(item[0].value, str):
            key = '<<' if item[0].tag.endswith(':merge') else value_of(item[0])
            if key in keys:
                raise ValueError(f'the key {item[0].value!r} twice (line {item[0].start_mark.line + 1})')
            keys.add(key)
