"""Print --help: a script's description with its main groups of options, or the options of any group."""
import argparse
import os
import textwrap
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError, pick

if TYPE_CHECKING:
    from iqa_runtime.options import Command

COLUMN = 34  # column at which the descriptions begin
TAKEN_TOO = ('Options of main.py, such as -arch and --resize, are accepted too (listed by --help {first} and so on): '
             'they select the checkpoint that main.py wrote with them, or describe one that does not store them.')


def help_action(command: 'Command') -> type[argparse.Action]:
    """Return the argparse action of --help [GROUP]."""
    class Help(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            titles = [one.title for one in command.groups]
            if values and values != 'all':
                try:
                    chosen = [pick(titles, values, 'group of options')]
                except UserError as error:
                    parser.error(str(error))
            else:
                chosen = titles if values else [one.title for one in command.shown]
            print(help_text(command, chosen, whole=not values), end='')
            parser.exit()
    return Help


def help_text(command: 'Command', titles: Collection[str], whole: bool = True) -> str:
    """Return the help text of groups of options; `whole`: with the script's text and a line for each other group."""
    width = min(120, max(80, int(os.environ.get('COLUMNS', 120))))
    sections = [_section(title, (command.actions[name] for name, of in command.titles.items() if of == title), width)
                for title in titles]
    if not whole:
        return '\n'.join(sections)
    rest = [f'  --help {one.title:<16}{one.about}\n' for one in command.others if one.title not in titles]
    general = _section('help', command.general, width).rstrip('\n').partition('\n')[2]
    text = '\n'.join([f'{command.doc.strip()}\n', *sections, f'more options:\n{general}\n' + ''.join(rest)])
    if command.accepted:
        text += f'\n{textwrap.fill(TAKEN_TOO.format(first=command.accepted[0].title), width)}\n'
    return text


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
