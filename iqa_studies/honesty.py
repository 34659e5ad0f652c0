"""Honesty of an outcome: its numbers follow from its predictions, its split is the one it names, and nothing leaks."""
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqa_data.contents import same_files
from iqa_data.datasets import DATASETS, Source, dataset_name, named_source, sets_of
from iqa_data.info import Info, read_info
from iqa_results.read import CLOSE
from iqa_runtime.errors import UserError
from iqa_runtime.split_file import Split, by_set, read_split, split_hash
from iqa_runtime.tables import Table
from iqa_studies.outcome import Outcome
from IQAperformance import CRITERIA, agreement

FLOAT32 = 1e-6  # relative: MOS are read as float32


class Finding(NamedTuple):
    """What was found about a file: what is wrong in it, and notes, such as what could not be looked at, in words."""

    subject: str
    wrong: list[str]
    notes: list[str]


def finding_of(outcome: Outcome) -> Finding:
    """Return what was found about an outcome."""
    wrong, unseen = check_outcome(outcome)
    marked = ['tested on the images that chose the epoch'] if outcome.summary['part'] == 'val' else []
    return Finding(str(outcome.result), wrong, [*marked, *(f'not looked at: {what}' for what in unseen)])


def check_outcome(outcome: Outcome) -> tuple[list[str], list[str]]:
    """Return what does not hold of an outcome, and what could not be looked at."""
    found = Check(outcome)
    return found.wrong, found.unseen


