"""The outcome of a cell of a study: a setting trained on a split with a seed, and tested on a set of images."""
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_results.read import read_summary
from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table

if TYPE_CHECKING:  # slow to import
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """A cell of a study, and the files that hold its numbers. UserError if a file is missing or damaged.

    Attributes:
        setting: label of the setting in the study.
        split: '0', '1', ... of repeated or k-fold splits; 'official'; 'all' if it was trained on a whole set.
        seed: seed of the training.
        trained_on, tested_on: names of data sets; of others' predictions, trained_on is ''.
        result: the results, NAME.json, with the predictions of each image beside it, NAME.csv.
        log: TensorBoard folder of the training; None of others' predictions.
        checkpoint: the trained network; None of others' predictions.
    """

    setting: str
    split: str
    seed: int
    trained_on: str
    tested_on: str
    result: Path
    log: Path | None = None
    checkpoint: Path | None = None

    @cached_property
    def summary(self) -> dict:
        """Return the content of the results."""
        return read_summary(self.result)

    @property
    def metrics(self) -> dict[str, float]:
        """Return SROCC, PLCC, KROCC, RMSE and those of further heads; nan if one is not defined."""
        return self.summary['metrics']

    @property
    def options(self) -> dict:
        """Return the options of training, by name."""
        return self.summary['options']

    @property
    def split_hash(self) -> str | None:
        """Return the hash of the split that it was trained on (iqa_runtime.split_file.split_hash)."""
        return self.summary['split_hash']

    @property
    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that computed the results."""
        return self.summary['versions']

    @property
    def parameters(self) -> dict[str, int]:
        """Return the number of parameters, 'trainable' and of the 'plain' network; empty if they are unknown."""
        return self.summary['parameters']

    def predictions(self) -> 'pd.DataFrame':
        """Return the table of the tested images: image, mos, score, the latter two finite and in MOS units."""
        import pandas as pd
        table = Table.read(self.result.with_suffix('.csv'))
        table.needs('name', 'mos', 'pq')
        if not table.rows:
            raise UserError(f'{table.path}: it holds no images')
        images = table.images('name')
        return pd.DataFrame({'image': images, 'mos': table.numbers('mos'), 'score': table.numbers('pq')})
