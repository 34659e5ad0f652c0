"""Plan a study: its runs, their commands and the splits; mistakes are found before anything is trained."""
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iqa_data.contents import Contents
from iqa_data.contents import check_apart as check_sets_apart
from iqa_data.datasets import dataset_name, require
from iqa_data.info import read_info
from iqa_data.references import references_of
from iqa_data.splits import choose, shared_contents
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from iqa_runtime.options import Options
from iqa_runtime.split_file import names_in_parts, split_hash
from iqa_studies.cells import Cell, Plan, folders
from iqa_studies.chains import plan_chain
from iqa_studies.choosing import choice_of
from iqa_studies.steps import Given, Step, merge_options, parsed, training_step, words_for
from iqa_studies.study import Study
from iqa_studies.study_data import StudyData, StudySet, others_of
from iqa_studies.study_groups import groupings_of
from iqa_training.labels import lack_of
from iqa_training.naming import log_name
from IQAdataset import of_each_set, plan_of, source_at
from IQAmodel import entry_of

Parts = Sequence[Mapping[str, np.ndarray]]  # of a split: part -> rows, of each data set


def plan(study: Study, folder: Path, tried: bool = False) -> Plan:
    """Plan the runs; UserError if data are missing, or a content would be trained on and tested.

    Where the study chooses values, the runs of a setting follow once all of them have been tried. `tried`: those that
    failed are not tried again.
    """
    if not study.datasets:
        return plan_chain(study, folder)
    made, common = Plan(), merge_options(study.common, next(iter(study.settings.values())))
    datasets, tests = ([data_of(given, common, study) for given in some] for some in (study.datasets, study.tests))
    check_tests_apart(datasets, tests, study)
    made.groupings = groupings_of(study, [one for place in (*datasets, *tests) for one in place.sets])
    made.images = {one.name: Path(one.source.im_dir) for place in (*datasets, *tests) for one in place.sets}
    predicted: set[str] = set()
    for place in datasets:
        splits = {label: splits_in(place, {**common, **split}, study) for label, split in study.splits.items()}
        for label, parts in splits.items():
            made.splits[place.name, label] = split_in_words(place, parts)
        add_cells(made, study, place, tests, splits, folder, tried)
        for i, one in ((i, one) for i, one in enumerate(place.sets) if one.name not in predicted):
            tested = {label: parts[i]['test'] for label, parts in splits.items() if 'test' in parts[i]}
            made.others += others_of(study, one, tested)
            predicted.add(one.name)
    for one in (one for place in tests for one in place.sets):
        made.others += others_of(study, one, {'all': np.arange(len(one.info.names))})
    for label in study.predictions.keys() - {other.label for other in made.others}:
        raise UserError(f'{study.predictions[label]}: none of its images is tested; expected the names of '
                        f'{", ".join(made.images)}, as {next(iter(datasets + tests)).sets[0].info.names[0]}')
    if not made.cells and not made.choices and not made.others:
        raise UserError(f'{study.at}: nothing is left to train: ' + '; '.join(made.left_out))
    return made


def data_of(given: Given, common: Given, study: Study) -> StudyData:
    """Read the info file of each data set; UserError if it or the folder of the images is not there."""
    options, sets = parsed(words_for(common, given), str(study.at)), []
    for one in of_each_set(options):
        source, name = source_at(one), dataset_name(one.dataset)
        require(source, name)
        sets.append(StudySet(name, source, read_info(source.info)))
    return StudyData(dataset_name(options.dataset), given, tuple(sets))


def check_tests_apart(datasets: list[StudyData], tests: list[StudyData], study: Study) -> None:
    """Raise UserError if two data sets have one name, or if one is tested with images or references of another."""
    files: dict[str, set[str]] = {}
    for place in (*datasets, *tests):
        known = next((one for one in (*datasets, *tests) if one.name == place.name), place)
        if dict(known.given) != dict(place.given):
            raise UserError(f'{study.at}: two data sets are called {place.name}, as their results would be')
        files[place.name] = place.files()
    for place in (place for place in tests if len(place.sets) > 1):
        raise UserError(f'{study.at}: tests: {place.name}: each data set is tested alone: list them one by one')
    for one, other in ((one, other) for one in datasets for other in tests if one.name != other.name):
        if shared := files[one.name] & files[other.name]:
            raise UserError(f'{study.at}: {other.name} is to test what is trained on {one.name}, and has {len(shared)} '
                            f'of its images or references, as {min(shared)}')


def splits_in(place: StudyData, options: Given, study: Study) -> list[dict[str, np.ndarray]]:
    """Return the parts of a split, of each data set; UserError as `checked_split`, or if data sets share contents."""
    splits = [checked_split(one, parsed(words_for(options, place.given), str(study.at)), study) for one in place.sets]
    check_sets_apart([Contents(one.name, one.source, one.info, parts)
                      for one, parts in zip(place.sets, splits, strict=True)])
    return splits


