"""Read the options of a study's runs, write them as words of main.py, and describe commands by the file they make."""
import shlex
from argparse import ArgumentTypeError
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_data import options as of_data
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError, pick
from iqa_runtime.files import ROOT
from iqa_runtime.option_values import words_of
from iqa_runtime.options import Options
from iqa_training.naming import checkpoint_file, log_name
from iqa_training.options import TRAIN

OF_RECIPES = TRAIN.names() - TRAIN.names(of_data.data, of_data.split)  # given by a recipe if the data are set
SPELLINGS = {word.lstrip('-'): name for name, action in TRAIN.actions.items() for word in action.option_strings}
TYPED = {'--architecture': '-arch', '--learning_rate': '-lr', '--batch_size': '-bs', '--epochs': '-e'}
Given = Mapping[str, object]  # options, name -> value


def mapping(value, where: str) -> dict[str, object]:
    """Return a mapping with its keys as strings; UserError if it is none, or if two keys are the same string."""
    if not isinstance(value, dict) or not all(isinstance(key, (str, int, float)) for key in value):
        raise UserError(f'{where}: expected name: value')
    found = {str(key): one for key, one in value.items()}
    if len(found) < len(value):
        twice = next(key for key in map(str, value) if list(map(str, value)).count(key) > 1)
        raise UserError(f'{where}: the name {twice!r} appears twice')
    return found


def a_list(value, where: str) -> list:
    """Return a list, or a single value as a list; UserError if a value is null."""
    values = value if isinstance(value, list) else [value]
    if None in values:
        raise UserError(f'{where}: expected a value or a list of values')
    return values


def options_in(value, where: str, allowed: Collection[str]) -> dict[str, object]:
    """Return the options in a string of words or a mapping, each checked as on the command line; `recipe` is a list."""
    if isinstance(value, str):
        with TRAIN.blaming(where):
            try:
                given = vars(TRAIN.parser.parse_args(shlex.split(value)))
            except ValueError as error:
                raise UserError(f'{where}: {error}') from None
    else:
        given = {}
        for key, one in mapping(value, where).items():
            name = 'recipe' if key == 'recipe' else SPELLINGS[pick(SPELLINGS, key, f'option ({where})')]
            try:
                given[name] = a_list(one, where) if name == 'recipe' else TRAIN.checked(name, one)
            except (ArgumentTypeError, ValueError) as error:
                raise UserError(f'{where}: the option {key!r}: {error}') from None
    for name in given:
        if name not in allowed:
            raise UserError(f'{where}: {name}: it is set for each run, and cannot be given here')
    return given


def merge_options(*layers: Given) -> dict[str, object]:
    """Merge layers of options, later ones winning, over those options of their recipes that have an effect."""
    of_recipes, given = {}, {}
    for recipe in (name for layer in layers for name in layer.get('recipe', ())):
        of_recipes |= {name: value for name, value in TRAIN.of_recipe(str(recipe)).items() if name in OF_RECIPES}
    for layer in layers:
        given |= layer
    unused = TRAIN.unused({**TRAIN.defaults, **of_recipes, **given}, TRAIN.groups)
    values = {name: value for name, value in of_recipes.items() if name not in unused} | given
    return {name: value for name, value in values.items() if name != 'recipe'}


def words_for(*layers: Given) -> list[str]:
    """Return options as words, later layers winning, without flags that are off and options without a value."""
    values = {name: value for layer in layers for name, value in layer.items()}
    off = {name for name, value in values.items() if value is None or value is TRAIN.defaults.get(name) is False}
    return words_of({name: value for name, value in values.items() if name not in off})


def typed(*layers: Given) -> list[str]:
    """Return options as a user types them, later layers winning: recipes first, or else nothing that is the default."""
    values = {name: value for layer in layers for name, value in layer.items() if name != 'recipe'}
    words = [word for layer in layers for recipe in layer.get('recipe', ()) for word in ('--recipe', str(recipe))]
    of_recipe = bool(words)
    for name, value in values.items():
        if of_recipe or name not in TRAIN.names() or value != TRAIN.defaults[name]:
            items = value if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(item, float) for item in items):
                value = [typed_number(item) for item in items]
            words += [TYPED.get(word, word) for word in words_of({name: value})]
    return words


def typed_number(value) -> str:
    """Return a number as it is typed, with all its digits: 1e-4, 0.01, 8."""
    if not isinstance(value, (int, float)):
        return str(value)
    mantissa, exponent = f'{value:e}'.split('e')
    short = f'{float(mantissa):g}e{int(exponent)}' if 0 < value < .01 else f'{value:g}'
    return short if float(short) == value else str(value)


def parsed(words: Sequence[str], where: str) -> Options:
    """Parse the words of a run, as main.py will; a mistake ends the process and names `where`."""
    with TRAIN.blaming(where):
        return TRAIN.parse(words)


@dataclass(frozen=True)
class Step:
    """A command: the script and its words, and the file that it writes when it is done.

    `checkpoint` is the checkpoint of a training run, for which `makes` is the file of its results.
    """

    words: tuple[str, ...]
    makes: Path
    checkpoint: Path | None = None

    def command(self) -> list[str]:
        """Return the words of the command."""
        return ['python', script(self.words[0]), *self.words[1:]]


def script(name: str) -> str:
    """Return the path of a script of the project, for a command that runs in the current folder."""
    return name if Path.cwd() == ROOT else str(ROOT / name)


def training_step(words: Sequence[str]) -> Step:
    """Return the step that trains with these words of main.py."""
    options = TRAIN.parse(words)
    return Step(('main.py', *words), Path(options.result_dir, f'{log_name(options)}.json'),
                checkpoint_file(options))


def is_finished(checkpoint: Path) -> bool:
    """Return whether a checkpoint exists and belongs to a finished run; False if it is damaged."""
    try:
        return checkpoint.exists() and bool(load_checkpoint(checkpoint).get('finished'))
    except UserError:  # damaged: main.py reports it
        return False
