"""Compare models by their predictions: criteria with intervals, tests, groups, pairs of images, the raters' noise.

    python results_in_the_paper/compare.py results/A.csv results/B.csv          files of predictions on the same images
    python results_in_the_paper/compare.py A.csv B.csv --format latex --out comparison.tex
    python results_in_the_paper/compare.py A.csv B.csv --info data/AGIQA-3K.csv --by reference --page page.html

Each model is judged as saved, and after mappings to MOS: line, monotonic polynomial of order 3, logistic curves with 4
and 5 parameters. Each pair of models is judged by the paired bootstrap of the difference, by Williams' and Steiger's
tests for correlations that share the MOS, and by the tests of ITU-T P.1401. A mapping is fitted once, on all images,
and kept in the resamples: the intervals are over images, not over fits. Criteria that need the standard deviation of
the ratings, or their number, are left out where it is not known, and named. docs/evaluation.md explains each.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.errors import UserError
from iqa_runtime.option_types import choice, count, number
from iqa_runtime.options import Add, Command, Options, group
from results_in_the_paper.sources import add_format

HEADS = 'iqa_results.read:HEADS'


@group('comparison', 'the models, and how they are compared')
def comparison(add: Add) -> None:
    add('files', nargs='+', metavar='FILE', help='predictions: results/NAME.csv, or an .npy file of the original')
    add('--names', nargs='+', metavar='NAME', help='a name for each file (default: what differs in the names of files)')
    add('--head', type=choice(HEADS, 'head'), default='pq', help='pq: final score; pq1: level 6; pq2: level 7')
    add('--resamples', type=number(int, 100, 10 ** 7), default=2000, help='bootstrap resamples')
    add('--seed', type=number(int, 0, 2 ** 32 - 1), default=0, help='seed of the bootstrap')
    add_format(add)
    add('--out', metavar='FILE', help='file to write (default: the screen)')
    add('--page', metavar='FILE', help='page (HTML) to write with all tables, ROC curves and the worst groups')


def one_grouping(args: Options) -> None:
    """Raise UserError if the groups are named twice."""
    if args.by and args.by_name:
        raise UserError('--by and --by_name both name the groups: give one of them')


@group('ratings', 'ratings and groups of the images', check=one_grouping)
def ratings(add: Add) -> None:
    add('--info', metavar='FILE', help='table with a row per image (columns image, std, votes, and others), info file, '
                                       'or name of a data set')
    add('--votes', type=count, metavar='N', help='number of ratings of each image, if no column votes has it')
    add('--by', metavar='COLUMN', help='column of --info, or of the first file, whose values are the groups')
    add('--by_name', metavar='PATTERN', help="regular expression that finds an image's group in its name: '^[^_]+'")
    add('--preferences', metavar='FILE', help='table of comparisons by people: columns first, second, preference (the '
                                              'share that prefers the first, 0..1)')


COMPARE = Command(__doc__, [comparison, ratings])

if __name__ == '__main__':
    COMPARE.begin()  # --help and mistakes end here, before scipy and torch are imported

from collections.abc import Mapping, Sequence

import numpy as np

from iqa_results import comparison_tables as tables
from iqa_results import raters
from iqa_results.comparison import aligned
from iqa_results.comparison_page import roc_plots, worst_group_plots, write_comparison
from iqa_results.comparison_tables import Shown
from iqa_results.facts import Facts, parts_of_names, read_preferences
from iqa_results.groups import group_tables
from iqa_results.pairs import Pairs, preferred_pairs, rated_pairs
from iqa_results.read import Predictions, read_predictions
from iqa_results.table_formats import render
from iqa_runtime.errors import command
from iqa_runtime.files import check_outputs, write_text
from iqa_runtime.names import without_suffix


def pairs_of_images(model: Predictions) -> Pairs:
    """Return all pairs of images, with the differences that people see if std and votes are known."""
    problem = raters.votes_problem(model.mos, model.std, model.votes)
    return rated_pairs(model.mos, *(() if problem else (model.std, model.votes)))


def report(models: Mapping[str, Predictions], pairs: Pairs, resamples: int = 2000, seed: int = 0) -> list[Shown]:
    """Return the tables of models that are aligned, and of all pairs of them."""
    found = [*tables.criteria_tables(models, resamples, seed), tables.scores_table(models, pairs)]
    found += [] if pairs.z is None else [tables.ceiling_table(models, pairs, seed)]
    if len(models) > 1:
        found += [tables.differences_table(models, resamples, seed), tables.standard_table(models),
                  tables.pair_tests_table(models, pairs)]
    return found


TITLES = {'text': '{}\n\n', 'markdown': '### {}\n\n', 'latex': '% {}\n'}


def in_words(shown: Sequence[Shown], style: str) -> str:
    """Return tables in one of the formats; CSV has neither titles nor notes."""
    def words(table: Shown) -> str:
        body = render(table.header, table.rows, style)
        note = f'\n{table.note}\n' if table.note else ''
        return body if style == 'csv' else TITLES[style].format(table.title) + body + note
    return '\n'.join(words(table) for table in shown if table.rows)


def differing(names: Sequence[str]) -> list[str]:
    """Return the names of runs without the words between hyphens that all have, if something is left of each.

    >>> differing(['resnet18-mae-CLIVE-bs8-1f', 'resnet18-norm-in-norm-CLIVE-bs8-2e'])
    ['mae-1f', 'norm-in-norm-2e']
    """
    words = [name.split('-') for name in names]
    shared = set.intersection(*map(set, words))
    short = ['-'.join(word for word in some if word not in shared) for some in words]
    return short if len(names) > 1 and all(short) else list(names)


def _labels(paths: Sequence[str], names: Sequence[str] | None) -> list[str]:
    labels = list(names or differing([without_suffix(Path(path).name, ('.csv', '.npy')) for path in paths]))
    if len(labels) != len(paths):
        raise UserError(f'--names: {len(labels)} names for {len(paths)} files')
    if len(set(labels)) < len(labels):
        labels = list(paths) if len(set(paths)) == len(paths) else [f'{i}' for i in range(1, len(paths) + 1)]
    return labels


def read_models(args: Options) -> dict[str, Predictions]:
    """Return the models, aligned, with the std and votes of --info and --votes."""
    models = aligned({label: read_predictions(path, args.head)
                      for label, path in zip(_labels(args.files, args.names), args.files, strict=True)})
    first = next(iter(models.values()))
    std, votes = first.std, first.votes
    if args.info:
        facts = Facts.read(args.info)
        known = {name: facts.numbers(name, _named(first, '--info')) for name in ('std', 'votes')}
        std = known['std'] if known['std'] is not None and not np.isfinite(std).any() else std
        votes = known['votes'] if votes is None else votes
    if args.votes and votes is not None:
        raise UserError(f'--votes {args.votes}: the images have a column votes')
    votes = np.full(len(first.mos), float(args.votes)) if args.votes else votes
    return {label: model._replace(std=std, votes=votes) for label, model in models.items()}


def _named(model: Predictions, option: str) -> list[str]:
    if model.names is None:
        raise UserError(f'{option} needs the names of images, which an .npy file does not have')
    return model.names


def groups_of(args: Options, names: Sequence[str]) -> tuple[list[str], str]:
    """Return the group of each image, and what groups are, in words."""
    if args.by_name:
        return parts_of_names(names, args.by_name), 'part of the name'
    return Facts.read(args.info or args.files[0]).texts(args.by, names), args.by


@command
def main(argv: list[str] | None = None) -> None:
    """Read the predictions, print the tables or write them to a file."""
    args = COMPARE.parse(argv)
    check_outputs({'--out': args.out, '--page': args.page},
                  {'files': args.files, '--info': args.info, '--preferences': args.preferences})
    models = read_models(args)
    first = next(iter(models.values()))
    more, plots = [], []  # first, as a mistake in them should not cost the time of the bootstrap
    if args.by or args.by_name:
        groups, by = groups_of(args, _named(first, '--by'))
        more, plots = group_tables(models, groups, by), worst_group_plots(models, groups, by)
    if args.preferences:
        preferred = preferred_pairs(*read_preferences(args.preferences, _named(first, '--preferences')))
        more.append(tables.preferences_table(models, preferred))
    pairs = pairs_of_images(first)
    shown = [*report(models, pairs, args.resamples, args.seed), *more]
    if args.page:
        write_comparison(args.page, shown, [*roc_plots(models, pairs), *plots])
    text = in_words(shown, args.format)
    if args.out:
        write_text(args.out, text)
    else:
        print(text, end='')


if __name__ == '__main__':
    main()