class Check:
    """The findings about an outcome, in words: `wrong`, what does not hold; `unseen`, what could not be looked at."""

    def __init__(self, outcome: Outcome):
        self.outcome, self.table = outcome, Table.read(outcome.result.with_suffix('.csv'))
        self.table.needs('name', 'mos', 'pq')
        self.names = self.table.images('name')
        self.table.once(self.names)
        self.mos, self.unseen = self.table.numbers('mos'), []
        self.wrong = [*self.metrics(), *self.lines(), *self.scores()]
        if outcome.trained_on:
            self.wrong += self.of_the_split()

    @property
    def heads(self) -> list[str]:
        """Return the suffixes of the columns of scores, '' the scored head's."""
        return [name.removeprefix('pq') for name in self.table.columns if name in ('pq', 'pq1', 'pq2')]

    @property
    def own(self) -> bool:
        """Return whether the tested images are of the data set that was trained on."""
        return self.outcome.summary['dataset'] in self.trained_sets

    @property
    def trained_sets(self) -> dict[str, str]:
        """Return the data sets that were trained on: name -> as the options name it."""
        sets = sets_of(str(self.outcome.options.get('dataset', '')))
        return {dataset_name(one): one for one in sets}

    def metrics(self) -> Iterator[str]:
        """Yield the metrics that do not follow from the predictions, head by head."""
        for head in self.heads:
            found = agreement(self.table.numbers(f'pq{head}', finite=False), self.mos)
            for name in (f'{name}{head}' for name in CRITERIA):
                claimed, value = self.outcome.metrics.get(name), found[name.removesuffix(head)]
                if claimed is None:
                    self.unseen.append(f'{name}: the results do not have it')
                elif not np.isclose(claimed, value, rtol=CLOSE, atol=CLOSE, equal_nan=True):
                    yield f'{name} is {value:.6f} by the predictions, but {claimed:.6f} in the results'
        images = self.outcome.summary['images']
        if images is not None and images != len(self.mos):
            yield f'{len(self.mos)} images are predicted, but the results say {images}'

    def lines(self) -> Iterator[str]:
        """Yield the heads whose scores are not k times the raw ones plus b."""
        k, b, mapping = (self.outcome.summary[name] for name in ('k', 'b', 'mapping'))
        if mapping != 'linear' or not k or not b or len(k) != len(self.heads) or len(b) != len(k):
            self.unseen.append('the line to MOS: ' + (f'the scores are calibrated by a {mapping} curve'
                                                      if mapping != 'linear' else 'the results lack k and b'))
            return
        for head, slope, shift in zip(self.heads, k, b, strict=True):
            if f'pq{head}_before' not in self.table.columns:
                self.unseen.append(f'the line to MOS: no column pq{head}_before')
                continue
            pq, raw = (self.table.numbers(f'pq{head}{raw}', finite=False) for raw in ('', '_before'))
            bad = np.flatnonzero(~np.isclose(pq, slope * raw + shift, rtol=CLOSE, atol=CLOSE, equal_nan=True))
            if len(bad):
                i = bad[0]
                yield (f'pq{head} of {self.names[i]} is {slope * raw[i] + shift:.6f} by k, b and pq{head}_before, but '
                       f'{pq[i]:.6f} in the predictions')

    def scores(self) -> Iterator[str]:
        """Yield whether the MOS of the tested images are not those of the info file."""
        if self.tested is None or not set(self.names) <= set(self.tested[1].names):
            self.unseen.append('the MOS: no info file here that has the tested images')
            return
        source, info = self.tested
        known = dict(zip(info.names, info.mos.tolist(), strict=True))
        wanted = np.array([known[name] for name in self.names])
        bad = np.flatnonzero(~np.isclose(self.mos, wanted, rtol=FLOAT32, atol=FLOAT32))
        if len(bad):
            yield (f'the MOS of {len(bad)} images are not those of {source.info}, as of {self.names[bad[0]]}: '
                   f'{wanted[bad[0]]:.6g}, but {self.mos[bad[0]]:.6g} in the predictions')

    @cached_property
    def trained(self) -> dict[str, tuple[Source, Info] | None]:
        """Return name -> source and info file of the data sets that were trained on; None if one is not here."""
        return {name: info_at(one, self.outcome.options.get('data_info')) for name, one in self.trained_sets.items()}

    @cached_property
    def tested(self) -> tuple[Source, Info] | None:
        """Return the source and the info file of the tested images; None if it is not here.

        An info file is looked for beside the one that was trained on.
        """
        if self.own:
            return self.trained[self.outcome.summary['dataset']]
        name = self.outcome.summary['dataset']
        beside = Path(next(iter(self.trained_sets.values()), '')).parent
        files = [name] if name in DATASETS else [str(beside / f'{name}{suffix}') for suffix in ('.csv', '.mat')]
        return next((found for file in files if (found := info_at(file, None))), None)

    # What was trained on

    def of_the_split(self) -> list[str]:
        """Return what does not hold of the split, and which tested images or contents were trained on."""
        log = self.outcome.log
        if log is None or not (log / 'split.csv').exists():
            self.unseen.append('the split: no split.csv of the run')
            return []
        split = read_split(log / 'split.csv')
        splits = by_set(split, list(self.trained_sets), log / 'split.csv')
        own = splits.pop(self.outcome.summary['dataset'], None)
        return [*split_problems(self.outcome, split, own), *(() if own is None else self.contents(own)),
                *(self.files(splits) if splits else ())]

    def contents(self, split: Split) -> Iterator[str]:
        """Yield the contents that are both trained and tested on, or validated and tested on; a split by image may.
        """
        if self.tested is None:
            self.unseen.append('the contents: no info file of the data set here')
            return
        info = self.tested[1]
        content = dict(zip(info.names, info.ref_ids.tolist(), strict=True))
        tested = {content[name] for name in self.names if name in content}
        for part in {'train', 'val'} - {self.outcome.summary['part']}:
            mine = [name for name in split.get(part, ()) if content.get(name) in tested]
            if mine:
                count = len({content[name] for name in mine})
                shared = f'{count} contents are in {part} and tested too, as that of {mine[0]}'
                if self.outcome.options.get('split') == 'random':
                    self.unseen.append(f'whether it holds for new contents: the split is by image, and {shared}')
                else:
                    yield shared

    def files(self, splits: Mapping[str, Split]) -> Iterator[str]:
        """Yield how many tested images are files of other data sets that were trained on, by path or by content.

        `splits`: of each of these sets, its split.
        """
        if self.tested is None or not all(map(self.trained.get, splits)):
            self.unseen.append('whether tested images were trained on: no info files of both data sets here')
            return
        tested = {name: Path(self.tested[0].im_dir, name) for name in self.names}
        used = [Path(self.trained[data][0].im_dir, name) for data, split in splits.items()
                for part in ('train', 'val') for name in split.get(part, ())]
        known = same_files(used)
        missing = [path for path in (*tested.values(), *used) if not path.is_file()]
        shared = [name for name, path in tested.items() if known(path)]
        if shared:
            yield f'{len(shared)} tested images were trained on or chose the epoch, as {shared[0]}'
        elif missing:
            self.unseen.append(f'whether tested images were trained on: {len(missing)} are not here, as {missing[0]}')


def info_at(dataset: str, data_info: str | None) -> tuple[Source, Info] | None:
    """Return the source and the info file of a data set, None if there is none here."""
    try:
        source = named_source(dataset, None, data_info)
        return source, read_info(source.info)
    except (UserError, OSError):
        return None


def split_problems(outcome: Outcome, split: Split, own: Split | None) -> Iterator[str]:
    """Yield what does not hold of the split: its hash, the tested images, images that other parts have too.

    `own`: the split of the tested data set; None if it was not trained on.
    """
    found = split_hash(split)
    if outcome.split_hash != found:
        yield f'the split has the hash {found}, but the results say {outcome.split_hash}'
    if own is None or outcome.summary['part'] == 'all':
        return
    tested, part = set(outcome.predictions().image), outcome.summary['part']
    if tested != set(own.get(part, ())):
        yield f'the tested images are not those of the {part} part of the split'
    for other in {'train', 'val'} - {part}:
        if shared := sorted(tested & set(own.get(other, ()))):
            yield f'{len(shared)} tested images are in {other} too, as {shared[0]}'
