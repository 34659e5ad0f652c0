"""Make the info file of a data set from the files that its authors publish.

    python data/make_info.py koniq10k --source FOLDER                    -> data/KonIQ-10kinfo.mat
    python data/make_info.py kadid10k --source FOLDER --out kadid.csv    -> --dataset kadid.csv
    python data/make_info.py csv --source my.csv --mos_column rating     -> data/my.csv

Without --out the file is written to the repository's data/, or to data/ of the current folder if the toolkit is
installed. A data set is a row of RECIPES; its reader documents the published format. The `about` of the info file
(iqa_data/info.py) lists the files that were read, with their SHA-256. Higher scores mean better images in all of them.
"""
import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

import numpy as np

from iqa_data import published
from iqa_data.any_table import any_table
from iqa_data.datasets import DATASETS, SUFFIXES
from iqa_data.info import WRITERS, Info, write_info
from iqa_data.pairs import asna_pretrain
from iqa_data.published import Folder, permutations
from iqa_data.pyiqa import pyiqa_splits, write_meta_info, write_splits
from iqa_runtime.errors import UserError, command, pick
from iqa_runtime.files import ROOT, check_outputs
from iqa_runtime.names import PARTS, without_suffix

BASE = ROOT if (ROOT / 'pyproject.toml').exists() else Path()  # parent of data/: the current folder if installed


@dataclass(frozen=True)
class Recipe:
    """A data set's reader, its published files, the counts that it must have, and the default path of the info file."""

    read: Callable[[Folder, argparse.Namespace], Info]
    files: str
    images: int | None = None
    contents: int | None = None
    parts: tuple[int, int, int] | None = None
    out: str = 'data/{}.csv'


TID_FILES = 'mos.txt mos_std.txt distorted_images/ reference_images/'
RECIPES = {
    'koniq10k': Recipe(published.koniq10k, 'koniq10k_distributions_sets.csv [koniq10k_scores_and_distributions.csv]',
                       10073, 10073, (7058, 1000, 2015), DATASETS['KonIQ-10k'].info),
    'clive': Recipe(published.clive, 'AllImages_release.mat AllMOS_release.mat AllStdDev_release.mat', 1162, 1162,
                    out=DATASETS['CLIVE'].info),
    'kadid10k': Recipe(published.kadid10k, 'dmos.csv', 10125, 81),
    'tid2013': Recipe(published.tid, f'mos_with_names.txt [{TID_FILES}]', 3000, 25),
    'tid2008': Recipe(published.tid, f'mos_with_names.txt [{TID_FILES}]', 1700, 25),
    'spaq': Recipe(published.spaq, '"MOS and Image attribute scores.xlsx" or .csv', 11125, 11125),
    'agiqa3k': Recipe(published.agiqa3k, 'data.csv', 2982, out=DATASETS['AGIQA-3K'].info),
    'pipal': Recipe(published.pipal, 'Train_Label/*.txt [training_inp/ Train_Ref/]', 23200, 200,
                    out=DATASETS['PIPAL'].info),
    'pieapp': Recipe(published.pieapp, '{train,val}_reference_list.txt labels/{train,val}/*.csv', 77280, 160),
    'asna_pretrain': Recipe(asna_pretrain, 'PieAPPdataset/ tid2013/ tid2008/', 81980, 185, (65584, 16396, 0),
                            DATASETS['asna_pretrain'].info),
    'samsung': Recipe(published.samsung, 'train.csv', 54662, 54662, out=DATASETS['Samsung-2023'].info),
    'csv': Recipe(any_table, 'a table (the file itself, or a folder with one)'),
}


def counts(info: Info) -> dict[str, int | tuple[int, ...]]:
    """Count the images, the contents, and, if the set is divided into parts, the images of each."""
    of_parts = {} if info.part is None else {'parts': tuple(int((info.part == part).sum()) for part in PARTS)}
    return {'images': len(info.names), 'contents': len(set(info.ref_ids.tolist())), **of_parts}


def check_counts(name: str, recipe: Recipe, found: dict) -> None:
    """Raise UserError if the counts are not those of the data set."""
    wrong = [f'{found.get(what)} {what}, expected {getattr(recipe, what)}' for what in ('images', 'contents', 'parts')
             if getattr(recipe, what) not in (None, found.get(what))]
    if wrong:
        raise UserError(f'this is not the whole of {name}: {"; ".join(wrong)} (--partial takes it as it is)')


def index_of(info: Info) -> np.ndarray:
    """Return `index` for the original package's format: images ordered by part, or else 10 random permutations."""
    if info.index.shape[1]:
        return info.index
    n = info.index.shape[0]
    if info.part is None or n < len(info.names):
        return permutations(n, 10)
    return np.argsort([PARTS.index(part) for part in info.part], kind='stable')[:, None] + 1


