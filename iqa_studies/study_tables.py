"""The tables of a study: quality over splits and across data sets, significance, cost, and the runs behind them."""
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from iqa_results import statistics as st
from iqa_results.comparison import VALUES, values_of
from iqa_results.groups import FEWEST, Grouped, grouped
from iqa_results.mapping import NoFitError, mapped
from iqa_results.read import read_predictions
from iqa_results.significance import dependent, holm
from iqa_results.table_formats import as_word
from iqa_studies import cost
from iqa_studies.outcome import Outcome
from iqa_studies.study_groups import Grouping
from IQAperformance import CRITERIA, agreement

MAPPED = '4-parameter logistic'
QUALITY = ('SROCC', 'PLCC', 'PLCC mapped', 'KROCC', 'RMSE', 'RMSE mapped')  # mapped: after the logistic
TESTS = ('Wilcoxon', 'Williams', 'Steiger')
NEAR = .95  # of the end of a curve: the measure of the Norm-in-Norm paper
OF_GROUPS = ('mean SROCC', 'mean PLCC', 'SROCC between', 'PLCC between')
MOST_WORST = 5  # groups of each setting that are listed
TESTED_AS = {'test': '', 'all': ', whole', 'val': ', on the validation images, which chose the epoch'}


class StudyTable(NamedTuple):
    """A table of words; `runs` are the numbers of the runs behind each row."""

    name: str
    title: str
    header: Sequence[str]
    rows: list[list[str]]
    runs: list[list[int]]
    note: str = ''


class Findings:
    """The outcomes of a study with their quality, computed from the predictions of each image.

    Correlations are positive if scores agree with people. Scores of a network that was trained on MOS and is tested on
    a set whose scores fall with quality (DMOS), or the other way round, are negated; so are others' predictions, of
    outcomes that were trained on nothing, if they fall as the MOS rise.

    Attributes:
        outcomes: the runs, by number.
        groupings: the kinds of groups of images.
        scores: of each run, the columns mos and score of the images, by name.
        runs: a row for each run: run, setting, split, seed, trained, tested (the data set and what of it), QUALITY.
    """

    def __init__(self, outcomes: Sequence[Outcome], groupings: Sequence[Grouping] = ()):
        self.outcomes, self.groupings = list(outcomes), list(groupings)
        self.scores = [outcome.predictions().set_index('image').sort_index() for outcome in outcomes]
        rows = [self._row(run, outcome) for run, outcome in enumerate(self.outcomes)]
        self.runs = pd.DataFrame(rows, columns=['run', 'setting', 'split', 'seed', 'trained', 'tested', *QUALITY])

    def _row(self, run: int, outcome: Outcome) -> dict:
        """Return the row of a run; others' predictions are tested on what a run of the study with their images is."""
        scores, part = self.scores[run], outcome.summary['part']
        if not outcome.trained_on:
            same = (one for one, other in zip(self.outcomes, self.scores, strict=True)
                    if one.trained_on and one.tested_on == outcome.tested_on and other.index.equals(scores.index))
            part = next((one.summary['part'] for one in same), part)
            scores['score'] *= -1 if agreement(scores.score.to_numpy(), scores.mos.to_numpy())['SROCC'] < 0 else 1
        elif outcome.summary['reversed']:
            scores['score'] *= -1
        found = quality(scores.score.to_numpy(), scores.mos.to_numpy())
        if not outcome.trained_on or outcome.summary['reversed']:
            found['RMSE'] = math.nan  # on a scale of their own
        whole = ', whole' if outcome.trained_on and outcome.split == 'all' else ''
        return {'run': run, 'setting': outcome.setting, 'split': outcome.split, 'seed': outcome.seed,
                'trained': outcome.trained_on + whole, 'tested': outcome.tested_on + TESTED_AS.get(part, f', {part}'),
                **found}

    def groups(self) -> Iterator[tuple[tuple[str, str], dict[str, pd.DataFrame]]]:
        """Yield ((trained, tested), {setting: its runs}) of settings that can be compared, others' among them."""
        for key, rows in self.runs[self.runs.trained != ''].groupby(['trained', 'tested'], sort=False):
            others = self.runs[(self.runs.trained == '') & (self.runs.tested == key[1])]
            yield key, dict(list(pd.concat([rows, others]).groupby('setting', sort=False)))

    def pairs(self, a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[int, int]]:
        """Return the runs of two settings on the same images, with the same split and seed if both were trained."""
        def paired(x, y) -> bool:
            both = (x.split, x.seed) == (y.split, y.seed) or '' in (x.trained, y.trained)
            return both and self.scores[x.run].index.equals(self.scores[y.run].index)
        found = [(x.run, next((y.run for y in b.itertuples() if paired(x, y)), None)) for x in a.itertuples()]
        return [(x, y) for x, y in found if y is not None]

    def _in_groups(self, grouping: Grouping) -> dict[int, Grouped]:
        """Return run -> the agreement in groups of images, of the runs whose images have such groups."""
        found = {}
        for run, outcome in enumerate(self.outcomes):
            if outcome.tested_on in grouping.infos:
                scores = self.scores[run]
                found[run] = grouped(scores.score.to_numpy(), scores.mos.to_numpy(),
                                     grouping.of(outcome.tested_on, scores.index.tolist()))
        return found

    @cached_property
    def in_groups(self) -> list[tuple[list[str], pd.DataFrame, pd.DataFrame]]:
        """Return labels, runs with OF_GROUPS, and the worst groups, of each setting and each kind of groups."""
        rows = []
        for grouping in self.groupings:
            found = self._in_groups(grouping)
            values = pd.DataFrame([[*(one.mean(name) for name in ('SROCC', 'PLCC')), one.between['SROCC'],
                                    one.between['PLCC']] for one in found.values()], list(found), OF_GROUPS)
            runs = self.runs.join(values, how='inner')
            rows += [([*labels, grouping.label], some, _worst_groups(found, some.run))
                     for labels, some in runs.groupby(['trained', 'tested', 'setting'], sort=False)]
        return rows


