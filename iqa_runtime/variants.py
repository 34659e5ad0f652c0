"""Tables of variants, such as the losses: functions whose keyword parameters are options of the command line.

    @loss('huber')
    def huber(y_pred: Tensor, y: Tensor, huber_delta: Positive = 1.) -> Tensor:
        '''Compute the mean Huber loss.

        Args:
            huber_delta: error above which the loss is linear.
        '''

is a row of the table LOSSES and also declares the option --huber_delta. A parameter is an option if its type is `bool`
or one of iqa_runtime/option_types.py, which says how its words are read. Since torch takes a second to import, --help
does not import the functions, but reads their signatures and docstrings from the source. Rows are imported when they
are looked up.
"""
import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

from iqa_runtime import option_types
from iqa_runtime.errors import UserError
from iqa_runtime.files import ROOT
from iqa_runtime.option_types import Flag, flag_of

OWN = object()  # stands for a default that is not a literal, or that differs between rows


@dataclass
class Parameter:
    """An option of some rows.

    Attributes:
        name: name of the option, without dashes.
        flag: how its words are read.
        default: its default; OWN: each row has its own.
        about: its description, for --help.
        rows: names of the rows that take it, those that the source states.
    """

    name: str
    flag: Flag
    default: object
    about: str
    rows: list[str] = field(default_factory=list)

    def arguments(self) -> dict:
        """Return the arguments for argparse's add_argument."""
        default = None if self.default is OWN else self.default
        whose = f'{", ".join(self.rows)}: ' if 0 < len(self.rows) <= 3 else ''
        own = ' (default: depends on the variant)' if self.default is OWN and '(default' not in self.about else ''
        return {'default': list(default) if isinstance(default, tuple) else default, 'help': whose + self.about + own,
                **self.flag.arguments(default)}


