"""Print --help: a script's description with its most used options, the options of any group, or any option."""
import argparse
import difflib
import os
import textwrap
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError, pick

if TYPE_CHECKING:
    from iqa_runtime.options import Command

COLUMN = 34  # column at which the descriptions begin
NAMES = ('-h', '-help', '--help')
TAKEN_TOO = ('Options of main.py, such as -arch and --resize, are accepted too (listed by --help {first} and so on): '
             'they select the checkpoint that main.py wrote with them, or describe one that does not store them.')


def help_action(command: 'Command') -> type[argparse.Action]:
    """Return the argparse action of --help [GROUP or OPTION]."""
    class Help(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            try:
                print(help_of(command, values), end='')
            except UserError as error:
                parser.error(str(error))
            parser.exit()
    return Help


def join_help(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with --help and an option after it as one word, as argparse needs it."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in NAMES and word.startswith('-'):
            joined[-1] = f'{joined[-1]}={word}'
        else:
            joined.append(word)
    return joined


def help_of(command: 'Command', wanted: str) -> str:
    """Return the help text: '' the most used options, 'all', a group, or an option; UserError if there is none."""
    titles = [one.title for one in command.groups]
    if not wanted:
        return _overview(command)
    if wanted == 'all':
        return _groups(command, titles)
    with suppress(UserError):
        return _groups(command, [pick(titles, wanted, 'group')])
    options = {option.lstrip('-'): action for action in (*command.general, *command.actions.values())
               for option in action.option_strings}
    if action := options.get(wanted.lstrip('-')):
        return _section(command.titles.get(action.dest, 'help'), [action], _width())
    near = difflib.get_close_matches(wanted.lstrip('-'), [*titles, *options], 3, .5)
    hint = f' (did you mean {", ".join(near)}?)' if near else ''
    raise UserError(f'--help {wanted}: no such group or option{hint}; the groups are {", ".join(titles)}')


def _width() -> int:
    return min(120, max(80, int(os.environ.get('COLUMNS', 120))))


def _groups(command: 'Command', titles: Collection[str]) -> str:
    """Return the help text of groups of options."""
    return '\n'.join(_section(title, (command.actions[name] for name, of in command.titles.items() if of == title),
                              _width()) for title in titles)


def _overview(command: 'Command') -> str:
    """Return the script's description, its most used options or main groups, and a line for each other group."""
    main = [one.title for one in command.shown]
    if command.most_used:
        text, listed = _section('most used options', map(command.actions.get, command.most_used), _width()), []
    else:
        text, listed = _groups(command, main), main
    rest = [f'  --help {one.title:<16}{one.about}\n' for one in (*command.shown, *command.others)
            if one.title not in listed]
    general = _section('help', command.general, _width()).rstrip('\n').partition('\n')[2]
    parts = [f'{command.doc.strip()}\n', text, f'more options:\n{general}\n' + ''.join(rest)]
    if command.accepted:
        parts.append(f'{textwrap.fill(TAKEN_TOO.format(first=command.accepted[0].title), _width())}\n')
    return '\n'.join(parts)


def _section(title: str, actions: Iterable[argparse.Action], width: int) -> str:
    """Return the help text of one group: its title, and a paragraph for each option."""
    lines = [f'{title}:']
    for action in actions:
        left = '  ' + ' '.join(filter(None, (', '.join(action.option_strings), _values(action))))
        about = textwrap.wrap(action.help % (), width - COLUMN)
        if len(left) > COLUMN - 2:
            lines.append(left)
            left = ''
        lines += [f'{left:{COLUMN}}{about[0]}', *(' ' * COLUMN + line for line in about[1:])]
    return '\n'.join(lines) + '\n'


def _values(action: argparse.Action) -> str:
    """Return the values that an option takes, such as IMAGE [IMAGE ...]."""
    name, count = action.metavar, action.nargs
    if count == 0:
        return ''
    if isinstance(count, int):
        return ' '.join(name if isinstance(name, tuple) else [name] * count)
    return {None: name, '?': f'[{name}]', '*': f'[{name} ...]', '+': f'{name} [{name} ...]'}[count]