def make_info(name: str, source: Path, out: Path, args=None) -> Info:
    """Read the published files of the data set `name` in `source`, check the counts, and write the info file `out`.

    Raises UserError, and writes nothing, if a file is missing or malformed, or if the counts are wrong without
    `args.partial`.
    """
    folder, recipe = Folder(source), RECIPES[name]
    info = recipe.read(folder, args)
    if not getattr(args, 'partial', False):
        check_counts(name, recipe, counts(info))
    about = {**info.about, 'dataset': name if name != 'csv' else table_name(out), 'sha256': folder.sha256(),
             **counts(info), 'mos': [float(info.mos.min()), float(info.mos.max())],
             'higher_is_better': not getattr(args, 'lower_is_better', False)}
    info = replace(info, about=about, index=index_of(info))
    check_outputs({'--out': out, '--pyiqa': pyiqa_files(out) if getattr(args, 'pyiqa', False) else None},
                  {'--source': folder.read})
    write_info(out, **vars(info))
    return info


def pyiqa_files(out: Path) -> list[Path]:
    """Return the paths of pyiqa's table and splits beside an info file."""
    return [out.with_name(f'meta_info_{table_name(out)}.csv'), out.with_name(f'{table_name(out)}.pkl')]


def table_name(path: Path) -> str:
    """Return the name of a table's file without its suffix, or the name of a folder."""
    return without_suffix(path.name, SUFFIXES)


def default_out(name: str, table: str) -> Path:
    """Return the path of a data set's info file without --out; for `csv`, it is named after the table."""
    return BASE / RECIPES[name].out.format(table if name == 'csv' else name)


def summary(info: Info, out: Path) -> str:
    """Describe a written info file in a few lines."""
    parts = '' if info.part is None else ', ' + ', '.join(f'{n} {part}' for part, n in
                                                         zip(PARTS, counts(info)['parts'], strict=True))
    known = f' of {counts(info)["contents"]} contents' if info.units == 'contents' else ', contents are not known'
    std = np.isfinite(info.std)
    return '\n'.join([
        f'{out}: {len(info.names)} images{known}{parts}',
        f'MOS {info.mos.min():g} to {info.mos.max():g}, ' +
        (f'std {info.std[std].min():g} to {info.std[std].max():g}' if std.any() else 'no std') +
        ('' if info.higher_is_better else ', lower is better'),
        *(f'read {name}, SHA-256 {digest}' for name, digest in list(info.about['sha256'].items())[:5])])


def parser() -> argparse.ArgumentParser:
    """Return the parser, with a sub-command per data set."""
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(dest='name', required=True, metavar='NAME')
    for name, recipe in RECIPES.items():
        one = commands.add_parser(name, help=recipe.files.replace('%', '%%'),
                                  description=f'{recipe.read.__doc__} Files: {recipe.files}.')
        one.add_argument('--source', type=Path, required=True, metavar='DIR', help='folder of the published files')
        one.add_argument('--out', type=Path, help='.csv or .mat (default: '
                         f'{default_out(name, "NAME")})'.replace('%', '%%'))
        one.add_argument('--pyiqa', action='store_true', help="write the pyiqa toolbox's files beside it too: "
                         'meta_info_NAME.csv, and its ten splits NAME.pkl')
        if name != 'csv':
            one.add_argument('--partial', action='store_true', help='accept an incomplete data set')
            continue
        for column in ('image', 'mos', 'std', 'votes', 'split', 'reference'):
            one.add_argument(f'--{column}_column', metavar='COLUMN', help='(default: guessed from the names)')
        direction = one.add_mutually_exclusive_group()
        direction.add_argument('--lower_is_better', action='store_true', default=None,
                               help='the scores fall with quality, as most DMOS do')
        direction.add_argument('--higher_is_better', action='store_false', dest='lower_is_better',
                               help='the scores rise with quality (default; a column DMOS needs one of the two)')
        one.add_argument('--aggregate', choices=['mean'], help='an image has a row for each rating: write their mean, '
                         'standard deviation and number as mos, std, votes')
        one.add_argument('--im_dir', metavar='DIR', help='images from which the direction of DMOS is guessed (default: '
                         "the table's folder)")
    return whole


@command
def main(argv: Iterable[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith('-'):
        words[0] = pick(RECIPES, words[0], 'data set')
    args = parser().parse_args(words)
    out = args.out or default_out(args.name, table_name(args.source))
    if out.suffix.lower() not in WRITERS:
        raise UserError(f'--out {out}: expected a file that ends in {" or ".join(WRITERS)}')
    info = make_info(args.name, args.source, out, args)
    print(summary(info, out))
    if args.pyiqa:
        table, splits = pyiqa_files(out)
        write_meta_info(table, info.names, info.mos, info.std)
        write_splits(splits, pyiqa_splits(len(info.names)))
        print(f"pyiqa's files: {table}, {splits}")


if __name__ == '__main__':
    main()