@dataclass(frozen=True)
class Row:
    """A row of a table: `build` is its function or class. Tables add further fields in a subclass."""

    build: Callable

    def options(self) -> dict[str, object]:
        """Return the options that the row takes, with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {one.name: one.default for one in parameters if flag_of(one.annotation)}


class Variants(MutableMapping):
    """A table, name -> Row, of the functions under a decorator in some files.

    Args:
        option: the option of the command line that chooses a row.
        decorator: name of the decorator in the source.
        places: files of the rows, relative to the project's folder, such as 'iqa_losses/*.py'.
        row: class of the rows. Keywords of the decorator that the function does not take become its fields.
        chosen: values of the command's options -> names of the rows that they choose.
        find: name -> row (default: look-up in the table).
    """

    def __init__(self, option: str, decorator: str, places: Sequence[str], row: type[Row] = Row,
                 chosen: Callable[[Mapping], Sequence[str]] | None = None, find: Callable[[str], Row] | None = None):
        self.option, self.decorator, self.places, self.row = option, decorator, places, row
        self.chosen = chosen or (lambda values: [values[option]])
        self.find = find or self.__getitem__
        self.rows: dict[str, Row] = {}
        self.names: list[str] = []  # names of the rows, those that the source states, in its order
        self.imported = False
        self.commands = WeakKeyDictionary()  # function that declares an option of a command -> shorter spellings
        self.parameters: dict[str, Parameter] = {}
        for source in self._sources():
            self._read(source.read_text(encoding='utf-8'))

    # The mapping; the rows are imported when they are looked up

    def __getitem__(self, name: str) -> Row:
        self._import()
        return self.rows[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self.rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self.rows[name]

    def __iter__(self) -> Iterator[str]:
        self._import()
        return iter(self.rows)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _sources(self) -> list[Path]:
        return [file for place in self.places for file in sorted(ROOT.glob(place))]

    def _import(self) -> None:
        """Import the files once, and sort the rows by the order in the files, whichever was imported first."""
        if self.imported:
            return
        self.imported = True
        for source in self._sources():
            importlib.import_module('.'.join(source.relative_to(ROOT).with_suffix('').parts))
        order = {name: number for number, name in enumerate(self.names)}
        self.rows = dict(sorted(self.rows.items(), key=lambda item: order.get(item[0], -1)))

    # Rows and their options

    def register(self, *names: str, **given) -> Callable[[Callable], Callable]:
        """Decorate a function or class, adding it to the table under each of the names.

        Args:
            names: names of the rows; a parameter `arch` of the function gets the row's name.
            given: arguments of the function in these rows, and fields of the rows.
        """
        def decorate(function: Callable) -> Callable:
            known = inspect.signature(function).parameters
            arguments = {name: value for name, value in given.items() if name in known}
            facts = {name: value for name, value in given.items() if name not in known}
            for name in names:
                own = arguments | ({'arch': name} if 'arch' in known else {})
                self.rows[name] = self.row(partial(function, **own) if own else function, **facts)
            source = inspect.unwrap(function)
            if Path(inspect.getsourcefile(source)) not in self._sources():
                node = ast.parse(textwrap.dedent(inspect.getsource(source))).body[0]
                for parameter in parameters_of(node, given):
                    self._add(parameter, list(names))
            return function
        return decorate

    def declare(self, add: Callable, short: Mapping[str, str] | None = None) -> None:
        """Declare the options of all rows by calling `add` as argparse's add_argument; `short`: shorter spellings."""
        self.commands[add] = short or {}
        for parameter in self.parameters.values():
            self._declare(parameter, add, short or {})

    def _declare(self, parameter: Parameter, add: Callable, short: Mapping[str, str]) -> None:
        name = parameter.name
        add(*([short[name]] if name in short else []), f'--{name}', **parameter.arguments())

    def _read(self, source: str) -> None:
        """Record the rows in a source and their options."""
        for node, call in decorated(source, self.decorator):
            names = [name.value for name in call.args if isinstance(name, ast.Constant)]
            self.names += names
            for parameter in parameters_of(node, {one.arg: _literal(one.value) for one in call.keywords}):
                self._add(parameter, names)

    def _add(self, found: Parameter, names: list[str]) -> None:
        """Record an option of some rows; declare it if it is new."""
        known = self.parameters.setdefault(found.name, found)
        known.rows += names
        known.about = known.about or found.about
        if known.default != found.default:
            known.default = OWN
        if known is found:
            for add, short in self.commands.items():  # commands exist already if a row is added at run time
                self._declare(found, add, short)

    def unused(self, values: Mapping) -> set[str]:
        """Return the options that no chosen row takes; `values`: name -> value of the command's options."""
        return set(self.parameters) - self.taken(values)

    def taken(self, values: Mapping) -> set[str]:
        """Return the options that the chosen rows take; `values`: name -> value of the command's options."""
        return {option for name in self.chosen(values) for option in self.find(name).options()}

    def arguments(self, name: str, values: Mapping) -> dict[str, object]:
        """Return the arguments of a row from the values of the command's options; None leaves the row's default."""
        return {option: values[option] for option in self.find(name).options() if values.get(option) is not None}

    def refuse(self, option: str, values: Mapping) -> None:
        """Raise the UserError for an option that the chosen rows do not take."""
        value = values[self.option]
        text = ' '.join(value) if isinstance(value, (list, tuple)) else value
        raise UserError(f'--{option}: ' + (f'--{self.option} {text} takes no such option; it takes: '
                                           f'{", ".join(sorted(self.taken(values))) or "none"}' if text is not None else
                                           f'it needs --{self.option}'))


# Reading the source

def decorated(source: str, decorator: str) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, ast.Call]]:
    """Yield the decorated functions and classes in a source, with each call of the decorator."""
    for node in ast.parse(source).body:
        for call in getattr(node, 'decorator_list', ()):
            if isinstance(call, ast.Call) and getattr(call.func, 'attr', getattr(call.func, 'id', '')) == decorator:
                yield node, call


def parameters_of(node: ast.FunctionDef | ast.ClassDef, given: Mapping[str, object]) -> Iterator[Parameter]:
    """Yield the options of a function or class; `given`: defaults that replace those of its signature."""
    function = node if isinstance(node, ast.FunctionDef) else next(
        (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == '__init__'), None)
    if function is None:  # a class without options
        return
    arguments = [*function.args.args, *function.args.kwonlyargs]
    defaults = [*[None] * (len(function.args.args) - len(function.args.defaults)), *function.args.defaults,
                *function.args.kw_defaults]
    about = described(ast.get_docstring(node) or '')
    for argument, default in zip(arguments, defaults, strict=True):
        flag = _flag(argument.annotation)
        if flag:
            value = given[argument.arg] if argument.arg in given else _literal(default)
            yield Parameter(argument.arg, flag, value, about.get(argument.arg, ''))


def _flag(annotation: ast.expr | None) -> Flag | None:
    """Return the Flag of an annotation in the source, such as `Positive`, `Count | None` or `bool`."""
    if isinstance(annotation, ast.BinOp):
        return _flag(annotation.left)
    name = getattr(annotation, 'id', None)
    return flag_of(bool if name == 'bool' else getattr(option_types, name or '', None))


def _literal(node: ast.expr | None):
    try:
        return OWN if node is None else ast.literal_eval(node)
    except ValueError:
        return OWN


def described(docstring: str) -> dict[str, str]:
    """Parse the `Args:` block of a docstring into name -> description."""
    found, names = {}, ()
    block = docstring.partition('Args:\n')[2].partition('\n\n')[0]
    for line in textwrap.dedent(block).splitlines():
        if not line.startswith(' '):
            head, _, text = line.partition(': ')
            names = head.split(', ')
            found |= dict.fromkeys(names, text.strip())
        else:
            found |= {name: f'{found[name]} {line.strip()}' for name in names}
    return {name: text.removesuffix('.') for name, text in found.items()}
