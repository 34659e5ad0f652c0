"""Reproduce figures and tables of the paper: train what is missing, test, export, draw, and compare with the paper.

    python results_in_the_paper/reproduce.py figure1
    python results_in_the_paper/reproduce.py all --dry_run                    the commands, one per line
    python results_in_the_paper/reproduce.py figure5 table1 --jobs 4          four runs at once, one per GPU
    python results_in_the_paper/reproduce.py figure1 --dataset demo -arch resnet18 --weights none -e 8
    python results_in_the_paper/reproduce.py svd_cnniqa --pretrained FILE     another system's table
    python results_in_the_paper/reproduce.py asna --models model1 model3      ASNA: ranker, networks and their mean
    python results_in_the_paper/reproduce.py maniqa_ensemble --sizes 384 448 --folds 5 --predict Samsung-2023/test

Further options of main.py hold for all runs; with them the paper's numbers are shown beside ours, not judged. The
images of the demo data set are small, and are resized only with --resize. Run again, it goes on where it was stopped.
"""
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_data.options import PREPROCESSING, data, places, split
from iqa_runtime.option_types import count, number
from iqa_runtime.options import Command, Options, group, machine, words_of
from iqa_training.options import LOSS, NETWORK, TRAINING, recording
from results_in_the_paper.driver.targets import GROUPS, SYSTEMS, TARGETS, WantedRun, check_free, expand, merge, runs_of

DRIVER = ('targets', 'jobs', 'dry_run', 'out_dir', 'splits', 'models', 'sizes', 'held_out', 'predict')
REFUSED = ('evaluate', 'list_models', 'resume', 'trained_model_file')  # of each run, and chosen here
OF_ONE_SET = ('im_dir', 'data_info')  # not of the other data sets that a run is tested on


def check_targets(args: Options) -> None:
    """Refuse an unknown target."""
    expand(args.targets)


@group('reproduction', 'the figures and tables, and how to make them', check=check_targets)
def reproduction(add) -> None:
    add('targets', nargs='+', metavar='TARGET',
        help=f'any of {", ".join((*TARGETS, *GROUPS))}; or of the other systems: {", ".join(SYSTEMS)}')
    add('--jobs', type=number(int, 1, 10 ** 4), default=1, help='runs at once, one per GPU where there are GPUs')
    add('--dry_run', action='store_true', help='print the commands, one per line, and do nothing')
    add('--out_dir', help='folder for figures and tables (default: RESULT_DIR/figures, and for another data set '
                          'RESULT_DIR/figures-DATASET)')
    add('--splits', type=count, default=1, help='splits of a system that is trained on several')
    add('--models', nargs='+', metavar='NAME', help='asna: train these networks alone (default: all)')
    add('--sizes', type=count, nargs='+', metavar='S',
        help='sizes of the networks of maniqa_ensemble (default: 384 448 640); --folds and --fold_order are its folds')
    add('--held_out', metavar='FILE', help='info file of further images, on which all networks of maniqa_ensemble are '
                                           'tested')
    add('--predict', metavar='DIR', help='folder of images that all networks of maniqa_ensemble score')


# what goes together depends on the recipe of a run, too: its own command checks it
UNCHECKED = [replace(one, check=None, table=None) for one in (*TRAINING, *LOSS, split)]
REPRODUCE = Command(__doc__, [reproduction], [data, *UNCHECKED, recording, *NETWORK, *PREPROCESSING, places,
                                              machine])

if __name__ == '__main__':
    REPRODUCE.begin()  # --help and mistakes end here, before torch is imported

import shlex
from collections.abc import Iterable

from iqa_runtime.errors import UserError, command
from iqa_runtime.files import write_text
from iqa_runtime.running import INTERRUPTED, Job, Runner, gpus, slots, terminable
from iqa_runtime.table_formats import FORMATS, SUFFIXES, render
from iqa_scoring.options import TEST
from results_in_the_paper.driver import verdicts
from results_in_the_paper.driver.drawing import draw
from results_in_the_paper.driver.settings import PAPER
from results_in_the_paper.driver.shelf import Shelf
from results_in_the_paper.driver.systems import Setting, System, system_of


