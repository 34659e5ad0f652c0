"""Parse command lines: a Command consists of groups of options, and reads recipes and options stored in files.

Each package declares its groups of options (iqa_data/options.py, iqa_training/options.py, iqa_scoring/options.py); a
script combines groups in a Command. Nothing here imports torch, so that --help and most errors appear at once.
"""
import argparse
import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from iqa_runtime.errors import UserError, command, one_line, report, spaces_hint
from iqa_runtime.option_help import NAMES, help_action, join_help
from iqa_runtime.option_types import device
from iqa_runtime.option_values import checked, shown
from iqa_runtime.recipes import options_of_run, recipe_file, recipes_listed, words_in
from iqa_runtime.variants import Variants

Add = Callable[..., None]  # called as argparse's add_argument
LATEST = 'latest'  # names the newest checkpoint of a folder


# Options, groups and commands

@dataclass(frozen=True)
class Options:
    """The values of a command's options, which are read as attributes and never changed.

    Attributes:
        values: name -> value.
        given: names of the options that the user typed or a recipe sets.
        command: the command that parsed them.
        typed: names of the options that the user typed.
    """

    values: Mapping[str, object]
    given: frozenset[str]
    command: 'Command'
    typed: frozenset[str] = field(default=frozenset())

    def __getattr__(self, name: str):
        if name.startswith('__') or name not in self.values:
            raise AttributeError(f'this command has no option {name}')
        return self.values[name]

    def having(self, **changes) -> 'Options':
        """Return a copy of the options with the values in `changes`."""
        return Options({**self.values, **changes}, self.given, self.command, self.typed)

    def of_training(self) -> dict:
        """Return the options that change the trained model, by name, in alphabetical order.

        Options that the chosen loss, network, schedule ... do not take have their default values.
        """
        return self.command.effective({name: self.values[name] for name in sorted(self.command.names())})

    def changed(self) -> dict:
        """Return the options of training whose values are not their defaults."""
        return {name: value for name, value in self.of_training().items() if value != self.command.defaults[name]}

    def adopting(self, stored: Mapping, names: Collection[str], file: str | Path) -> 'Options':
        """Return a copy of the options with the values that a checkpoint stores for `names`, checked as if typed.

        Raises UserError if a value is not valid, or conflicts with an option that the user gave.
        """
        found = self.command.stored({name: stored[name] for name in names if name in stored}, file, known=False)
        for name, value in found.items():
            if name in self.given and self.values[name] != value:
                raise UserError(f'--{name} {shown(self.values[name])} conflicts with {file}, which was trained with '
                                f'{shown(value)}: leave the option out, or name another checkpoint')
        return self.having(**found)


@dataclass(frozen=True)
class Group:
    """Options that belong together.

    Attributes:
        title: name of the group, as in `--help TITLE`.
        about: subject of the options, in one line.
        declare: function that gets `add`, which it calls as argparse's add_argument for each option.
        trained: whether the options change the trained model. Only such options are stored with a run, and may be set
            by a recipe or a checkpoint.
        check: raises UserError if options contradict each other; may return options with derived values.
        table: the table whose rows take these options.
        prepare: called with the words of the command line before they are parsed, but not with words of a file.
    """

    title: str
    about: str
    declare: Callable[[Add], None]
    trained: bool = False
    check: Callable[[Options], Options | None] | None = None
    table: Variants | None = None
    prepare: Callable[[Sequence[str]], None] | None = None


def options_of(title: str, about: str, table: Variants, **short: str) -> Group:
    """Return a group of the options that the rows of a table take; `short`: option -> a shorter spelling."""
    return Group(title, about, partial(table.declare, short=short), trained=True, table=table)


def group(title: str, about: str, trained: bool = False, **more):
    """Decorate a function that declares options, turning it into a Group; the arguments are those of Group."""
    def decorate(declare: Callable[[Add], None]) -> Group:
        return Group(title, about, declare, trained, **more)
    return decorate


class _Parser(argparse.ArgumentParser):
    words: Sequence[str] = ()  # that are parsed

    def error(self, message: str):
        """Exit with a one-line message and status 2, without the usage text."""
        prefix = 'unrecognized arguments: '
        unknown = message.removeprefix(prefix).split()[0] if message.startswith(prefix) else ''
        known = self._option_string_actions
        begun = [option for option in known if unknown.startswith('--') and option.startswith(unknown)]
        near = begun or difflib.get_close_matches(unknown, known, n=1) if unknown else []
        hint = spaces_hint(self.words) or (f' (did you mean {near[0]}?)' if near else '')
        report(f'{self.prog}: error: {one_line(message)}{one_line(hint)} (--help shows the options)')
        self.exit(2)


