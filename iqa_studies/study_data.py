"""The data sets of a study, and others' predictions of their images, which are compared with those of its runs."""
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iqa_data.datasets import Source
from iqa_data.info import Info
from iqa_results.write import write_results
from iqa_runtime.errors import UserError
from iqa_runtime.names import as_file_name
from iqa_runtime.tables import Table
from iqa_studies.outcome import Outcome
from iqa_studies.steps import Given
from iqa_studies.study import Study
from IQAperformance import HeadPerformance, Performance


@dataclass(frozen=True)
class StudySet:
    """A data set: its name, its place, and what its info file says."""

    name: str
    source: Source
    info: Info

    def files(self) -> set[str]:
        """Return the real paths of all images and references, by which data sets are compared."""
        paths = [Path(self.source.im_dir, name) for name in self.info.names]
        folder = self.source.ref_dir or self.source.im_dir
        paths += [Path(folder, name) for name in set(self.info.references or ()) - {''}]
        return set(map(os.path.realpath, paths))


@dataclass(frozen=True)
class StudyData:
    """The images of a run: a data set, or several that it trains on at once; and the options that name them."""

    name: str
    given: Given
    sets: tuple[StudySet, ...]

    def files(self) -> set[str]:
        """Return the real paths of all images and references."""
        return set().union(*(one.files() for one in self.sets))


@dataclass(frozen=True)
class Other:
    """Others' predictions (N,) of the tested images of a data set, of which `rows` are the places in its info file."""

    label: str
    place: StudySet
    split: str
    rows: np.ndarray
    score: np.ndarray

    def outcome(self, folder: Path) -> Outcome:
        """Write the predictions as results, as they are; return the outcome."""
        info, name = self.place.info, as_file_name('\n'.join([self.label, self.place.name, self.split]))
        mos = info.mos[self.rows]
        performance = Performance(mos, info.std[self.rows], (HeadPerformance.of(self.score, mos),))
        _, result = write_results(folder / 'predictions', name, [info.names[i] for i in self.rows], performance,
                                  {'dataset': self.place.name, 'part': 'test', 'options': {}},
                                  None if info.votes is None else info.votes[self.rows])
        return Outcome(self.label, self.split, 0, '', self.place.name, result)


def others_of(study: Study, place: StudySet, parts: Mapping[str, np.ndarray]) -> Iterator[Other]:
    """Yield others' predictions of the images that are tested, by split.

    A table counts for a data set if it has any of these images; UserError if it then lacks some of them.
    """
    for label, file in study.predictions.items():
        table = Table.read(file)
        table.needs('image', 'score')
        names, scores = table.images(), table.numbers('score')
        table.once(names, scores, 'score')
        score = dict(zip(names, scores, strict=True))
        for split, rows in parts.items():
            missing = [name for name in (place.info.names[i] for i in rows) if name not in score]
            if 0 < len(missing) < len(rows):
                raise UserError(f'{file}: it lacks {len(missing)} of the {len(rows)} images of {place.name} that are '
                                f'tested, as {missing[0]}')
            if not missing:
                yield Other(label, place, split, rows, np.array([score[place.info.names[i]] for i in rows]))
