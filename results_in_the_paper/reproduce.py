"""Reproduce figures and tables of the paper: train what is missing, test, export, draw, and compare with the paper.

    python results_in_the_paper/reproduce.py figure1
    python results_in_the_paper/reproduce.py all --dry_run                    the commands, one per line
    python results_in_the_paper/reproduce.py figure5 table1 --jobs 4          four runs at once, one per GPU
    python results_in_the_paper/reproduce.py figure1 --dataset demo -arch resnet18 --weights none -e 8
    python results_in_the_paper/reproduce.py svd_cnniqa --pretrained FILE     another system's table
    python results_in_the_paper/reproduce.py asna --models model1 model3      ASNA: ranker, networks and their mean
    python results_in_the_paper/reproduce.py maniqa_ensemble --sizes 384 448 --folds 5 --predict Samsung-2023/test

Further options of main.py hold for all runs; with them the paper's numbers are shown beside ours, not judged. The
images of the demo data set are small, and are resized only with --resize. The same command continues after a stop.
"""
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_data.options import PREPROCESSING, data, places, split
from iqa_runtime.errors import pick
from iqa_runtime.option_types import count, number
from iqa_runtime.options import Command, Options, group, machine
from iqa_training.options import LOSS, NETWORK, TRAINING, recording

FIGURE5 = ('figure5_lr', 'figure5_bs', 'figure5_ft_lr_ratio')
ALL = ('figure1', 'figure4', *FIGURE5, 'figure6', 'figure7', 'figureA', 'table1', 'table2', 'tableA1', 'tableA2',
       't-test')
GROUPS = {'figure5': FIGURE5, 'bhat': ('figureA',), 'all': ALL}
SYSTEMS = ('svd_cnniqa', 'asna', 'maniqa_ensemble')  # with papers of their own
TARGETS = (*ALL, 'image_size', *SYSTEMS)  # each the study of that name in this folder
OWN = ('targets', 'jobs', 'dry_run', 'out_dir', 'splits', 'models', 'sizes', 'held_out', 'predict')
REFUSED = ('again', 'evaluate', 'list_models', 'name', 'resume', 'trained_model_file')  # of each run, and chosen here


def expand(names: Iterable[str]) -> list[str]:
    """Return the targets that are named, groups resolved, each once; UserError for an unknown one."""
    picked = [pick((*TARGETS, *GROUPS), name, 'target') for name in names]
    return list(dict.fromkeys(target for name in picked for target in GROUPS.get(name, [name])))


def check_targets(args: Options) -> None:
    """Refuse an unknown target."""
    expand(args.targets)


@group('reproduction', 'the figures and tables, and how to make them', check=check_targets)
def reproduction(add) -> None:
    add('targets', nargs='+', metavar='TARGET',
        help=f'any of {", ".join((*ALL, "image_size", *GROUPS))}; or of the other systems: {", ".join(SYSTEMS)}')
    add('--jobs', type=number(int, 1, 10 ** 4), default=1, help='runs at once, one per GPU where there are GPUs')
    add('--dry_run', action='store_true', help='print the commands, one per line, and do nothing')
    add('--out_dir', help='folder for figures and tables (default: RESULT_DIR/figures, and for another data set '
                          'RESULT_DIR/figures-DATASET)')
    add('--splits', type=count, help='svd_cnniqa: splits that are trained (default: the first)')
    add('--models', nargs='+', metavar='NAME', help='asna: train these networks alone (default: all)')
    add('--sizes', type=count, nargs='+', metavar='S',
        help='sizes of the networks of maniqa_ensemble (default: 384 448 640); --folds and --fold_order are its folds')
    add('--held_out', metavar='FILE', help='info file of further images, on which all networks of maniqa_ensemble are '
                                           'tested')
    add('--predict', metavar='DIR', help='folder of images that all networks of maniqa_ensemble score')


# what goes together depends on the recipe of a run, too: its own command checks it
UNCHECKED = [replace(one, check=None, table=None) for one in (*TRAINING, *LOSS, *NETWORK, split)]
REPRODUCE = Command(__doc__, [reproduction], [data, *UNCHECKED, recording, *PREPROCESSING, places, machine])

if __name__ == '__main__':
    REPRODUCE.begin()  # --help and mistakes end here, before torch is imported

import shlex
from collections.abc import Sequence