class Command:
    """The command line of a script.

    Args:
        doc: description of the script, which --help prints unchanged.
        shown: groups whose options --help shows, unless `most_used` says which ones it shows.
        others: groups that --help only lists; --help GROUP shows their options.
        accepted: groups of another script, whose options are accepted, but are not this script's own subject.
        most_used: names of the options that --help shows.
    """

    def __init__(self, doc: str, shown: Sequence[Group], others: Sequence[Group] = (), accepted: Sequence[Group] = (),
                 most_used: Sequence[str] = ()):
        self.doc, self.shown, self.others, self.accepted = doc, tuple(shown), tuple(others), tuple(accepted)
        self.most_used = tuple(most_used)
        self.groups = (*self.shown, *self.others, *self.accepted)
        self.actions: dict[str, argparse.Action] = {}
        self.defaults: dict[str, object] = {}
        self.titles: dict[str, str] = {}  # name of an option -> title of its group
        self.adding: list[Add] = []  # the function of each group that declares an option
        self.begun: Options | None = None  # the options that `begin` parsed
        self.parser = _Parser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
        self.general = [self.parser.add_argument(
            *NAMES, nargs='?', const='', metavar='GROUP', action=help_action(self), default=argparse.SUPPRESS,
            help='show this text, or an option, or all options of a group (or of all), and exit')]
        for one in self.groups:
            self._declare(one)
        if self.names():
            self.general.append(self.parser.add_argument(
                '--recipe', nargs='?', const='', metavar='NAME', action='append', default=argparse.SUPPRESS,
                help="options from recipes/NAME.txt, a file, or a run's options.json; without NAME: list recipes"))

    def _declare(self, one: Group) -> None:
        section = self.parser.add_argument_group(one.title)

        def add(*names: str, **arguments) -> None:
            default = arguments.pop('default', False if arguments.get('action') == 'store_true' else None)
            unsaid = default is None or default is False or default in ('', [])
            if not unsaid and '(default' not in arguments['help']:
                arguments['help'] += f' (default: {"on" if default is True else shown(default)})'
            if arguments.get('action') is not argparse.BooleanOptionalAction and names[0].startswith('-'):
                arguments.setdefault('metavar', _metavar(names) if 'action' not in arguments else None)
            if arguments.get('metavar') is None:
                arguments.pop('metavar', None)
            arguments['help'] = arguments['help'].replace('%', '%%')
            action = section.add_argument(*names, default=argparse.SUPPRESS, **arguments)
            self.actions[action.dest], self.defaults[action.dest] = action, default
            self.titles[action.dest] = one.title

        self.adding.append(add)
        one.declare(add)

    def names(self, *groups: Group) -> frozenset[str]:
        """Return the names of the options of groups; without groups, all options that change the trained model."""
        titles = {one.title for one in groups or self.groups if groups or one.trained}
        return frozenset(name for name, title in self.titles.items() if title in titles)

    def begin(self, argv: Sequence[str] | None = None) -> None:
        """Parse the command line before the script imports torch, and let OpenMP's threads sleep while they wait.

        --help and mistakes thus end the script at once. By default, OpenMP's threads spin while they wait for each
        other, which blocks cores that other processes share: on two cores with a load of 7, a training step took 5 s,
        and .6 s with sleeping threads. The variable is read when torch is loaded; a value set by the user is kept.
        """
        os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
        self.begun = None  # that of an earlier script in this process
        self.begun = command(self.parse)(argv)

    def parse(self, argv: Sequence[str] | None = None) -> Options:
        """Parse the words of a command line (default: this process's, or the result of `begin`).

        Options of recipes come before the typed ones, which win. A mistake ends the process with one line on stderr and
        exit status 2.
        """
        if argv is None and self.begun:
            return self.begun
        words = self.parser.words = join_help(sys.argv[1:] if argv is None else argv)
        try:
            for one in self.groups:
                if one.prepare:
                    one.prepare(words)
        except UserError as error:
            self.parser.error(str(error))
        given = vars(self.parser.parse_args(words))
        recipes = given.pop('recipe', None)
        typed = frozenset(given)
        try:
            if recipes:
                if '' in recipes:
                    print(recipes_listed(), end='')
                    raise SystemExit(0)
                given = {name: value for recipe in recipes for name, value in self.of_recipe(recipe).items()} | given
            return self._options(given, typed)
        except UserError as error:
            self.parser.error(str(error))

    def options(self, recipe: str | None = None, **values) -> Options:
        """Return the options with values given in Python, which win over a recipe's; UserError for an invalid one."""
        plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}
        typed = self.stored(plain, 'options from Python', names=self.actions)
        return self._options((self.of_recipe(recipe) if recipe else {}) | typed, frozenset(typed))

    def _options(self, given: Mapping, typed: frozenset[str]) -> Options:
        """Return the options with these values, others at their defaults; UserError if they contradict each other."""
        options = Options({**self.defaults, **given}, frozenset(given), self, typed)
        self._refuse_unused(options)
        for one in self.groups:
            if one.check:
                options = one.check(options) or options
        return options

    def unused(self, values: Mapping, groups: Sequence[Group]) -> dict[str, Variants]:
        """Return the options, with their tables, that differ from their defaults, but that no chosen row takes."""
        found = {}
        for table in (one.table for one in groups if one.table):
            changed = {name for name in table.parameters if values[name] != self.defaults[name]}
            if changed:  # otherwise the rows, and with them torch, need not be imported
                found |= dict.fromkeys(sorted(changed & table.unused(values)), table)
        return found

    def effective(self, values: Mapping) -> dict:
        """Return the options of training, with those that have no effect set to their defaults."""
        return {**values, **{name: self.defaults[name] for name in self.unused(values, self.groups)}}

    def _refuse_unused(self, options: Options) -> None:
        """Raise UserError if the user typed an option without effect, except another script's: these describe a run."""
        for name, table in self.unused(options.values, (*self.shown, *self.others)).items():
            if name in options.typed:
                table.refuse(name, options.values)

    @contextmanager
    def blaming(self, source: str | Path) -> Iterator[None]:
        """Name the source of the words, a file or a place in it, in the parser's messages within the context."""
        prog, self.parser.prog = self.parser.prog, f'{self.parser.prog}: {source}'
        try:
            yield
        finally:
            self.parser.prog = prog

    def of_recipe(self, name: str) -> dict:
        """Read a recipe (see iqa_runtime/recipes.py); return the options that it sets, by name."""
        path = recipe_file(name)
        if path.suffix == '.json':
            stored = self.stored(options_of_run(path), path)
            return {name: value for name, value in stored.items() if value != self.defaults[name]}
        with self.blaming(path):
            given = vars(self.parser.parse_args(words_in(path)))
        foreign = sorted(set(given) - self.names())
        if foreign:
            raise UserError(f'{path}: --{foreign[0]} is no option of training; a recipe may contain only these')
        return given

    def stored(self, values: Mapping, source: str | Path, known: bool = True,
               names: Collection[str] | None = None) -> dict:
        """Check the options stored in a file as if they were typed; return them by name.

        Args:
            values: the stored options, name -> plain value.
            source: the file, for the error message.
            known: raise UserError for a name that is not in `names`; otherwise ignore it.
            names: names of the options that are allowed (default: the options of training).
        """
        found, kind = {}, 'option of training' if names is None else 'option'
        names = self.names() if names is None else names
        for name, value in values.items():
            if name in names:
                try:
                    found[name] = self.checked(name, value)
                except (argparse.ArgumentTypeError, ValueError) as error:
                    raise UserError(f'{source}: the option {str(name)[:40]!r}: {str(error)[:200]}') from None
            elif known:
                raise UserError(f'{source}: {str(name)[:40]!r} is no {kind}')
        return found

    def checked(self, name: str, value):
        """Return a stored value, converted, if the command line accepts it for `name`; ValueError otherwise."""
        return checked(self.actions[name], self.defaults[name], value)


