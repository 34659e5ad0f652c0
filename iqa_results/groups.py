"""Compute the agreement with MOS inside groups of images, such as contents or generators, and between the groups."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iqa_results.comparison import CORRELATIONS, Models, rising
from iqa_results.comparison_tables import Shown
from iqa_results.table_formats import as_word
from IQAperformance import agreement

FEWEST = 5       # images of a group whose correlations are computed
MOST_WORST = 10  # groups that the table lists


@dataclass(frozen=True)
class Grouped:
    """The agreement of predictions with MOS in groups of images.

    Attributes:
        inside: group -> criteria of its images, and `images`, their number; nan if predictions or MOS are constant.
        small: groups of fewer than FEWEST images, which are left out of `inside`.
        between: criteria of the mean predictions and the mean MOS of all groups; nan below 3 groups.
    """

    inside: dict[str, dict[str, float]]
    small: list[str]
    between: dict[str, float]

    def mean(self, name: str) -> float:
        """Return the mean of a criterion over groups in which it is defined; nan if there are none."""
        values = [found[name] for found in self.inside.values() if np.isfinite(found[name])]
        return float(np.mean(values)) if values else np.nan

    def worst(self, name: str) -> str | None:
        """Return the group in which a correlation is the lowest; None if it is defined in none."""
        values = {group: found[name] for group, found in self.inside.items() if np.isfinite(found[name])}
        return min(values, key=values.get) if values else None


def grouped(x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> Grouped:
    """Compute the agreement of predictions x with MOS y, both (N,), in the groups (N,) of the images."""
    names, of = np.unique(np.asarray(groups, object).astype(str), return_inverse=True)
    counts = np.bincount(of)
    inside = {str(name): {'images': int(counts[i]), **agreement(x[of == i], y[of == i])}
              for i, name in enumerate(names) if counts[i] >= FEWEST}
    means = [np.bincount(of, values) / counts for values in (x, y)]
    between = agreement(*means)
    if len(names) < 3:
        between = dict.fromkeys(between, np.nan)
    return Grouped(inside, [str(names[i]) for i in np.flatnonzero(counts < FEWEST)], between)


def group_tables(models: Models, groups: Sequence[str], by: str) -> list[Shown]:
    """Return tables of the models' agreement inside and between groups (N,), and of their worst groups.

    `by` names the kind of groups in the titles.
    """
    found = {label: grouped(rising(model), model.mos, groups) for label, model in models.items()}
    first = next(iter(found.values()))
    rows = [[label, *(as_word(one.mean(name), '.4f') for name in CORRELATIONS), *_worst(one),
             *(as_word(one.between[name], '.4f') for name in CORRELATIONS)] for label, one in found.items()]
    header = ['model', *(f'mean {name}' for name in CORRELATIONS), 'worst group', 'images', 'SROCC there',
              *(f'{name} between' for name in CORRELATIONS)]
    note = f'{len(first.inside)} groups; between: of the mean scores and the mean MOS of the groups.'
    if first.small:
        note += (f' {len(first.small)} groups of fewer than {FEWEST} images are not in the mean, as '
                 f'{first.small[0]!r}.')
    return [Shown(f'By {by}', header, rows, note), _worst_table(found, by)]


def _worst(one: Grouped) -> list[str]:
    group = one.worst('SROCC')
    if group is None:
        return ['-', '-', '-']
    return [group, str(one.inside[group]['images']), as_word(one.inside[group]['SROCC'], '.4f')]


def worst_groups(found: Mapping[str, Grouped]) -> list[str]:
    """Return the groups with the lowest mean SROCC over models, the worst first; undefined ones count as 0."""
    inside = [one.inside for one in found.values()]
    means = {group: np.mean([np.nan_to_num(one[group]['SROCC']) for one in inside]) for group in inside[0]}
    return sorted(means, key=means.get)


def _worst_table(found: Mapping[str, Grouped], by: str) -> Shown:
    groups = worst_groups(found)
    first = next(iter(found.values()))
    rows = [[group, str(first.inside[group]['images']),
             *(as_word(one.inside[group][name], '.4f') for one in found.values() for name in CORRELATIONS)]
            for group in groups[:MOST_WORST]]
    return Shown(f'Worst groups by {by}', [by, 'images', *(f'{label} {name}' for label in found for name in
                                                           CORRELATIONS)], rows,
                 f'{min(MOST_WORST, len(groups))} of {len(groups)} groups, by mean SROCC.')
