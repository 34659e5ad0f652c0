"""Does training only singular values help with little data? SVD-CNNIQA in miniature, on the demo data set.

    python results_in_the_paper/svd_demo.py [--out_dir DIR] [further options of main.py for all runs]

A CNNIQA is trained on one half of the contents, which lose detail (blur, resampling, JPEG, JPEG 2000). On the other
half, with other distortions (noise, contrast, colour quantisation), it is fine-tuned with 50, 100 and 200 images:
whole, or by the singular values of fc1, fc2, fc3, or of conv1. Each is done on three random choices of images with two
learning rates, of which the better one on 64 validation images counts, and is tested on 124 images, all of other
contents. It draws svd-demo.png and prints the table. If it was stopped, the same command continues.
"""
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.options import Command
from iqa_training.options import TRAIN
from results_in_the_paper.sources import figure

# what goes together depends on the run: its own command checks it
SVD_DEMO = Command(__doc__, [figure], [replace(one, check=None) for one in TRAIN.groups])

if __name__ == '__main__':
    SVD_DEMO.begin()  # --help and mistakes end here, before torch and matplotlib are imported

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from iqa_data.demo import INFO, OUT_DIR, make_demo
from iqa_data.info import Info, read_info
from iqa_results import figures
from iqa_results.charts import DASHED, GREY
from iqa_results.table_formats import render
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import command
from iqa_runtime.files import write_text
from iqa_runtime.option_values import words_of
from iqa_training.naming import checkpoint_file

SOURCE, TARGET = ('blur', 'resample', 'jpeg', 'jpeg2000'), ('noise', 'contrast', 'quantisation')
SIZES, CHOICES = (50, 100, 200), (1, 2, 3)
RATES = ('1e-2', '1e-3')  # of learning; the report's is 1e-3
STEPS, BATCH = 150, 10  # of each fine-tuning
METHODS = {'cnniqa': 'whole network', 'svd_cnniqa_fc': 'singular values of fc1-3, all of conv1',
           'svd_cnniqa_conv': 'singular values of conv1, all of fc1-3'}
STYLES = dict(zip(METHODS, figures.VALUE_STYLES, strict=False))
COMMON = ['--loss_type', 'mse', '--target', '0', '100', '--line', 'target', '--optimizer', 'adamw',
          '--schedule', 'multistep', '--augmentation', 'crop', 'hflip', '-cs_h', '64', '-cs_w', '64', '-bs', f'{BATCH}',
          '--later_wins', '--opt_level', 'O0', '--cache', 'ram', '--num_workers', '0', '--no-pbar',
          '--im_dir', str(OUT_DIR / 'images')]
TABLES = Path('results', 'svd-demo')