def _metavar(names: Sequence[str]) -> str | None:
    return max(names, key=len).lstrip('-').upper().split('_')[-1]


# The group of scripts that compute: the device; with the folders; with one checkpoint; with several

@group('machine', 'the device')
def machine_device(add) -> None:
    add('--device', type=device, help='cuda, cuda:1, cpu ... (default: cuda if there is a GPU)')
    add('-pbar', '--pbar', action=argparse.BooleanOptionalAction, default=bool(sys.stderr and sys.stderr.isatty()),
        help='progress bars (default: if stderr is a terminal)')


@group('machine', 'the device, and the folders of checkpoints and results')
def machine_folders(add) -> None:
    machine_device.declare(add)
    add('--checkpoint_dir', metavar='DIR', default='checkpoints', help='folder of the checkpoints')
    add('--result_dir', metavar='DIR', default='results', help='folder of the per-image predictions and metrics')


CHECKPOINT = (f'a checkpoint: a file, the name of a run, letters of its digest, or {LATEST}; or a published model: its '
              'folder, or hf-hub:USER/NAME (default: the one that main.py wrote with the same options)')


@group('machine', 'the device, and the folders of checkpoints and results')
def machine(add) -> None:
    machine_folders.declare(add)
    add('-modelfile', '--trained_model_file', metavar='FILE', help=CHECKPOINT)


@group('machine', 'the device, and the folders of checkpoints and results')
def machine_of_several(add) -> None:
    machine_folders.declare(add)
    add('-modelfile', '--trained_model_file', nargs='+', metavar='FILE',
        help=f'{CHECKPOINT}; or several, whose scores are averaged')
