"""Kinds of groups of a study's images, such as generators: a column of the info file, or a part of the name."""
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from iqa_results.facts import Facts, parts_of_names
from iqa_runtime.checks import dict_of, fields, line
from iqa_runtime.errors import UserError
from iqa_studies.study import Study
from iqa_studies.study_data import StudySet


@dataclass(frozen=True)
class Grouping:
    """A kind of groups of images.

    Attributes:
        label: name of the kind.
        column: column of the info files that holds the groups; '': the pattern finds them.
        pattern: regular expression that finds the group in an image's name.
        infos: data set -> info file, of the data sets whose images have such groups.
    """

    label: str
    column: str
    pattern: str
    infos: Mapping[str, Path]

    @cached_property
    def _facts(self) -> dict[str, Facts]:
        return {data: Facts.read(info) for data, info in self.infos.items()}

    def of(self, data: str, names: Sequence[str]) -> list[str]:
        """Return the group of each image of a data set; UserError if the info file is not there or lacks an image."""
        return self._facts[data].texts(self.column, names) if self.column else parts_of_names(names, self.pattern)

    def stored(self, folder: Path) -> dict:
        """Return the fields as plain values, with paths relative to a folder."""
        return asdict(self) | {'infos': {data: os.path.relpath(info, folder) for data, info in self.infos.items()}}

    @classmethod
    def restored(cls, content, folder: Path) -> 'Grouping':
        """Return the grouping of `stored`; ValueError if it is not one."""
        values = fields(label=line, column=line, pattern=line, infos=dict_of(line))(content)
        return cls(**values | {'infos': {data: Path(os.path.normpath(folder / info))
                                            for data, info in values['infos'].items()}})


def groupings_of(study: Study, sets: Sequence[StudySet]) -> list[Grouping]:
    """Return the kinds of groups of a study; UserError if none of its data sets has such groups."""
    return [*(_by_column(study, label, column, sets) for label, column in study.by.items()),
            *(_by_name(study, label, pattern, sets) for label, pattern in study.by_name.items())]


def _by_column(study: Study, label: str, column: str, sets: Sequence[StudySet]) -> Grouping:
    columns = [list(Facts.read(one.source.info).table.columns) for one in sets]
    infos = {one.name: Path(one.source.info) for one, names in zip(sets, columns, strict=True) if column in names}
    if not infos:
        raise UserError(f'{study.at}: by: {label}: no column {column!r} in {sets[0].source.info}, which has '
                        f'{", ".join(columns[0])}')
    return Grouping(label, column, '', infos)


def _by_name(study: Study, label: str, pattern: str, sets: Sequence[StudySet]) -> Grouping:
    infos, problems = {}, []
    for one in sets:
        try:
            parts_of_names(one.info.names, pattern)
            infos[one.name] = Path(one.source.info)
        except UserError as error:
            problems.append(error)
    if not infos:
        raise UserError(f'{study.at}: by_name: {label}: {problems[0]}')
    return Grouping(label, '', pattern, infos)
