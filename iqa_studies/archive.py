"""Archive what a study's numbers follow from: results, predictions and logs, without the trained networks."""
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iqa_studies.outcome import Outcome

LOGGED = ('split.csv', 'options.json', 'scalars.csv', 'events.out.tfevents.*')  # of a run's log


def archive(outcomes: Sequence[Outcome], folder: Path) -> list[Outcome]:
    """Copy the files of outcomes, without checkpoints, into results/ and runs/ of a folder; return the copies.

    A report of the copies holds all that iqa_studies/check.py looks at.
    """
    copied = []
    for outcome in outcomes:
        result = folder / 'results' / outcome.result.name
        result.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ('.json', '.csv'):
            shutil.copy(outcome.result.with_suffix(suffix), result.with_suffix(suffix))
        log = None
        if outcome.log is not None:
            log = folder / 'runs' / outcome.log.name
            log.mkdir(parents=True, exist_ok=True)
            for file in sorted(path for pattern in LOGGED for path in outcome.log.glob(pattern)):
                shutil.copy(file, log / file.name)
        copied.append(replace(outcome, result=result, log=log, checkpoint=None))
    return copied