from iqa_data.datasets import dataset_name
from iqa_results import figures
from iqa_results.curves import read_scalars
from iqa_results.table_formats import FORMATS, SUFFIXES, render
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import write_text
from iqa_runtime.recipes import FOLDER
from iqa_studies.cells import Plan
from iqa_studies.chains import plan_chain
from iqa_studies.gains import numbers
from iqa_studies.jobs import INTERRUPTED, Runner, gpus, slots, terminable
from iqa_studies.published import HEADER, comparisons
from iqa_studies.study import Study
from iqa_studies.study_file import read_study
from iqa_training.options import TRAIN
from results_in_the_paper import (
    backbone_performance_plot,
    batch_size_performance_plot,
    bhat,
    bnMSE,
    export_csv,
    ft_lr_ratio_performance_plot,
    image_size_performance_plot,
    loss_performance_curves,
    lr_performance_plot,
    scatter_plots,
    sources,
    t_test,
    tables,
)

CURVES = {'figure1': loss_performance_curves, 'figure4': bnMSE, 'figure5_lr': lr_performance_plot,
          'figure5_bs': batch_size_performance_plot, 'figure5_ft_lr_ratio': ft_lr_ratio_performance_plot,
          'image_size': image_size_performance_plot}


@command
def main(argv: list[str] | None = None) -> int:
    """Parse the options and reproduce; return the exit status, 1 if anything failed."""
    args = REPRODUCE.parse(argv)
    studies = [study_for(name, args) for name in expand(args.targets)]
    chains = in_chains([plan_chain(study) for study in studies])
    if args.dry_run:
        left = [words for chain in chains for job in chain.jobs() for words in job.commands]
        print(*map(shlex.join, left), sep='\n', end='\n' if left else '')
        return 0
    chains = [chain.with_data() for chain in chains]
    runs = sum(chain.count() for chain in chains)
    print(f'{runs - sum(len(chain.jobs()) for chain in chains)} of {runs} runs are done', flush=True)
    for why in dict.fromkeys(why for chain in chains for why in chain.left_out):
        print(f'Left out: {why}', flush=True)
    try:
        with terminable():
            failures = run_chains(chains, slots(args.jobs, [] if 'device' in args.given else gpus()))
    except KeyboardInterrupt:
        print('Stopped; the same command continues from there')
        return INTERRUPTED
    out_dir = Path(args.out_dir or Path(args.result_dir, folder_name(args.dataset)))
    table = []
    for study in studies:
        plan = plan_chain(study)
        failures += draw(study, plan, out_dir)
        table += numbers(study, plan)
    report([row.words() for row in table], out_dir)
    if failures:
        print('Failed:', *failures, sep='\n  ')
    return 1 if failures else 0


def folder_name(dataset: str) -> str:
    """Return the folder of figures and tables: figures, or figures-DATASET for other data sets than the paper's."""
    return 'figures' if dataset == TRAIN.defaults['dataset'] else f'figures-{dataset_name(dataset)}'


# The studies

def study_for(name: str, args: Options) -> Study:
    """Return the study of a target, with the options that the user gave; UserError for those of a single run."""
    given = {name: value for name, value in args.values.items() if name in args.given and name not in OWN}
    for one in REFUSED:
        if one in given:
            raise UserError(f'--{one}: the driver chooses it for each run; leave it out')
    study = read_study(sources.STUDIES[name])
    if args.dataset == 'demo' and 'resize' in study.common:
        given.setdefault('resize', False)  # its images are small
    if 'how' in study.ensemble:
        study = of_sizes(study, args, given)
    if args.models and study.ranker:
        study = study.only(pick(study.last(), model, f'network of {name}') for model in args.models)
    if args.splits and '1' in study.splits and 'split_index' in study.splits['1']:
        study = replace(study, splits={str(i): {'split_index': i} for i in range(1, args.splits + 1)})
    return study.having(given)


def of_sizes(study: Study, args: Options, given: dict) -> Study:
    """Return the study of the ensemble with the sizes, the folds and the further images that the user chose.

    A size without a recipe is trained by that of 384.
    """
    sizes = map(str, args.sizes) if args.sizes else list(study.settings)
    settings = {size: {'recipe': [f'maniqa_{size}']} if Path(FOLDER, f'maniqa_{size}.txt').exists() else
                {'recipe': ['maniqa_384'], **dict.fromkeys(('img_size', 'resize_size_h', 'resize_size_w'), int(size))}
                for size in sizes}
    tests = [{'dataset': args.held_out, **{name: given[name] for name in ('im_dir',) if name in given}}
             ] if args.held_out else []
    splits = {str(fold): {'fold': fold} for fold in range(args.folds if 'folds' in given else len(study.splits))}
    known = next(iter(study.published.values()))
    return replace(study, settings=settings, tests=tests, splits=splits, predict=args.predict or '',
                   published=dict.fromkeys(settings, known))


