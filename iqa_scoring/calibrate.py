"""Fit the scores of a network to your own ratings, by a line or a logistic curve."""
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import curve_fit
from scipy.stats import rankdata

from iqa_results.mapping import QUARTILES
from iqa_runtime.errors import UserError, pick
from iqa_runtime.tables import Table
from iqa_scoring.mapping import Mapping
from IQAperformance import agreement, fit_line

WORSE = .05  # loss of SROCC beyond noise: a line that ranks well loses less when each image is left out
FEWEST = 20  # images: a line through fewer is unreliable, and its estimated error even more so
IMAGE_COLUMNS = ('image', 'name', 'file', 'filename', 'file_name', 'image_name', 'path', 'img')
RATING_COLUMNS = ('mos', 'rating', 'ratings', 'score', 'dmos', 'opinion', 'value')


def read_ratings(path: str | Path, im_dir: str | Path | None = None) -> tuple[list[str], np.ndarray]:
    """Return images and their ratings (N,) from a CSV with a header; several ratings of one image are averaged.

    The columns are the first with a name in IMAGE_COLUMNS and in RATING_COLUMNS, or else the first text column and the
    first numeric column. Image paths are relative to `im_dir` (default: the CSV's folder), or else to the working
    directory. Raises UserError if there are no such columns, or if a rating is not a number.
    """
    table = Table.read(path)
    numeric = [name for name, cells in table.columns.items() if any(table.number(cell) is not None for cell in cells)]
    image = _column(table, IMAGE_COLUMNS, [name for name in table.columns if name not in numeric])
    rating = _column(table, RATING_COLUMNS, [name for name in numeric if name != image])
    if image is None or rating is None:
        raise UserError(f'--calibrate {path}: expected a column of images and one of ratings, found '
                        f'{", ".join(table.columns) or "none"}')
    ratings: dict[str, list[float]] = {}
    for name, value in zip(table.images(image), table.numbers(rating), strict=True):
        ratings.setdefault(name, []).append(value)
    folder = Path(im_dir or Path(path).parent)
    images = [name if Path(name).exists() and not (folder / name).exists() else str(folder / name) for name in ratings]
    return images, np.array([np.mean(values) for values in ratings.values()])


def _column(table: Table, known: Sequence[str], others: Sequence[str]) -> str | None:
    """Return the first column whose name is known, else the first of the others."""
    names = {name.lower(): name for name in reversed(table.columns)}
    return next((names[name] for name in known if name in names), next(iter(others), None))


def fit_logistic(raw: np.ndarray, mos: np.ndarray) -> tuple[float, float, float, float]:
    """Return the least-squares top, bottom, centre, width of scorer.logistic; both (N,) float64.

    top and bottom stay within one range of `mos` of its ends, and width within 1/20 to 20 times the spread of `raw`,
    so that a nearly linear relation does not send them to infinity. The spread is robust: one score that is far off
    changes it little. Raises UserError if the fit fails.
    """
    low, high = mos.min(), mos.max()
    if np.ptp(raw) == 0 or low == high:
        raise UserError('a logistic needs scores and ratings that differ: try --calibration linear')
    middle, spread = np.median(raw), np.diff(np.quantile(raw, [.25, .75]))[0] / QUARTILES or raw.std()
    rising = fit_line(rankdata(raw), mos)[0] >= 0
    z, range_ = (raw - middle) / spread, high - low
    (top, bottom) = (high, low) if rising else (low, high)
    limits = ([low - range_, low - range_, -5, .05], [high + range_, high + range_, 5, 20])

    def curve(x: np.ndarray, *parameters: float) -> np.ndarray:
        return Mapping('logistic', parameters)(x)

    try:
        top, bottom, centre, width = curve_fit(curve, z, mos, (top, bottom, 0, .7), bounds=limits, max_nfev=2000)[0]
    except RuntimeError:
        raise UserError('the logistic does not fit these ratings: try --calibration linear') from None
    return float(top), float(bottom), float(centre * spread + middle), float(width * spread)


