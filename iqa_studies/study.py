"""A study: settings that are trained on data sets, splits and seeds, and tested; and what it publishes and keeps."""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from iqa_runtime.errors import UserError
from iqa_studies.steps import Given, merge_options, typed, words_for
from iqa_training.options import TRAIN

TOLERANCE = .003  # three runs of one setting by the authors of Norm-in-Norm differ by this much SROCC
PLACES = ('dataset', 'data_weights', 'data_info', 'im_dir', 'ref_dir')  # of a data set, or of several at once
KEEP = {'curves': '--test_during_training', 'bhat': '--log_bhat'}
ENSEMBLE = 'ensemble'  # label of published numbers of all networks together


class Measure(NamedTuple):
    """What a published number measures: a criterion on a data set (None: the one trained on), or the best of a curve.

    `how`: '', of a run; 'mean ', over the splits; 'best val ', of the validation images over epochs.
    """

    how: str
    criterion: str
    data: str | None
    words: str


class CurveFiles(NamedTuple):
    """The curves of runs as CSV files; {loss_type}, {setting} and the like are filled in in the name `files`."""

    files: str
    parts: Sequence[str]
    criteria: Sequence[str]


@dataclass(frozen=True)
class Study:
    """A study as its file describes it; options are name -> value, checked.

    Attributes:
        title: heading of the report.
        common: options of all settings.
        settings: label -> options, which win; the grid is multiplied out.
        datasets, tests: places of the data sets to train on (none: as the settings say), and of others to test on.
        splits: label -> options.
        seeds: seeds of each run; None: that of the options.
        predictions: label -> table of others' scores.
        at: the file, for error messages.
        after: label -> that of the setting from whose checkpoint it starts.
        published: label -> what -> number, None if it is not known.
        tolerance, not_judged, judged_from, keep, curves, ranker, ensemble, predict: see the module.
        given: names of the options that came from the command line.
        start: file that stands for the checkpoints that settings start from.
        choose: label -> options, of which validation chooses for each setting; empty: nothing is chosen.
        note: what the page says of the study.
        by, by_name: kind of groups -> column of the info file, or regular expression that finds the group in a name.
    """

    title: str
    common: Given
    settings: Mapping[str, Given]
    datasets: Sequence[Given]
    splits: Mapping[str, Given]
    seeds: Sequence[int | None]
    tests: Sequence[Given]
    predictions: Mapping[str, Path]
    at: Path
    after: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Mapping[Measure, float | None]] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    not_judged: str = ''
    judged_from: str = ''
    keep: Sequence[str] = ()
    curves: CurveFiles | None = None
    ranker: bool = False
    ensemble: Mapping[str, str] = field(default_factory=dict)
    predict: str = ''
    given: frozenset[str] = frozenset()
    start: str = ''
    choose: Mapping[str, Given] = field(default_factory=dict)
    note: str = ''
    by: Mapping[str, str] = field(default_factory=dict)
    by_name: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the file."""
        return self.at.stem

    @property
    def varied(self) -> set[str]:
        """Return the names of the options that settings and splits choose."""
        return {name for options in (*self.settings.values(), *self.splits.values()) for name in options} - {'recipe'}

    def words(self, label: str, *more: Given) -> list[str]:
        """Return the words of main.py that train a setting with further options, which win."""
        if self.datasets:
            return words_for(merge_options(self.common, self.settings[label]), *more)
        return typed(self.common, self.settings[label], *more)

    def flags(self) -> list[str]:
        """Return the options by which a run records what is kept."""
        return [KEEP[what] for what in self.keep]

    def having(self, given: Given) -> 'Study':
        """Return the study with options in place of its own for all runs; UserError if settings differ in one.

        Its numbers are then not judged, if it is another training.
        """
        for name in sorted(given.keys() & self.varied):
            raise UserError(f'--{name}: {self.name} varies it by itself; leave the option out, or the target')
        if 'pretrained' in given and self.after:
            return self.starting_from(str(given['pretrained'])).having(
                {name: value for name, value in given.items() if name != 'pretrained'})
        changed = [name for name, value in given.items() if name in TRAIN.names() - HARMLESS
                   and value != self.common.get(name, TRAIN.defaults[name])]
        why = {'not_judged': 'other data' if 'dataset' in changed else 'other setting', 'judged_from': ''}
        return replace(self, common={**self.common, **given}, given=self.given | set(given), **why if changed else {})

    def starting_from(self, file: str) -> 'Study':
        """Return the study in which a file stands for the checkpoints that settings start from."""
        settings = {label: {**self.settings[label], **({'pretrained': file} if label in self.after else {})}
                    for label in self.last()}
        return replace(self, settings=settings, after={}, start=file)

    def only(self, labels: Iterable[str]) -> 'Study':
        """Return the study of some settings, and of those that they start from."""
        wanted = {}
        for label in labels:
            chain = [label]
            while chain[-1] in self.after:
                chain.append(self.after[chain[-1]])
            wanted |= dict.fromkeys(chain)
        return replace(self, settings={label: one for label, one in self.settings.items() if label in wanted},
                       published={label: some for label, some in self.published.items()
                                  if label in wanted or label == ENSEMBLE})

    def last(self) -> list[str]:
        """Return the settings that no other one starts from."""
        return [label for label in self.settings if label not in self.after.values()]


# options of training that leave it as published: precision, the place of the info file
HARMLESS = {'opt_level', 'amp_backend', 'sync_bn', 'randomness', 'data_info'}
