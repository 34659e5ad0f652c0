"""The text of --help, of the script and its main groups of options, or of any group."""
import argparse
import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError, pick

if TYPE_CHECKING:
    from iqa_runtime.options import Command


def help_action(command: 'Command') -> type[argparse.Action]:
    """Make the action of --help [GROUP]."""
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
    """Return the options of some groups as text; `whole`: with the script's text, and a line for each other group."""
    width = min(120, max(80, int(os.environ.get('COLUMNS', 120))))
    formatter = argparse.HelpFormatter(command.parser.prog, max_help_position=34, width=width)
    for section in command.parser._action_groups:
        actions = section._group_actions
        if actions and (section.title in titles or (whole and section.title in ('options', 'optional arguments'))):
            formatter.start_section(section.title)
            formatter.add_arguments(actions)
            formatter.end_section()
    text = formatter.format_help()
    if not whole:
        return text
    rest = [f'  --help {one.title:<16}{one.about}' for one in command.groups if one.title not in titles]
    more = '\nmore options:\n' + '\n'.join(rest) + '\n' if rest else ''
    return f'{command.doc.strip()}\n\n{text}{more}'
