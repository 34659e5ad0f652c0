"""Show a comparison of models as tables: criteria, pairs of images, the raters' noise, tests of each pair of models."""
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from iqa_results import pairs as of_pairs
from iqa_results import raters
from iqa_results.comparison import (
    CORRELATION_ROWS,
    CORRELATIONS,
    ERROR_ROWS,
    ROWS,
    STANDARD,
    STEP,
    Estimate,
    Models,
    difference,
    estimates,
    resamples_of,
    rising,
)
from iqa_results.distance import distance_correlation
from iqa_results.mapping import REGRESSIONS, NoFitError, mapped
from iqa_results.significance import f_test, fisher_z, holm, shares_test
from iqa_results.table_formats import as_word
from IQAperformance import CRITERIA


class Shown(NamedTuple):
    """A table of words, each row as long as the header."""

    title: str
    header: Sequence[str]
    rows: list[list[str]]
    note: str = ''


def shown(estimate: Estimate, digits: int = 4) -> str:
    """Return a value and its interval in words."""
    value, low, high = estimate
    if not np.isfinite(value):
        return '-'
    return f'{value:.{digits}f}' + (f' [{low:.{digits}f}, {high:.{digits}f}]' if np.isfinite([low, high]).all() else '')


def _digits(value: float) -> str:
    return as_word(value, '.3g')


def _share(value: float) -> str:
    return as_word(value, '.1%').replace('%', ' %')


def criteria_tables(models: Models, count: int, seed: int) -> list[Shown]:
    """Return the criteria of each model after each mapping, with bootstrap intervals: correlations, errors."""
    first = next(iter(models.values()))
    problems = {name: problem for name, row in ROWS.items() if (problem := row.problem(first))}
    found = {label: estimates(model, count, seed) for label, model in models.items()}
    tables = []
    for title, rows in (('Correlations', CORRELATION_ROWS), ('Errors', ERROR_ROWS)):
        names = [name for name in rows if name not in problems]
        words = [[label, mapping, *([values] + ['-'] * (len(names) - 1) if isinstance(values, str) else
                                    [shown(values[name], 3 if name in ('RMSE', 'MAE', 'RMSE*') else 4)
                                     for name in names])]
                 for label, table in found.items() for mapping, values in table.items()]
        tables.append(Shown(title, ['model', 'mapping', *names], words, left_out(
            {name: problem for name, problem in problems.items() if name in rows})))
    return tables


def left_out(problems: Mapping[str, str]) -> str:
    """Return a sentence for each reason why criteria are left out."""
    reasons: dict[str, list[str]] = {}
    for name, problem in problems.items():
        reasons.setdefault(problem, []).append(name)
    return ' '.join(f'No {", ".join(names)}: {problem}.' for problem, names in reasons.items())


def pair_words(models: Models) -> list[tuple[str, str, str]]:
    """Return (label in words, a, b) of all pairs of models."""
    return [(f'{a} - {b}', a, b) for a, b in combinations(models, 2)]


def differences_table(models: Models, count: int, seed: int) -> Shown:
    """Return the differences of the criteria of each pair of models, as saved, with the tests of both on all images."""
    rows, drawn = [], {label: resamples_of(model, count, seed) for label, model in models.items()}
    for label, a, b in pair_words(models):
        for name, values in difference(models[a], models[b], drawn[a], drawn[b]).items():
            tests = [x for test in ('williams', 'steiger') for x in values.get(test, (np.nan, np.nan))]
            rows.append([label, name, shown(values['difference']), *map(_digits, tests),
                         as_word(values.get('images', np.nan), '.0f')])
    header = ['models', 'criterion', 'difference', "Williams' t", 'p', "Steiger's Z", 'p', f'images for {STEP:g}']
    return Shown('Differences of models', header, rows,
                 f'Images for {STEP:g}: how many would find such a difference with a probability of .8 (Steiger, .05).')


def standard_table(models: Models) -> Shown:
    """Return the tests of ITU-T P.1401 of each pair of models, after the mapping of order 3, with Holm's correction.

    A note names the models that are not significantly worse than the best by RMSE.
    """
    first = next(iter(models.values()))
    n = len(first.mos)
    freedom = n - REGRESSIONS[STANDARD].parameters
    names = [name for name in STANDARD_TESTS if not ROWS[name].problem(first)]
    values = {name: {label: ROWS[name].value(model) for label, model in models.items()} for name in names}
    rows, pairs, adjusted = [], pair_words(models), {}
    for name in names:
        of = values[name]
        tests = [STANDARD_TESTS[name](of[a], of[b], n, freedom) for _, a, b in pairs]
        adjusted[name] = dict(zip(pairs, holm([p for _, p in tests]), strict=True))
        rows += [[label, name, as_word(of[a] - of[b], '.4f'), *map(_digits, (*test, adjusted[name][label, a, b]))]
                 for (label, a, b), test in zip(pairs, tests, strict=True)]
    liberal = ' The F test of RMSE*, whose errors are mostly 0, finds far too many.' if 'RMSE*' in names else ''
    return Shown('Tests of ITU-T P.1401', ['models', 'criterion', 'difference', 'statistic', 'p', 'Holm'], rows,
                 'After the 3rd-order monotonic mapping. The standard takes the models for independent samples: on the '
                 f'same images these tests are conservative.{liberal} {_best(values["RMSE"], adjusted["RMSE"])}')