def in_chains(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans, those of a single stage in one, so that they share their runs."""
    flat = [plan for plan in plans if not plan.first and not plan.last and not any(cell.stage for cell in plan.cells)]
    shared = Plan(cells=[cell for plan in flat for cell in plan.cells])
    return [shared] * bool(flat) + [plan for plan in plans if plan not in flat]


def run_chains(chains: Iterable[Plan], free: list[dict[str, str]]) -> list[str]:
    """Run the stages of each chain, one after the other up to one that fails; return the failures."""
    failures = []
    for chain in chains:
        for stage in chain.stages():
            failed = Runner(free).run(stage)
            failures += failed
            if failed:
                break
    return failures


# What is drawn

def draw(study: Study, plan: Plan, out_dir: Path) -> list[str]:
    """Draw a study into a folder by the script of its figure or table; return its failures in words."""
    failures = export_curves(plan) if study.name in CURVES else []
    try:
        if study.name in CURVES:
            draw_curve_figure(study, plan, out_dir)
        elif study.name in DRAWERS:
            DRAWERS[study.name](study, plan, out_dir)
        elif study.name in tables.SHOWN:
            for style in FORMATS:
                write_text(out_dir / f'{study.name}{SUFFIXES[style]}', tables.draw(comparisons(study, plan), style))
    except (UserError, SystemExit) as error:  # a script's own main has printed the reason
        failures.append(f'{study.name} is not drawn' + (f': {error}' if isinstance(error, UserError) else ''))
    return failures


def export_curves(plan: Plan) -> list[str]:
    """Write the curves that runs have recorded as the CSV files that the figures read; return the failures.

    A log counts before CSV files, which may be of another setting's run.
    """
    failures = []
    for cell in plan.cells:
        try:
            curves = read_scalars(cell.log) if cell.has_log() else {}
            for path, tag in cell.curves.items():
                if tag in curves:
                    write_text(path, export_csv.csv_text(curves[tag]))
            if not curves and not (cell.result() and cell.is_recorded()):
                failures.append(f'{cell.training.checkpoint.stem} left no curves')
        except UserError as error:
            failures.append(str(error))
    return failures


def draw_curve_figure(study: Study, plan: Plan, out_dir: Path) -> None:
    """Draw a figure of curves, if all its runs have left something."""
    lacking = [cell.training.checkpoint.stem for cell in plan.cells
               if not cell.result() and not cell.has_log()]
    if lacking:
        raise UserError(f'no curves of {", ".join(lacking)}')
    options = plan.cells[0].options
    CURVES[study.name].main(['--csv_dir', str(Path(options['result_dir'], 'csv')), '--out_dir', str(out_dir),
                             '--dataset', options['dataset']])


def draw_figure6(study: Study, plan: Plan, out_dir: Path) -> None:
    """Draw the bars of backbones and losses."""
    figures.save(backbone_performance_plot.draw(comparisons(study, plan)), out_dir, study.name)


def draw_figure7(study: Study, plan: Plan, out_dir: Path) -> None:
    """Draw predictions against MOS."""
    figures.save(scatter_plots.draw(scatter_plots.from_cells(plan.cells)), out_dir, study.name)


def draw_bhat(study: Study, plan: Plan, out_dir: Path) -> None:
    """Draw the norm of the centred predictions."""
    bhat.main([str(plan.cells[0].log / 'bhat.csv'), '--out_dir', str(out_dir)])


def draw_t_test(study: Study, plan: Plan, out_dir: Path) -> None:
    """Write and print the t-tests."""
    plcc = t_test.plcc_of(plan.cells)
    if not any(plcc.values()):
        raise UserError('no result of the 30 runs')
    for style in FORMATS:
        write_text(out_dir / f'{study.name}{SUFFIXES[style]}', t_test.draw(plcc, style))
    print(t_test.draw(plcc), end='')


DRAWERS = {'figure6': draw_figure6, 'figure7': draw_figure7, 'figureA': draw_bhat, 't-test': draw_t_test}


def report(table: Sequence[Sequence[str]], out_dir: Path) -> None:
    """Print the table of all numbers, ours and the published ones, and write it in all formats."""
    if not table:
        return
    for style in FORMATS:
        write_text(out_dir / f'reproduced{SUFFIXES[style]}', render(HEADER, table, style))
    print('\n' + render(HEADER, table), end='')


if __name__ == '__main__':
    sys.exit(main())
