"""Check results: compute every number again from the predictions of each image, and check every split.

    python iqa_studies/check.py results/NAME.json        a run: its numbers, its split, its contents
    python iqa_studies/check.py studies/four_systems     a study: all its runs, and its tables
    python iqa_studies/check.py published/NAME           a published model: the numbers of its card

A folder of results can be given too, and a model on the hub, hf-hub:USER/NAME. It lists numbers that do not follow from
the predictions, and images or contents that are both trained and tested on; the exit status is then 1. It also lists
what it cannot check: a split needs the run's log, in runs/ beside the results or here, and contents need the info file
of the data set.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.options import Add, Command, group


@group('results', 'what is checked')
def results(add: Add) -> None:
    add('results', nargs='+', metavar='RESULT',
        help='NAME.json, a folder of them, the folder of a study, or a published model')


CHECK = Command(__doc__, [results])

if __name__ == '__main__':
    CHECK.begin()  # --help and mistakes end here, before torch is imported

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest

from iqa_results.table_formats import render
from iqa_runtime.checks import fields, line, list_of, optional, text, whole
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import read_json, read_text
from iqa_runtime.hub import on_hub
from iqa_runtime.published import CONFIG
from iqa_studies.honesty import Finding, finding_of
from iqa_studies.outcome import Outcome
from iqa_studies.study_groups import Grouping

OUTCOMES, FILES = 'outcomes.json', ('result', 'log', 'checkpoint')


def outcome_of(result: Path) -> Outcome:
    """Return the outcome of a results file, with its run's log if it is in runs/ beside its folder, or here."""
    outcome = Outcome(result.stem, '', 0, '', '', result)
    name = outcome.summary['run_name']
    logs = (folder / 'runs' / name for folder in (result.parent.parent, Path())) if name else ()
    log = next((log for log in logs if log.is_dir()), None)
    return replace(outcome, trained_on=outcome.summary['trained_on'], tested_on=outcome.summary['dataset'], log=log)


def _result(value) -> str:
    """Return the path of a NAME.json; ValueError otherwise."""
    if not Path(text(value)).name.endswith('.json'):
        raise ValueError('the path of a NAME.json')
    return value


_outcome = fields(setting=line, split=line, seed=whole, trained_on=line, tested_on=line, result=_result,
                  log=optional(text), checkpoint=optional(text))


def study_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes of a study's report, from its outcomes.json."""
    rows = read_json(folder / OUTCOMES, fields(outcomes=list_of(_outcome)), 'the outcomes of a study')['outcomes']
    return [Outcome(**row | {name: folder / row[name] for name in FILES if row[name] is not None}) for row in rows]


def study_groupings(folder: Path) -> list[Grouping]:
    """Return the kinds of groups of a study's report, from its outcomes.json."""
    def check(content) -> list[Grouping]:
        found = content.get('groupings')
        return list_of(partial(Grouping.restored, folder=folder))(found) if found else []
    return read_json(folder / OUTCOMES, check, 'the outcomes of a study')


def lacking(groupings: Sequence[Grouping]) -> list[Path]:
    """Return the info files that groups are columns of and that are not here."""
    files = dict.fromkeys(file for one in groupings if one.column for file in one.infos.values())
    return [file for file in files if not file.is_file()]


def wrong_tables(folder: Path, outcomes: Sequence[Outcome], groupings: Sequence[Grouping]) -> Iterator[str]:
    """Yield the tables of a study that do not follow from its outcomes; of groups only if no info file is lacking."""
    from iqa_studies.study_tables import TABLES, Findings, costs, groups, worst_groups  # slow to import
    findings = Findings(outcomes, groupings)
    unseen = {costs} | ({groups, worst_groups} if lacking(groupings) else set())  # costs are of another machine's times
    for table in (make(findings) for make in TABLES if make not in unseen):
        path = folder / f'{table.name}.csv'
        wanted = render(table.header, table.rows, 'csv').splitlines()
        found = read_text(path).splitlines() if path.exists() else []
        rows = [i for i, pair in enumerate(zip_longest(found, wanted), 1) if pair[0] != pair[1]]
        if rows and table.rows:
            yield f'{path.name} is not the table of these results, from row {rows[0]} on'


def outcomes_at(path: Path) -> list[Outcome]:
    """Return the outcomes of a results file, of a study's folder, or of all results in a folder."""
    if not path.is_dir():
        return [outcome_of(path)]
    if (path / OUTCOMES).exists():
        return study_outcomes(path)
    found = [outcome_of(file) for file in sorted(path.rglob('*.json')) if file.with_suffix('.csv').exists()]
    if not found:
        raise UserError(f'{path}: no results in it (NAME.json beside NAME.csv)')
    return found


def findings(path: Path) -> Iterator[Finding]:
    """Yield the findings about a published model, or about results and the tables of a study."""
    if on_hub(path) or (path / CONFIG).exists():
        from iqa_studies.published_model import check_published  # imports torch
        yield from check_published(path)
        return
    outcomes = outcomes_at(path)
    for outcome in outcomes:
        yield finding_of(outcome)
    if (path / OUTCOMES).exists():
        groupings = study_groupings(path)
        unseen = [f'not looked at: the groups of images: no {file} here' for file in lacking(groupings)]
        yield Finding(f'the tables of {path}', list(wrong_tables(path, outcomes, groupings)), unseen)


@command
def main(argv: list[str] | None = None) -> None:
    """Check the results, print what was found, and end with status 1 if something is wrong."""
    failed = False
    for path in map(Path, CHECK.parse(argv).results):
        for subject, wrong, notes in findings(path):
            print('\n  '.join([f'{"WRONG" if wrong else "holds"}  {subject}', *wrong,
                              *(f'({note})' for note in notes)]), flush=True)
            failed |= bool(wrong)
    if failed:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