def _best(values: Mapping[str, float], adjusted: Mapping[tuple[str, str, str], float]) -> str:
    """Return the model with the smallest RMSE and those that are not significantly worse (Holm, .05), in words."""
    best = min(values, key=lambda label: np.nan_to_num(values[label], nan=np.inf))
    found = {b if a == best else a: p for (_, a, b), p in adjusted.items() if best in (a, b) and np.isfinite(p)}
    if not found:
        return ''
    equal = [label for label, p in found.items() if p >= .05]
    others = f'not significantly worse: {", ".join(equal)}' if equal else 'all others are significantly worse'
    return f'Best by RMSE: {best}; {others}.'


STANDARD_TESTS: dict[str, Callable[[float, float, int, int], tuple[float, float]]] = {
    'PLCC': lambda a, b, n, freedom: fisher_z(a, b, n, n),
    'RMSE': lambda a, b, n, freedom: f_test(a, b, freedom, freedom),
    'RMSE*': lambda a, b, n, freedom: f_test(a, b, freedom, freedom),
    'outliers of the interval': lambda a, b, n, freedom: shares_test(a, b, n, n)}


# Pairs of images

def scores_table(models: Models, pairs: of_pairs.Pairs) -> Shown:
    """Return the criteria of pairs of images and the distance correlation of each model."""
    names = [name for name in of_pairs.PAIR_CRITERIA if pairs.z is not None or name not in of_pairs.OF_SEEN]
    rows = []
    for label, model in models.items():
        scores = pairs.of(rising(model))
        found = [of_pairs.PAIR_CRITERIA[name](pairs, scores) for name in names]
        rows.append([label, *(shown((one.value, *of_pairs.pair_interval(pairs, one))) for one in found),
                     shown(distance_correlation(model.pq, model.mos))])
    seen = '' if pairs.z is None else (
        f' {_share(pairs.different.mean())} of the pairs differ significantly (z test of the two MOS, .05); '
        'different/similar, better/worse and correct: Krasula et al. (2016).')
    return Shown('Pairs of images', ['model', *names, 'distance correlation'], rows,
                 f'{len(pairs.target)} pairs. Intervals are over images.{seen}')


def pair_tests_table(models: Models, pairs: of_pairs.Pairs) -> Shown:
    """Return the tests of the criteria of pairs of images for each pair of models, with Holm's correction."""
    scores, rows = {label: pairs.of(rising(model)) for label, model in models.items()}, []
    for name, criterion in of_pairs.PAIR_CRITERIA.items():
        if pairs.z is None and name in of_pairs.OF_SEEN:
            continue
        found = {label: criterion(pairs, some) for label, some in scores.items()}
        tests = [of_pairs.pair_test(pairs, found[a], found[b]) for _, a, b in pair_words(models)]
        corrected = holm([test['images'][1] for test in tests])
        rows += [[label, name, as_word(found[a].value - found[b].value, '.4f'),
                  *map(_digits, (*test['images'], p, test['pairs'][1]))]
                 for (label, a, b), test, p in zip(pair_words(models), tests, corrected, strict=True)]
    return Shown('Differences in pairs of images', ['models', 'criterion', 'difference', 'z', 'p', 'Holm', 'DeLong p'],
                 rows, 'p: over images. DeLong p takes pairs that share images for independent, as Krasula et al. do: '
                 'it finds far too many differences.')


def preferences_table(models: Models, pairs: of_pairs.Pairs) -> Shown:
    """Return the agreement of each model with comparisons by people; pairs without a preference do not count."""
    criteria = {name: of_pairs.PAIR_CRITERIA[name] for name in ('pair accuracy', 'weighted accuracy')}
    rows = []
    for label, model in models.items():
        found = [criterion(pairs, pairs.of(rising(model))) for criterion in criteria.values()]
        rows.append([label, *(shown((one.value, *of_pairs.pair_interval(pairs, one))) for one in found)])
    return Shown('Preferences of people', ['model', *criteria], rows,
                 f'{np.count_nonzero(pairs.target)} pairs; weighted by the distance of the preference from 1/2.')


# Raters

def ceiling_table(models: Models, pairs: of_pairs.Pairs, seed: int) -> Shown:
    """Return what the raters' noise leaves to reach, each model's share of it, and the resolving power."""
    first = next(iter(models.values()))
    tops = {name: raters.ceiling(CRITERIA[name], first.mos, first.std, first.votes, seed=seed) for name in CORRELATIONS}
    rows = [['ceiling', *(word for top in tops.values() for word in (shown(top), '100 %')), '-', '-']]
    for label, model in models.items():
        try:
            z = mapped(STANDARD, model.pq, model.mos)
        except NoFitError:
            z = np.full(len(model.mos), np.nan)
        values = [abs(float(CRITERIA[name](x, model.mos))) for name, x in
                  zip(CORRELATIONS, (model.pq, z), strict=True)]
        power = raters.resolving_power(pairs.of(rising(model._replace(pq=z))), pairs.z)
        share = power / np.ptp(first.mos)
        words = [(as_word(value, '.4f'), _share(value / top[0]))
                 for value, top in zip(values, tops.values(), strict=True)]
        rows.append([label, *(word for both in words for word in both), _digits(power), _share(share)])
    return Shown("The raters' noise", ['model', 'SROCC', 'share', 'PLCC mapped', 'share', 'resolving power',
                                       'of the range'], rows,
                 'Ceiling: what an oracle of the true qualities reaches, with its interval over the noise. Resolving '
                 'power (ITU-T J.149): the smallest difference of mapped scores, in MOS units, that people see with a '
                 'probability of .95. Mapped: 3rd-order monotonic.')