def write_tables(info: Info, folder: Path) -> None:
    """Write the info files: source.csv, and target-N-CHOICE.csv of N training images; test.csv is their test part."""
    kind = np.array([name.rsplit('-', 2)[1] for name in info.names])
    contents = np.random.RandomState(0).permutation(np.unique(info.ref_ids))
    half = len(contents) // 2
    write_table(info, folder / 'source.csv', in_parts(info, np.isin(kind, ('pristine', *SOURCE)), contents[:half],
                                                      (half * 6 // 10, half * 8 // 10)))
    wanted = np.isin(kind, ('pristine', *TARGET))
    parts = in_parts(info, wanted, contents[half:], (50, 66))
    write_table(info, folder / 'test.csv', {'test': parts['test']})
    for size, choice in ((size, choice) for size in SIZES for choice in CHOICES):
        few = np.sort(np.random.RandomState(choice).permutation(parts['train'])[:size])
        write_table(info, folder / f'target-{size}-{choice}.csv', {**parts, 'train': few})


def in_parts(info: Info, wanted: np.ndarray, contents: np.ndarray, ends: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the rows of the wanted images in each part; `ends`: where val and test begin among the contents."""
    return {part: np.flatnonzero(wanted & np.isin(info.ref_ids, some))
            for part, some in zip(('train', 'val', 'test'), np.split(contents, ends), strict=True)}


def write_table(info: Info, path: Path, parts: dict[str, np.ndarray]) -> None:
    """Write an info file of some images."""
    rows = np.concatenate(list(parts.values()))
    part = np.repeat(list(parts), [len(some) for some in parts.values()])
    table = pd.DataFrame({'image': [info.names[i] for i in rows], 'mos': info.mos[rows], 'std': info.std[rows],
                          'content': info.ref_ids[rows], 'part': part})
    write_text(path, table.to_csv(index=False))


def trained(table: str, words: list[str]) -> tuple[Path, dict[str, dict[str, float]]]:
    """Train unless it is done; return the checkpoint and the metrics on each part."""
    words = ['--dataset', str(TABLES / f'{table}.csv'), *COMMON, *words]
    args = TRAIN.parse(words)
    from linearity_iqa.main import main as train  # a command, run in this process
    train([*words, '--resume', 'auto'])
    file = checkpoint_file(args)
    return file, load_checkpoint(file)['metrics']


def fine_tuned(pretrained: Path, further: list[str]) -> Iterator[tuple[str, int, str, float, float]]:
    """Fine-tune by each method with each number of images; yield (method, images, rate, SROCC, PLCC) of each choice."""
    for size, method, choice in product(SIZES, METHODS, CHOICES):
        epochs = STEPS * BATCH // size
        words = ['-arch', method, '--pretrained', str(pretrained), '-e', str(epochs), '--val_every', '15',
                 '--milestones', str(epochs * 2 // 3), '--seed', str(choice), *further]
        runs = {rate: trained(f'target-{size}-{choice}', [*words, '-lr', rate])[1] for rate in RATES}
        rate = max(RATES, key=lambda rate: abs(runs[rate]['val']['SROCC']))
        yield method, size, rate, runs[rate]['test']['SROCC'], runs[rate]['test']['PLCC']


@figures.styled
def draw(table: pd.DataFrame, before: float) -> Figure:
    """Draw SROCC by the number of images: a dot for each choice, a line through the means; before fine-tuning, dashes.

    `table` has the columns method, images and SROCC.
    """
    figure = figures.new_figure(figures.COLUMN, 2.3)
    ax = figure.add_subplot()
    for i, (method, label) in enumerate(METHODS.items()):
        rows, style = table[table.method == method], STYLES[method]
        means = rows.groupby('images').SROCC.mean()
        ax.plot(means.index, means, label=label, **style)
        ax.plot(rows.images * 1.03 ** (i - 1), rows.SROCC, 'o', color=style['color'], alpha=.6)
    ax.axhline(before, color=GREY, linestyle=DASHED, linewidth=.8, label='before fine-tuning')
    ax.set(xscale='log', xticks=SIZES, xticklabels=SIZES, xlabel='training images', ylabel='test SROCC')
    ax.minorticks_off()
    ax.legend(loc='lower left', bbox_to_anchor=(0, .06))
    return figure


def rows_of(table: pd.DataFrame) -> list[list[str]]:
    """Return the rows of the printed table: for each method and number of images, mean [lowest, highest]."""
    rows = []
    for (images, method), some in table.groupby(['images', 'method'], sort=False):
        cells = [f'{some[metric].mean():.3f} [{some[metric].min():.3f}, {some[metric].max():.3f}]'
                 for metric in ('SROCC', 'PLCC')]
        rows.append([str(images), METHODS[method], *cells, ', '.join(some.rate)])
    return rows


@command
def main(argv: list[str] | None = None) -> None:
    """Train the missing networks, draw, and print the table."""
    args = SVD_DEMO.parse(argv)
    further = words_of({name: args.values[name] for name in args.given if name != 'out_dir'})
    info_file = OUT_DIR / INFO
    write_tables(read_info(info_file if info_file.exists() else make_demo()), TABLES)
    pretrained, source = trained('source', ['-arch', 'cnniqa', '-e', '60', '--milestones', '40', '-bs', '32', '-lr',
                                            '1e-3', *further])
    from linearity_iqa.test_dataset import main as test
    before = test(['-modelfile', str(pretrained), '--dataset', str(TABLES / 'test.csv'), '--no-pbar',
                   '--im_dir', str(OUT_DIR / 'images'), '--part', 'all'])
    table = pd.DataFrame(fine_tuned(pretrained, further), columns=['method', 'images', 'rate', 'SROCC', 'PLCC'])
    figures.save(draw(table, before.srocc), args.out_dir, 'svd-demo')
    header = ['images', 'trained', 'SROCC [lowest, highest]', 'PLCC [lowest, highest]', 'learning rates']
    for style, suffix in (('text', '.txt'), ('markdown', '.md')):
        write_text(Path(args.out_dir, f'svd-demo{suffix}'), render(header, rows_of(table), style))
    print(f'\nPretrained: SROCC {source["test"]["SROCC"]:.3f} on its own distortions, {before.srocc:.3f} on the '
          'others\n\n' + render(header, rows_of(table)), end='')


if __name__ == '__main__':
    main()
