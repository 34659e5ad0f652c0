"""Check a published model: compute the numbers of its card again from its predictions."""
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iqa_results.read import CLOSE, OPTIONAL, metric, read_predictions
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.checks import checked_value, fields, list_of, number, text
from iqa_runtime.files import read_text
from iqa_runtime.names import as_file_name
from iqa_runtime.published import CONFIG, PREDICTIONS, README, SPLIT, folder_of
from iqa_scoring.readme import described_in, result, tested_parts
from iqa_studies.honesty import Finding, finding_of
from iqa_studies.outcome import Outcome
from iqa_training.card import metrics
from IQAperformance import intervals

SHOWN = 5e-5  # numbers of the card have four decimals


@dataclass(frozen=True)
class PublishedOutcome(Outcome):
    """The outcome of a published model on a data set; `about` is the content of its results (see Outcome.summary)."""

    about: dict = field(default_factory=dict)

    @property
    def summary(self) -> dict:
        """Return the content of the results."""
        return self.about


def check_published(path: Path) -> Iterator[Finding]:
    """Yield the findings about the predictions of each data set, and about the card; UserError if it cannot be loaded.
    """
    folder, checkpoint = folder_of(path), load_checkpoint(path)
    several, without = 'sets' in checkpoint, []
    for name, part, one in tested_parts(checkpoint):
        table = folder / PREDICTIONS.replace('*', f'-{as_file_name(name)}' if several else '')
        if not part or not table.is_file():
            without.append(f'not looked at: the metrics of {name}, published without predictions')
            continue
        _, wrong, notes = finding_of(outcome_of(folder, table, name, part, one))
        yield Finding(str(table), [*wrong, *wrong_intervals(table, part, one)], notes)
    card = folder / README
    wrong = list(wrong_card(card, checkpoint)) if card.exists() else ['there is no such file']
    yield Finding(str(card), wrong, without)


def outcome_of(folder: Path, table: Path, name: str, part: str, checkpoint: Mapping) -> PublishedOutcome:
    """Return the outcome of a published model on a part of a data set; `checkpoint` is that of the set."""
    claimed = {key: checked_value(folder, f'metrics: {key}', metric, value)
               for key, value in checkpoint['metrics'][part].items()}
    about = {**OPTIONAL, 'metrics': claimed, 'options': checkpoint.get('options', {}), 'dataset': name, 'part': part,
             'split_hash': checkpoint.get('split_hash'), 'k': checkpoint['k'], 'b': checkpoint['b'],
             'mapping': checkpoint.get('mapping', {}).get('name', 'linear')}
    trained_on = str(about['options'].get('dataset', ''))
    return PublishedOutcome(folder.name, '', 0, trained_on, name, table, folder if (folder / SPLIT).exists() else None,
                            about=about)


def wrong_intervals(table: Path, part: str, checkpoint: Mapping) -> Iterator[str]:
    """Yield the intervals that do not follow from the predictions."""
    predictions = read_predictions(table)
    found = intervals(predictions.pq, predictions.mos)
    for name, ends in checkpoint.get('intervals', {}).get(part, {}).items():
        if not _same(ends, found.get(name), CLOSE):
            yield (f'the interval of {name} is {_text(found.get(name))} by the predictions, but {_text(ends)} in '
                   f'{CONFIG}')


def wrong_card(path: Path, checkpoint: Mapping) -> Iterator[str]:
    """Yield the numbers of a README that are not those of its model."""
    written = read_text(path)
    expected = numbers_of([result(*part) for part in tested_parts(checkpoint)])
    index = described_in(written, str(path)).get('model-index')
    found = checked_value(path, 'model-index', numbers_in, index) if index else {}
    for key in {**expected, **found}:
        if not _same(expected.get(key), found.get(key), SHOWN):
            yield (f'{" ".join(key)} is {_text(expected.get(key))} in {CONFIG}, but {_text(found.get(key))} in the '
                   'description')
    lines = set(written.splitlines())
    yield from (f'the table lacks the row {row}' for row in metrics(checkpoint)
                if row.startswith('|') and row not in lines)


def numbers_in(index) -> dict[tuple[str, str, str], list[float]]:
    """Return (data set, part, metric) -> the value and the ends of its interval, of a model-index.

    Raises ValueError if the index is not of the form that the hub describes.
    """
    models = list_of(fields(results=list_of(fields(dataset=fields(name=text, split=text),
                                                   metrics=list_of(lambda one: one)))))(index)
    return numbers_of(models[0]['results'])


def numbers_of(results: Sequence[Mapping]) -> dict[tuple[str, str, str], list[float]]:
    """Return the numbers of the results in a model-index, as `numbers_in`."""
    return {(one['dataset']['name'], one['dataset']['split'], kind): values for one in results
            for kind, values in map(_metric, one['metrics'])}


def _metric(value) -> tuple[str, list[float]]:
    """Return the type of a metric, and its value with the ends of its interval; ValueError for another form."""
    known = fields(type=text, value=number)(value)
    args = value.get('args') or {}
    ends = fields(interval_95=list_of(number))(args)['interval_95'] if 'interval_95' in args else []
    return known['type'], [known['value'], *ends]


def _same(one: Sequence[float] | None, other: Sequence[float] | None, close: float) -> bool:
    known = one is not None and other is not None and len(one) == len(other)
    return known and np.allclose(one, other, rtol=CLOSE, atol=close)


def _text(values: Sequence[float] | None) -> str:
    return 'unknown' if values is None else ', '.join(f'{value:.6g}' for value in values)
