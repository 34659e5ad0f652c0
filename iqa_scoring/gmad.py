"""Show people the images on which two models contradict each other most, and count their choices (gMAD).

    python iqa_scoring/gmad.py A.csv B.csv --im_dir photographs --out gmad.html       a page with a form
    python iqa_scoring/gmad.py A.csv B.csv --choices choices.csv                      the verdict

A.csv and B.csv hold scores of the same images: tables of test_demo.py (columns name, score) or results of tests (name,
pq). No ratings are needed. In each pair of the page, one model gives both images equal scores, and the other model very
different scores; the page does not show which model is which. Its button saves the choices as a table with the columns
first, second and preference, which compare.py --preferences reads too. The tables of several people are averaged.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_scoring.options import GMAD

if __name__ == '__main__':
    GMAD.begin()  # --help and mistakes end here, before torch is imported

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iqa_data.images import ImageError, opened
from iqa_data.transforms import Preprocess
from iqa_results.facts import read_preferences
from iqa_results.gmad import GmadPair, gmad_pairs, verdict
from iqa_results.page import data_uri, write_page
from iqa_results.table_formats import render
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs
from iqa_runtime.names import cell
from iqa_runtime.tables import Table

# formats that browsers can show
BROWSERS = {'JPEG': 'image/jpeg', 'PNG': 'image/png', 'WEBP': 'image/webp', 'GIF': 'image/gif'}
SCORES = ('score', 'pq')  # columns


class Scores(NamedTuple):
    """The scores (N,) of two models for the same images, rising with quality."""

    names: list[str]
    a: np.ndarray
    b: np.ndarray


@command
def main(argv: list[str] | None = None) -> None:
    """Write the page of the pairs, or print the verdict of the choices."""
    args = GMAD.parse(argv)
    check_outputs({'--out': args.out}, {'files': args.files, '--choices': args.choices})
    scores = read_both(*args.files, lower_is_better=args.lower_is_better)
    pairs = gmad_pairs(scores.a, scores.b, args.pairs)
    if not pairs:
        raise UserError(f'{args.files[0]} and {args.files[1]} put all images in the same order: nothing to show')
    if args.choices:
        print(verdict_table([Path(file).stem for file in args.files], pairs, choices_of(args.choices, scores, pairs)))
        return
    write_page(args.out, Path(__file__).parent / 'templates' / 'gmad.html', title='Which image is better?',
               pairs=cards(scores.names, pairs, Path(args.im_dir)))
    print(f'{args.out}: {len(pairs)} pairs; its button saves choices.csv, for --choices')


def read_both(first: str, second: str, lower_is_better: bool = False) -> Scores:
    """Read two tables of scores; UserError if their images are not the same."""
    (names, a), (others, b) = (_read(path) for path in (first, second))
    place = {name: i for i, name in enumerate(others)}
    missing = sorted(set(names) ^ set(others))
    if missing:
        raise UserError(f'{first} and {second} are not of the same images: one lacks {missing[0]!r} '
                        f'({len(missing)} images in all)')
    sign = -1 if lower_is_better else 1
    return Scores(names, sign * a, sign * b[[place[name] for name in names]])


def _read(path: str) -> tuple[list[str], np.ndarray]:
    table = Table.read(path)
    column = next((name for name in SCORES if name in table.columns), SCORES[0])
    table.needs('name', column)
    names = table.images('name')
    table.once(names)
    return names, table.numbers(column)


def cards(names: Sequence[str], pairs: Sequence[GmadPair], folder: Path) -> list[dict]:
    """Return the pairs for the page, in random order, with the better image of half of them on the right."""
    rng = np.random.default_rng(0)
    shown = []
    for i, turned in zip(rng.permutation(len(pairs)), rng.permutation(len(pairs)) % 2, strict=True):
        both = [pairs[i].better, pairs[i].worse][::-1 if turned else 1]
        shown.append({side: {'name': cell(names[place]), 'picture': picture(folder / names[place])}
                      for side, place in zip(('first', 'second'), both, strict=True)})
    return shown


def picture(path: Path) -> str:
    """Return an image file as a data URI, unchanged if browsers can show it, else as PNG; UserError if unreadable."""
    try:
        with opened(path) as image:
            if image.format in BROWSERS:
                return data_uri(BROWSERS[image.format], path.read_bytes())
            buffer = io.BytesIO()
            Preprocess().of(image).save(buffer, 'PNG')
    except ImageError as error:
        raise UserError(f'{path}: {error.reason}; --im_dir names the folder of the images') from None
    return data_uri('image/png', buffer.getvalue())


def choices_of(files: Sequence[str], scores: Scores, pairs: Sequence[GmadPair]) -> list[float]:
    """Return the mean preference for the attacker's better image in each pair, 1/2 for a pair without choices."""
    votes: dict[tuple[int, int], list[float]] = {}
    asked = {both for pair in pairs for both in ((pair.better, pair.worse), (pair.worse, pair.better))}
    for file in files:
        for first, second, preference in zip(*read_preferences(file, scores.names), strict=True):
            if (first, second) not in asked:
                raise UserError(f'{file}: {scores.names[first]} and {scores.names[second]} are no pair of these '
                                'scores; are they those of the page?')
            votes.setdefault((first, second), []).append(preference)
            votes.setdefault((second, first), []).append(1 - preference)
    return [float(np.mean(votes.get((pair.better, pair.worse), [.5]))) for pair in pairs]


def verdict_table(labels: Sequence[str], pairs: Sequence[GmadPair], preferences: Sequence[float]) -> str:
    """Return the verdict as a table of text, with the p value of the difference in the last line."""
    found = verdict(pairs, preferences)
    rows = [[label, f'{right} of {count}', f'{theirs - beaten} of {theirs}', str(won)] for
            label, (right, count), (beaten, theirs), won in
            zip(labels, found.attacks, found.attacks[::-1], found.won, strict=True)]
    return (render(['model', 'attacks that people confirm', 'attacks withstood', 'pairs won'], rows)
            + f'\nBinomial test of the pairs won: p {found.p:.3g}')


if __name__ == '__main__':
    main()