FITS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, ...]]] = {'linear': fit_line, 'logistic': fit_logistic}


def leave_one_out(kind: str, raw: np.ndarray, mos: np.ndarray) -> np.ndarray:
    """Return the prediction for each image (N,) of a mapping that is fitted to all the others."""
    fit, n = FITS[pick(FITS, kind, 'calibration')], len(raw)
    others = ~np.eye(n, dtype=bool)
    return np.array([Mapping(kind, fit(raw[others[i]], mos[others[i]]))(raw[i]) for i in range(n)])


def objections(report: dict, mos: np.ndarray, turned: bool) -> list[str]:
    """Return the reasons against a calibration as text; `turned`: its scores fall as the old ones rise.

    `report`, `mos`: see `calibrated`.
    """
    found = []
    left_out = report['leave-one-out']
    if turned:
        found.append('it reverses the ranking: images with better old scores have lower ratings (as expected of '
                     'ratings that fall with quality, such as DMOS)')
    if not left_out['SROCC'] >= report['before']['SROCC'] - WORSE:
        found.append('the SROCC of images that are left out of the fit is '
                     f'{left_out["SROCC"]:.3f}, uncalibrated {report["before"]["SROCC"]:.3f}')
    of_mean = mos.std() * len(mos) / (len(mos) - 1)  # each rating is compared with the mean of all others
    if not left_out['RMSE'] < of_mean:
        found.append(f'the RMSE of images that are left out of the fit is {left_out["RMSE"]:.4g}, no better than '
                     f'{of_mean:.4g} of the mean of the other ratings')
    return found


def calibrated(checkpoint: dict, heads: np.ndarray, mos: np.ndarray, kind: str) -> tuple[dict, dict, list[str]]:
    """Return a checkpoint whose scores are in the unit of the ratings, their agreement, and reasons against it.

    Args:
        checkpoint: the old checkpoint, which is not changed.
        heads: raw outputs (N, heads), the scored head first.
        mos: ratings (N,).
        kind: 'linear' (all heads get a line), or 'logistic' (the final head also gets a curve, 'mapping').

    Returns:
        The new checkpoint; {'before', 'fitted', 'leave-one-out'} -> criteria of IQAperformance.agreement; and the
        `objections`.
    """
    if len(mos) < FEWEST:
        raise UserError(f'--calibrate: {len(mos)} rated images, expected at least {FEWEST}')
    if np.ptp(mos) == 0 or np.ptp(heads[:, 0]) == 0:
        raise UserError('--calibrate: all ratings, or all outputs of the network, are equal')
    raw, mos = heads[:, 0], mos.astype(float)
    before = Mapping.of(checkpoint)
    mapping = Mapping(kind, FITS[pick(FITS, kind, 'calibration')](raw, mos))
    report = {'before': agreement(before(raw), mos), 'fitted': agreement(mapping(raw), mos),
              'leave-one-out': agreement(leave_one_out(kind, raw, mos), mos)}
    lines = [fit_line(column, mos) for column in heads.T]
    turned = bool((before(raw) @ (raw - raw.mean())) * lines[0][0] < 0)
    old = checkpoint.get('mos', {}).get('higher_is_better', True)
    values = np.sort(mos)
    new = {name: value for name, value in checkpoint.items() if name not in ('optimizer', 'amp', 'mapping')}
    new |= {'k': [k for k, _ in lines], 'b': [b for _, b in lines],
            'mos': {'values': torch.tensor(values, dtype=torch.float32), 'min': float(values[0]),
                    'max': float(values[-1]), 'higher_is_better': old != turned},
            'calibration': {'kind': kind, 'images': len(mos), **report}}
    if kind != 'linear':
        new['mapping'] = {'name': mapping.name, 'parameters': list(mapping.parameters)}
    return new, report, objections(report, mos, turned)