def checked_split(place: StudySet, args: Options, study: Study) -> dict[str, np.ndarray]:
    """Return the parts of a split; UserError if there is nothing to test on, or a content is trained on and tested.

    Splits by image (`splits: {images: N}`, as much of the literature has them) may share contents; a line says so.
    """
    parts = choose(place.info, plan_of(args, place.source))
    if 'test' not in parts:
        if args.split != 'all':
            raise UserError(f'{study.at}: {place.name}: --split {args.split} leaves no test part: what chose the epoch '
                            'would be reported')
        return parts
    seen = {'seen': np.concatenate([parts['train'], parts['val']]), 'test': parts['test']}
    if (shared := shared_contents(place.info, seen)) and args.split == 'random':
        print(f'{place.name}, split {args.exp_id} by image: {len(shared)} contents are in train or val and in test '
              'too, which flatters')
    elif shared:
        raise UserError(f'{study.at}: {place.name}: --split {args.split} has {len(shared)} contents in train or val '
                        'and in test too; repeats: N and folds: N keep them apart')
    return parts


def split_in_words(place: StudyData, splits: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Return the sizes of the parts and the hash of a split, as the run has it."""
    names = names_in_parts([one.name for one in place.sets], [
        {part: [one.info.names[i] for i in rows] for part, rows in parts.items()}
        for one, parts in zip(place.sets, splits, strict=True)])
    return ', '.join(f'{len(some)} {part}' for part, some in names.items()) + f', hash {split_hash(names)}'


def add_cells(made: Plan, study: Study, place: StudyData, tests: list[StudyData], splits: Mapping[str, Parts],
              folder: Path, tried: bool) -> None:
    """Add the runs of a data set to the plan; a setting is left out if the set lacks what it needs."""
    others = [other for other in tests if other.name not in {place.name, *(one.name for one in place.sets)}]
    for label in study.settings:
        args = parsed(study.words(label, place.given), f'{study.at}: {label}')
        inputs = entry_of(args.architecture).inputs
        if why := lack_of_references(place, inputs) or lack_of_labels(place, args, splits.values()):
            made.left_out.append(f'{label}: {why}')
            continue
        missing = {other.name: why for other in others if (why := lack_of_references(other, inputs))}
        made.left_out += [f'{label}: {why}' for why in missing.values()]
        tested = [other for other in others if other.name not in missing]
        cell = partial(cell_of, study, label, place, folder)
        chosen = chosen_of(made, study, cell, next(iter(splits)), tried)
        made.cells += [cell(split, seed, {**chosen}, tested) for split in splits for seed in study.seeds
                       if chosen is not None]


def chosen_of(made: Plan, study: Study, cell: Callable[..., Cell], split: str, tried: bool) -> Given | None:
    """Return the options that validation chooses for a setting; None if they are not known yet, or if all failed.

    The runs that choose are added to the plan; `cell`, `tried`: see `cell_of` and `plan`.
    """
    if not study.choose:
        return {}
    trials = {name: cell(split, study.seeds[0], given, []) for name, given in study.choose.items()}
    made.choices.append(choice := choice_of(trials))
    if tried and choice.best is None:
        made.left_out.append(f'{choice.setting}: none of the values of choose can be trained')
    done = tried or choice.complete()
    return study.choose[choice.best] if done and choice.best else None


def cell_of(study: Study, label: str, place: StudyData, folder: Path, split: str, seed: int | None, more: Given,
            tested: Sequence[StudyData]) -> Cell:
    """Return the run of a setting with further options on a split, and its tests on other data sets."""
    words = study.words(label, place.given, study.splits[split], {} if seed is None else {'seed': seed}, more,
                        folders(folder))
    args, step = parsed(words, f'{study.at}: {label}'), training_step(words)
    name = log_name(args)
    return Cell(label, split, args.seed, place.name, step,
                {other.name: test_of(step, other, args, folder) for other in tested}, split != 'all', args.values,
                folder / 'runs' / name, folder / 'logs' / f'{name}.log')


def lack_of_references(place: StudyData, inputs: int) -> str:
    """Return why a network with this number of inputs cannot be used on data sets, '' if it can."""
    try:
        for one in place.sets if inputs == 2 else ():
            references_of(one.source, one.name, one.info, np.arange(len(one.info.names)), allow_outside=True)
    except UserError as error:
        return str(error)
    return ''


def lack_of_labels(place: StudyData, args: Options, splits: Iterable[Parts]) -> str:
    """Return which labels that the loss needs the training images of a split lack, '' if none.

    A histogram of the ratings can be made of their standard deviation.
    """
    for one, parts in ((one, parts) for split in splits for one, parts in zip(place.sets, split, strict=True)):
        info, rows = one.info, parts['train']
        known = {'ratings': info.std[:, None], **info.more}
        labels = Labels(info.mos[rows, None], info.std[rows, None], {name: of[rows] for name, of in known.items()})
        if why := lack_of(args.values, labels.map(torch.from_numpy), one.name):
            return why
    return ''


def test_of(step: Step, place: StudyData, args, folder: Path) -> Step:
    """Return the step that tests a checkpoint on the whole of another data set."""
    machine = {name: args.values[name] for name in ('device', 'batch_size', 'cache', 'cache_dir', 'num_workers')
               if name in args.given}
    words = words_for(place.given, machine, {'result_dir': str(folder / 'results'), 'part': 'all'})
    return Step(('test_dataset.py', '--trained_model_file', str(step.checkpoint), *words),
                folder / 'results' / f'{step.checkpoint.stem}-on-{place.name}-all.json')
