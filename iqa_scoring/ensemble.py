"""Combine the predictions of several models into one score for each image, without outliers.

    python iqa_scoring/ensemble.py 384_fold*.csv 448_fold*.csv 640_fold*.csv --out final.csv

Tables are those of test_demo.py (--csv, with --columns full or challenge) and of test_dataset.py, or any others with
such columns. Images come in the order in which they are first seen; values outside the fences are counted for each
model.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs, replacing
from iqa_runtime.names import cell, without_suffix
from iqa_runtime.tables import Table, digits, write_columns
from iqa_scoring.options import ENSEMBLE

REACH = 1.5  # distance of the fences from the quartiles, in interquartile ranges
FORMS = (('img_name', 'mos'), ('name', 'score'), ('name', 'pq'))  # columns of the image and of the prediction


def inside(values: np.ndarray) -> np.ndarray:
    """Return whether each of the values (N,) lies between Q1 - 1.5 IQR and Q3 + 1.5 IQR, (N,) bool.

    Quartiles are interpolated linearly. A value on a fence is outside, unless no value is strictly inside.
    """
    low, high = np.percentile(values, [25, 75])
    reach = REACH * (high - low)
    low, high = low - reach, high + reach
    strictly = (values > low) & (values < high)
    return strictly if strictly.any() else (values >= low) & (values <= high)


def iqr_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that lie inside the fences; ValueError if there are none or one is not finite.

    >>> iqr_mean([1, 2, 3, 4, 7])
    2.5
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError('expected finite numbers, one at least')
    return float(values[inside(values)].mean())


# --how -> (N,) predictions of an image -> its score
HOW: dict[str, Callable[[np.ndarray], float]] = {'iqr': iqr_mean, 'mean': np.mean, 'median': np.median}


@dataclass(frozen=True)
class JoinedPredictions:
    """Predictions of models: `values` (images, models), nan if a model lacks an image."""

    images: list[str]
    models: list[str]
    values: np.ndarray

    @property
    def there(self) -> np.ndarray:
        """Return whether each value exists, (images, models) bool."""
        return ~np.isnan(self.values)

    def combined(self, how: str = 'iqr') -> np.ndarray:
        """Return a score for each image, (images,), by a name in HOW."""
        return np.array([HOW[how](row[there]) for row, there in zip(self.values, self.there, strict=True)])

    def outside(self) -> np.ndarray:
        """Return the number of values of each model outside the fences of their images, (models,)."""
        found = np.zeros(self.values.shape, bool)
        for row, there, out in zip(self.values, self.there, found, strict=True):
            out[there] = ~inside(row[there])
        return found.sum(0)


def read_scores(path: str | Path) -> tuple[list[str], np.ndarray, tuple[str, str]]:
    """Return images, predictions (N,) and the columns that they were read from, of the first of FORMS that fits."""
    table = Table.read(path)
    form = next((form for form in FORMS if set(form) <= set(table.columns)), None)
    if form is None:
        raise UserError(f'{path}: not a table of predictions: it has the columns {", ".join(table.columns) or "none"}; '
                        f'expected {" or ".join(" and ".join(form) for form in FORMS)}')
    if not table.rows:
        raise UserError(f'{path}: it holds no images')
    names, values = table.images(form[0]), table.numbers(form[1])
    table.once(names, values, form[1])
    return names, values, form


def join_tables(paths: Sequence[str | Path], partial: bool = False) -> tuple[JoinedPredictions, tuple[str, str]]:
    """Read the tables of several models; return their predictions and the columns of the first table.

    Raises UserError if a table lacks images of the others, unless `partial`.
    """
    read = [read_scores(path) for path in paths]
    images = list(dict.fromkeys(name for names, _, _ in read for name in names))
    place = {name: i for i, name in enumerate(images)}
    values = np.full((len(images), len(paths)), np.nan)
    for column, (names, some, _) in enumerate(read):
        values[[place[name] for name in names], column] = some
    for path, lacking in zip(paths, np.isnan(values).T, strict=True):
        if lacking.any() and not partial:
            raise UserError(f'{path}: lacks {lacking.sum()} of {len(images)} images, as {images[lacking.argmax()]} '
                            '(--partial takes images that some tables lack)')
    models = [without_suffix(Path(path).name, ('.csv', '.txt')) for path in paths]
    return JoinedPredictions(images, models, values), read[0][2]


@command
def main(argv: list[str] | None = None) -> np.ndarray:
    """Parse the options, write the ensemble's table; return its scores, (images,)."""
    args = ENSEMBLE.parse(argv)
    check_outputs({'--out': args.out}, {'TABLE': args.tables})
    predictions, (image, score) = join_tables(args.tables, args.partial)
    combined = predictions.combined(args.how)
    write(args.out, image, score, predictions.images, combined)
    print(f'{len(args.tables)} tables, {len(combined)} images, --how {args.how}: {args.out}')
    if args.how == 'iqr':
        counts = [f'{model} {count}' for model, count in zip(predictions.models, predictions.outside(), strict=True)
                  if count]
        print(f'Outside the fences: {", ".join(counts) or "nothing"}')
    return combined


def write(path: str | Path, image: str, score: str, images: Sequence[str], combined: np.ndarray) -> None:
    """Write the scores of images as a table; one with the challenge's columns gets its third, which is empty."""
    columns = {image: [cell(name) for name in images], score: [digits(value) for value in combined]}
    if score == 'mos':
        columns['comments'] = [''] * len(images)
    with replacing(path) as temporary:
        write_columns(temporary, columns)


if __name__ == '__main__':
    main()