def quality(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return QUALITY of scores and MOS, both (N,); nan for what is not defined."""
    try:
        fitted = agreement(mapped(MAPPED, x, y), y)
    except NoFitError:
        fitted = dict.fromkeys(CRITERIA, math.nan)
    return {**agreement(x, y), 'PLCC mapped': fitted['PLCC'], 'RMSE mapped': fitted['RMSE']}


def over_units(runs: pd.DataFrame, name: str) -> pd.Series:
    """Return a criterion by split, the mean over its seeds; by seed if all runs have one split."""
    unit = 'split' if runs['split'].nunique() > 1 else 'seed'
    return runs.groupby(unit, sort=False)[name].agg(lambda values: values.to_numpy().mean())


def scale_of(name: str) -> str:
    """Return the scale on which the interval of one of QUALITY is computed, a name in st.SCALES."""
    return 'correlation' if CRITERIA[name.removesuffix(' mapped')].correlation else 'error'


def median(runs: pd.DataFrame, name: str) -> float:
    """Return the median of a criterion over splits; nan if it is not defined in any."""
    return st.spread(over_units(runs, name)).median


def _table(name: str, title: str, header: Sequence[str], rows: list[tuple[list[str], Sequence[int]]], note: str = ''
           ) -> StudyTable:
    return StudyTable(name, title, header, [words for words, _ in rows], [list(runs) for _, runs in rows], note)


def _by_setting(findings: Findings) -> Iterator[tuple[list[str], Sequence[int], Mapping[str, st.Spread], str]]:
    """Yield labels, runs, spread of each criterion, and the number of splits as a word."""
    for labels, some in findings.runs.groupby(['trained', 'tested', 'setting'], sort=False):
        spreads = {name: st.spread(over_units(some, name), scale_of(name)) for name in QUALITY}
        first = spreads['SROCC']
        splits = f'{first.count}' if first.defined == first.count else f'{first.defined} of {first.count}'
        yield list(labels), some.run, spreads, splits


def settings(findings: Findings) -> StudyTable:
    """Return the median of each criterion over splits, a row for each setting."""
    rows = [([*labels, splits, *(as_word(spread.median) for spread in spreads.values())], runs)
            for labels, runs, spreads, splits in _by_setting(findings)]
    return _table('settings', 'Settings', ['trained on', 'tested on', 'setting', 'splits', *QUALITY], rows,
                  'Medians over splits. Mapped: after the logistic curve of four parameters, fitted on the tested '
                  'images. Predictions of others have no training set here, and no RMSE on their own scale.')


def criteria(findings: Findings) -> StudyTable:
    """Return median, mean, standard deviation and interval of every criterion of every setting."""
    rows = [([*labels, name, splits, *map(as_word, spread[2:])], runs) for labels, runs, spreads, splits in
            _by_setting(findings) for name, spread in spreads.items()]
    header = ['trained on', 'tested on', 'setting', 'criterion', 'splits', 'median', 'mean', 'std', 'low', 'high']
    return _table('criteria', 'Every criterion over splits', header, rows,
                  "low and high: 95 % interval of the mean over three splits or more, over seeds if there is one "
                  "split: Student's t, on Fisher's z of correlations and the logarithm of errors. "
                  'Splits of one data set share training images, so that it is rather too short.')


def across(findings: Findings) -> StudyTable:
    """Return the matrix of data sets trained and tested on, for each setting; no rows if there is one data set."""
    runs, rows = findings.runs[findings.runs.trained != ''], []
    tested = list(dict.fromkeys(runs.tested))
    for labels, some in runs.groupby(['setting', 'trained'], sort=False) if len(tested) > 1 else ():
        medians = [[median(some[some.tested == one], name) for name in ('SROCC', 'PLCC mapped')] for one in tested]
        rows.append(([*labels, *(' / '.join(map(as_word, pair)) for pair in medians)], some.run))
    return _table('across', 'Across data sets', ['setting', 'trained on', *tested], rows,
                  'Medians of SROCC / PLCC mapped. A set that is not the one trained on is tested whole.')


def significance(findings: Findings) -> StudyTable:
    """Return the tests of each pair of settings on the same splits, corrected by Holm's method in each group."""
    rows = []
    for key, some in findings.groups():
        for criterion in ('SROCC', 'PLCC'):
            names = list(combinations(some, 2))
            tested = [_tests(findings, criterion, some[a], some[b]) for a, b in names]
            corrected = zip(*(holm(p) for p in zip(*(tests for *_, tests in tested), strict=True)), strict=True)
            for pair, (runs, mean, splits, tests), adjusted in zip(names, tested, corrected, strict=True):
                p = [as_word(value, '.2g') for both in zip(tests, adjusted, strict=True) for value in both]
                rows.append(([*key, criterion, *pair, as_word(mean, '+.3f'), str(splits), *p], runs))
    header = ['trained on', 'tested on', 'criterion', 'setting', 'other', 'difference', 'splits',
              *(f'{test}{kind}' for test in TESTS for kind in (' p', ' Holm'))]
    return _table('significance', 'Differences between settings', header, rows,
                  "Two-sided p, and with Holm's correction over the pairs. Wilcoxon's signed ranks over splits: fewer "
                  "than six cannot reach .05. Williams' (1959) and Steiger's (1980) tests over images, for several "
                  'splits twice the median p. Difference: of the means.')


def _tests(findings: Findings, criterion: str, a: pd.DataFrame, b: pd.DataFrame
           ) -> tuple[list[int], float, int, list[float]]:
    """Return the runs, the mean difference, the number of splits, and the p of TESTS of two settings."""
    pairs = findings.pairs(a, b)
    paired = findings.runs.loc[[x for x, _ in pairs], ['split', 'seed', criterion]]
    paired['difference'] = paired[criterion] - findings.runs.loc[[y for _, y in pairs], criterion].to_numpy()
    difference = over_units(paired, 'difference').to_numpy()
    images = [dependent(CRITERIA[criterion], *(findings.scores[run].score.to_numpy() for run in pair),
                        findings.scores[pair[0]].mos.to_numpy()) for pair in pairs]
    over_images = [st.over_splits([found[test.lower()][1] for found in images]) for test in TESTS[1:]]
    return ([run for pair in pairs for run in pair], st.spread(difference).mean, len(difference),
            [st.signed_rank(difference, 0), *over_images])


def costs(findings: Findings) -> StudyTable:
    """Return size, work and time of each setting beside its quality on the set that it was trained on."""
    rows = []
    for labels, some in findings.runs[findings.runs.trained != ''].groupby(['trained', 'setting'], sort=False):
        outcomes = [findings.outcomes[run] for run in some.run]
        seconds = [cost.seconds_per_image(outcome) for outcome in outcomes]
        numbers = [*(outcomes[0].parameters.get(name, math.nan) / 1e6 for name in ('plain', 'trainable')),
                   cost.macs(outcomes[0]) / 1e9, 1e3 * st.spread(seconds).median]
        own = some[some.tested == some.tested.iloc[0]]
        rows.append(([*labels, *(as_word(value, '.4g') for value in numbers),
                      *(as_word(median(own, name)) for name in ('SROCC', 'PLCC mapped'))], some.run))
    header = ['trained on', 'setting', 'parameters, M', 'trainable, M', 'MACs, G', 'ms a training image', 'SROCC',
              'PLCC mapped']
    return _table('cost', 'Cost beside quality', header, rows,
                  'MACs: of one image of the size that is tested. Time: the median step of training over the batch, '
                  'loading included, by the clock of the machine that trained.')


def speed(findings: Findings) -> StudyTable:
    """Return how many epochs the validation SROCC of each setting takes to NEAR of its value after the last epoch."""
    rows, outcomes = [], findings.outcomes
    for labels, some in findings.runs[findings.runs.trained != ''].groupby(['trained', 'setting'], sort=False):
        own = some[some.tested == some.tested.iloc[0]]
        curves = [cost.validation(outcomes[run].log) for run in own.run]
        epochs = st.spread([cost.epochs_to(curve, NEAR) for curve in curves])
        if epochs.defined:
            last = st.spread([abs(curve[-1, 1]) for curve in curves if len(curve)])
            rows.append(([*labels, f'{epochs.count}', *(as_word(value, 'g') for value in (epochs.median, epochs.mean)),
                          as_word(last.median)], own.run))
    header = ['trained on', 'setting', 'runs', 'epochs, median', 'epochs, mean', 'SROCC of val at the end']
    return _table('speed', f'Epochs to {NEAR:.0%} of the end', header, rows,
                  f'After how many epochs the SROCC of the validation images first is {NEAR:.0%} of that after the '
                  'last epoch (with --val_every: iterations). A setting that ends low can be there soon: look at both.')


def provenance(findings: Findings) -> StudyTable:
    """Return a row for each run: on what, and the file of its results."""
    header = ['run', 'setting', 'split', 'seed', 'trained on', 'tested on', 'images', 'SROCC', 'PLCC', 'split hash',
              'result']
    rows = [([f'{row.run}', row.setting, row.split, f'{row.seed}', row.trained, row.tested,
              f'{len(findings.scores[row.run])}', as_word(row.SROCC, '.4f'), as_word(row.PLCC, '.4f'),
              findings.outcomes[row.run].split_hash or '-', findings.outcomes[row.run].result.name], [row.run])
            for row in findings.runs.itertuples()]
    return _table('runs', 'Runs', header, rows)


def beyond(findings: Findings) -> StudyTable:
    """Return the median over splits of errors, pairs of images and what the raters' noise leaves, for each setting."""
    values = [values_of(read_predictions(outcome.result.with_suffix('.csv'))) for outcome in findings.outcomes]
    known = [name for name in VALUES if any(math.isfinite(found[name]) for found in values)]
    runs = findings.runs.join(pd.DataFrame(values, columns=known))
    rows = [([*labels, *(as_word(median(some, name)) for name in known)], some.run)
            for labels, some in runs.groupby(['trained', 'tested', 'setting'], sort=False)]
    left = [name for name in VALUES if name not in known]
    lacks = f' Not without std and votes of the ratings: {", ".join(left)}.' if left else ''
    return _table('beyond', 'Errors, pairs of images, raters', ['trained on', 'tested on', 'setting', *known], rows,
                  'Medians over splits; errors after the 3rd-order monotonic mapping. docs/evaluation.md has the '
                  f'formulas.{lacks}')


def _worst_groups(found: Mapping[int, Grouped], runs: Sequence[int]) -> pd.DataFrame:
    """Return images, SROCC and PLCC of each group, means over the runs in which it has an SROCC, the worst first."""
    inside = pd.DataFrame([{'group': group, **values} for run in runs for group, values in found[run].inside.items()],
                          columns=['group', 'images', 'SROCC', 'PLCC'])
    return inside.dropna(subset='SROCC').groupby('group').mean().sort_values('SROCC', kind='stable')


def groups(findings: Findings) -> StudyTable:
    """Return the agreement inside groups of images and between them, and the worst group, for each setting."""
    rows = [([*labels, f'{len(worst)}', *(as_word(median(some, name)) for name in OF_GROUPS),
              *([worst.index[0], as_word(worst.SROCC.iloc[0])] if len(worst) else '--')], some.run)
            for labels, some, worst in findings.in_groups]
    return _table('groups', 'Groups of images', ['trained on', 'tested on', 'setting', 'by', 'groups', *OF_GROUPS,
                                                 'worst group', 'SROCC there'], rows,
                  f'Medians over splits of the means inside groups of {FEWEST} images or more, and of the correlations '
                  'between groups, of mean scores with mean MOS. The worst group has the lowest SROCC, the mean over '
                  'the splits.')


def worst_groups(findings: Findings) -> StudyTable:
    """Return the MOST_WORST groups of images with the lowest SROCC, for each setting and kind of groups."""
    rows = [([*labels, group.Index, as_word(group.images, '.4g'), as_word(group.SROCC), as_word(group.PLCC)], some.run)
            for labels, some, worst in findings.in_groups for group in worst[:MOST_WORST].itertuples()]
    return _table('worst_groups', 'Worst groups of images', ['trained on', 'tested on', 'setting', 'by', 'group',
                                                             'images', 'SROCC', 'PLCC'], rows,
                  f'The {MOST_WORST} groups with the lowest SROCC; means over the splits that test the group.')


TABLES: tuple[Callable[[Findings], StudyTable], ...] = (settings, criteria, beyond, groups, worst_groups, across,
                                                        significance, speed, costs, provenance)