@command
def main(argv: list[str] | None = None) -> int:
    """Parse the options and reproduce; return the exit status, 1 if anything failed."""
    args = REPRODUCE.parse(argv)
    names = expand(args.targets)
    targets, shelf = [name for name in names if name not in SYSTEMS], shelf_of(args)
    setting = Setting(given_of(args), args.splits, args.models, tuple(args.sizes or ()), args.held_out, args.predict)
    systems = [system_of(name, setting) for name in names if name in SYSTEMS]
    check_free(targets, {name: shelf.base[name] for name in args.given if name in PAPER})
    runs = merge(run for target in targets for run in runs_of(target, shelf.base))
    shelf.look()
    jobs = [Job(commands) for commands in map(shelf.commands, runs) if commands]
    chains = [[jobs], *map(missing, systems)]
    left = [words for chain in chains for stage in chain for job in stage for words in job.commands]
    if args.dry_run:
        print(*map(shlex.join, left), sep='\n', end='\n' if left else '')
        return 0
    tell_what_is_there(len(runs), len(jobs), systems)
    try:
        with terminable():
            failures = run_chains(chains, slots(args.jobs, [] if 'device' in args.given else gpus()))
    except KeyboardInterrupt:
        print('Stopped; the same command goes on from there')
        return INTERRUPTED
    shelf.look()
    out_dir = Path(args.out_dir or shelf.figure_dir)
    failures += export(shelf, runs) + [why for target in targets for why in draw(target, shelf, out_dir)]
    report(targets, shelf, systems, out_dir)
    if failures:
        print('Failed:', *failures, sep='\n  ')
    return 1 if failures else 0


def missing(system: System) -> list[list[Job]]:
    """Return the missing steps of a system, stage by stage."""
    return [[Job([step.command()]) for step in stage] for stage in system.missing()]


def tell_what_is_there(runs: int, lacking: int, systems: Iterable[System]) -> None:
    """Print how many of the runs are there."""
    for system in systems:
        runs += len({step for stage in system.stages for step in stage})
        lacking += sum(map(len, system.missing()))
    print(f'{runs - lacking} of {runs} runs are there', flush=True)


def run_chains(chains: Iterable[list[list[Job]]], free: list[dict[str, str]]) -> list[str]:
    """Run the stages of each chain, one after the other up to one that fails; return the failures."""
    failures = []
    for chain in chains:
        for stage in filter(None, chain):
            failed = Runner(free).run(stage)
            failures += failed
            if failed:
                break
    return failures


def given_of(args: Options) -> dict:
    """Return the options of main.py that the user gave, by name; UserError for those of a single run."""
    given = {name: value for name, value in args.values.items() if name in args.given and name not in DRIVER}
    for name in REFUSED:
        if name in given:
            raise UserError(f'--{name}: the driver chooses it for each run; leave it out')
    return given


def shelf_of(args: Options) -> Shelf:
    """Sort the options that the user gave: those that make another setting, and those passed on to all commands."""
    given = given_of(args)
    base = {name: value for name, value in given.items() if name in PAPER}
    if args.dataset == 'demo':
        base.setdefault('resize', False)
    others = {name: value for name, value in given.items() if name not in PAPER}
    tests = set(TEST.actions) - set(OF_ONE_SET)
    return Shelf(Path(args.result_dir), Path(args.log_dir), Path(args.checkpoint_dir), base, words_of(others),
                 words_of({name: value for name, value in others.items() if name in tests}),
                 {name: value for name, value in others.items() if name in args.command.names()})


def export(shelf: Shelf, runs: Iterable[WantedRun]) -> list[str]:
    """Export the curves of all runs; return the failures."""
    failures = []
    for run in runs:
        try:
            if run.curves:
                shelf.export(run)
        except UserError as error:
            failures.append(str(error))
    return failures


def report(targets: Iterable[str], shelf: Shelf, systems: Iterable[System], out_dir: Path) -> None:
    """Print the table of all numbers, ours and the published ones, and write it in all formats."""
    found = [*(verdicts.rows(target, shelf) for target in targets), *(system.rows() for system in systems)]
    rows = [row.words() for some in found for row in some]
    if not rows:
        return
    for style in FORMATS:
        write_text(out_dir / f'reproduced{SUFFIXES[style]}', render(verdicts.HEADER, rows, style))
    print('\n' + render(verdicts.HEADER, rows), end='')


if __name__ == '__main__':
    sys.exit(main())
