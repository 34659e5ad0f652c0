"""Run a study: train what is missing, test it, and write its tables, figures and page.

    python iqa_studies/run.py iqa_studies/four_systems.yaml --dry_run     what is missing, and the commands
    python iqa_studies/run.py iqa_studies/four_systems.yaml --jobs 4      four runs at once, one per GPU
    python iqa_studies/run.py mine.yaml --engine slurm --time_limit 240   a job of an array for each run

iqa_studies/study_file.py describes the file. A study that was stopped continues if it is run again; nothing is trained
twice.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.option_types import choice, count, number
from iqa_runtime.options import Command, group

ENGINE_NAMES = ('local', 'inline', 'slurm', 'ray')


@group('study', 'the study, and where its runs are trained')
def study(add) -> None:
    add('study', metavar='STUDY.yaml', help='the study (its keys: iqa_studies/study_file.py)')
    add('--folder', metavar='DIR', help='where all its files are kept (default: studies/STUDY)')
    add('--archive', metavar='DIR', help='where the report is written once more, with results, predictions and logs, '
                                         'but no checkpoints and no images: all that check.py looks at')
    add('--dry_run', action='store_true', help='print what is missing and the commands, and do nothing')
    add('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
        help="values of the study's keys, in place of the file's own: --set dataset=CLIVE 'splits={repeats: 10}'")
    add('--yes', action='store_true', help='allow more than 10,000 training runs')
    add('--engine', type=choice(ENGINE_NAMES, 'engine'), default='local',
        help='local: a process for each run; inline: all in this process, one after another, without the start of '
             'each; slurm: an array of jobs, by submitit; ray: a task per run on a Ray cluster')
    add('--jobs', type=count, help='runs at once (default: 1 locally; on a cluster, as many as it has room for)')
    add('--gpus', type=number(int, 0, 64), help='GPUs of each run on slurm and ray (default: 1 if available)')
    add('--time_limit', type=count, default=24 * 60, metavar='MINUTES', help='slurm: after it, a run is queued again')
    add('--partition', metavar='NAME', help='slurm: the partition')


STUDY = Command(__doc__, [study])

if __name__ == '__main__':
    STUDY.begin()  # --help and mistakes end here, before torch is imported

import shlex
from collections.abc import Sequence
from contextlib import suppress
from statistics import mean

from iqa_results.table_formats import render
from iqa_runtime import checks
from iqa_runtime.checks import fields
from iqa_runtime.errors import UserError, command, pick
from iqa_runtime.files import locked, parse_yaml, read_json
from iqa_runtime.options import Options
from iqa_studies.archive import archive
from iqa_studies.cells import Cell, Plan
from iqa_studies.engines import ENGINES, Resources
from iqa_studies.gains import numbers
from iqa_studies.jobs import INTERRUPTED, Job, terminable
from iqa_studies.plan import plan
from iqa_studies.published import HEADER
from iqa_studies.study import Study
from iqa_studies.study_file import KEYS, read_study


@command
def main(argv: list[str] | None = None) -> int:
    """Parse the options and run the study; return the exit status, 1 if a run failed."""
    args = STUDY.parse(argv)
    wanted = read_study(args.study, args.yes, changes_in(args.set))
    folder = Path(args.folder or Path('studies', Path(args.study).stem))
    if args.archive and Path(args.archive).resolve() == folder.resolve():
        raise UserError(f'--archive {args.archive}: expected another folder than that of the study')
    planned = plan(wanted, folder)
    if not args.dry_run:
        planned = planned.with_data()
    jobs = planned.jobs()
    print_plan(wanted, planned, jobs)
    if args.dry_run:
        print(*(shlex.join(words) for job in jobs for words in job.commands), sep='\n', end='\n' if jobs else '')
        return 0
    try:
        with locked(folder / '.lock'), terminable():
            failures = run_all(wanted, planned, folder, args)
    except KeyboardInterrupt:
        print('Stopped; the same command continues from there')
        return INTERRUPTED
    from iqa_studies.report import write_study_report  # slow to import: it draws
    planned = plan(wanted, folder, tried=True)
    outcomes, beside = planned.outcomes(folder), numbers(wanted, planned)
    reports = {folder: outcomes} if outcomes else {}
    if outcomes and args.archive:
        reports[Path(args.archive)] = archive(outcomes, Path(args.archive))
    for where, found in reports.items():
        tables = write_study_report(wanted.title, found, where, planned.images, beside, planned.choices, wanted.note,
                                    planned.groupings, thumbnails=where == folder)
        if settings := tables.get('settings'):
            print(f'\n{render(settings.header, settings.rows)}\n'
                  f'Page: {where / "study.html"} (tables and figures lie beside it)')
    if beside:
        print('\n' + render(HEADER, [row.words() for row in beside]), end='')
    if planned.left_out:
        print('Left out:', *planned.left_out, sep='\n  ')
    if failures:
        print('Failed:', *failures, sep='\n  ')
    return 1 if failures else 0


def changes_in(words: Sequence[str]) -> dict[str, object]:
    """Return the keys of a study and their values, of words KEY=VALUE with a value in YAML."""
    found = {}
    for word in words:
        key, equals, value = word.partition('=')
        if not equals:
            raise UserError(f'--set {word}: expected KEY=VALUE')
        found[pick(KEYS, key, 'key of a study (--set)')] = parse_yaml(value, f'--set {key}')
    return found


def run_all(wanted: Study, planned: Plan, folder: Path, args: Options) -> list[str]:
    """Run what is missing: first the runs by which values are chosen, then all others; return the failures."""
    failures = run_stages([planned.trying()], folder, args)
    if planned.choices:
        planned = plan(wanted, folder, tried=True).with_data()
    return failures + run_stages(planned.stages(), folder, args)


def run_stages(stages: Sequence[Sequence[Job]], folder: Path, args: Options) -> list[str]:
    """Run the stages one after the other, up to one that fails; return the failures."""
    resources = Resources(args.jobs, args.gpus, args.time_limit, args.partition)
    for stage in filter(None, stages):
        if failures := ENGINES[args.engine](stage, folder, resources):
            return failures
    return []


def print_plan(study: Study, planned: Plan, jobs: Sequence[Job]) -> None:
    """Print the splits, what is left out, how much there is to do, and how long that took before."""
    print(study.title)
    for (data, label), words in planned.splits.items():
        print(f'  {data}, split {label}: {words}')
    for why in planned.left_out:
        print(f'  left out: {why}')
    logs, cells = {job.log for job in jobs}, planned.trainings(trials=True)
    left = [cell for cell in cells if cell.output in logs]
    follow = (len(study.splits) * len(study.seeds) - 1) * sum(not choice.complete() for choice in planned.choices)
    print(f'{planned.count() - len(jobs)} of {planned.count()} runs are done'
          + (f'; to do: {how_long(left, cells)}' if jobs else '')
          + (f'; then {follow} with the values that these choose' if follow else ''), flush=True)


def how_long(left: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Return how long runs will take one after the other, by the mean of those of the same setting and data set."""
    seconds = {}
    for cell in cells:
        with suppress(UserError):
            took = read_json(cell.output.with_suffix('.json'), fields(seconds=checks.number), 'what a run took')
            seconds.setdefault((cell.setting, cell.trained_on), []).append(took['seconds'])
    known = [mean(seconds[key]) for cell in left if (key := (cell.setting, cell.trained_on)) in seconds]
    words = [f'{len(known)} runs of about {sum(known) / 60:.1f} minutes together, as measured'] * bool(known)
    return ' and '.join(words + [f'{len(left) - len(known)} not measured yet'] * (len(left) > len(known)))


if __name__ == '__main__':
    sys.exit(main())
