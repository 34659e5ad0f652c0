"""Find and read recipes: files of training options, which the options on the command line override.

A recipe is recipes/NAME.txt, another text file of option words with # comments, or the options.json of a run.
"""
import difflib
import os
import shlex
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_runtime.files import ROOT, read_json, read_text

FOLDER = ROOT / 'recipes'
NAMES_OF_A_RUN = ('run_name', 'split_hash')  # keys of an options.json that are not options


def recipe_file(name: str) -> Path:
    """Return the file of a recipe: recipes/NAME.txt, or `name` as a path. UserError if neither exists."""
    inside = FOLDER / f'{name}.txt'
    if os.path.basename(name) == name and inside.is_file():
        return inside
    if Path(name).is_file():
        return Path(name)
    names = sorted(path.stem for path in FOLDER.glob('*.txt'))
    near = difflib.get_close_matches(name, names, n=1, cutoff=.5)
    hint = f' (did you mean {near[0]}?)' if near else ''
    raise UserError(f'--recipe {name}: no such recipe or file{hint}; recipes: {", ".join(names)}')


def words_in(path: Path) -> list[str]:
    """Return the option words in a text file; UserError if a quotation mark is not closed."""
    try:
        return [word for line in read_text(path).splitlines() for word in shlex.split(line, comments=True)]
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: {error}') from None


def options_of_run(path: Path) -> dict:
    """Return the options of training in the options.json of a run, by name."""
    def check(content) -> dict:
        if not isinstance(content, dict):
            raise ValueError('a dictionary')
        return {name: value for name, value in content.items() if name not in NAMES_OF_A_RUN}
    return read_json(path, check, 'the options of a run, as options.json holds them')


def recipes_listed() -> str:
    """Return the list of recipes, a line each: its name and its first comment."""
    lines = []
    for path in sorted(FOLDER.glob('*.txt')):
        comments = [line.lstrip('# ') for line in read_text(path).splitlines() if line.startswith('#')]
        lines.append(f'{path.stem:26}{comments[0] if comments else ""}\n')
    return ''.join(lines)
