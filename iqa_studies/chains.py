"""Plan a study whose settings choose their own data: trainings, those that start from others, and the steps after them.

Without a folder, files are in main.py's own folders: checkpoints/, results/ and runs/. A finished run with another name
is found by its options.
"""
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from iqa_data.datasets import dataset_name
from iqa_results.read import Result, read_results
from iqa_runtime.errors import UserError
from iqa_runtime.names import as_file_name
from iqa_runtime.option_values import words_of
from iqa_runtime.options import Options
from iqa_scoring.options import TEST
from iqa_studies.cells import Cell, Plan, folders
from iqa_studies.found import NOT_COMPARED, find
from iqa_studies.steps import Given, Step, parsed, training_step, typed, typed_number
from iqa_studies.study import PLACES, Study
from iqa_training.naming import joined, log_name
from iqa_training.options import TRAIN

RANKER = 'asna_ranker.pth'  # where runs look for it
FIELD = re.compile(r'\{(\w+)\}')  # of the name of a CSV file


def plan_chain(study: Study, folder: Path | None = None, results: Sequence[Result] | None = None) -> Plan:
    """Plan the runs, and what follows them; UserError if an option is wrong.

    Args:
        study: one without data sets of its own.
        folder: of all its files; None: main.py's own folders.
        results: existing results (default: those in the folder of results).
    """
    made = Plan(cells=list(trainings(study, folder, results)))
    names = dict.fromkeys(cell.trained_on for cell in made.cells)
    places = sorted(study.given & {'im_dir', 'ref_dir', 'data_info'})
    if len(names) > 1 and places:
        raise UserError(f'--{places[0]}: {study.name} trains on several data sets: link the folders {", ".join(names)}')
    last = [cell for label in study.last() for cell in made.cells if cell.setting == label]
    options = made.cells[0].options
    given = {name: options[name] for name in ('device', 'pbar', 'num_workers', 'checkpoint_dir', 'result_dir')
             if name in study.given or (folder and name.endswith('_dir'))}
    if study.ranker and 'ranker' not in study.given:
        words = words_of({name: value for name, value in given.items() if name != 'num_workers'})
        made.first = [Step(('iqa_training/train_ranker.py', *words, '--resume'),
                           Path(options['checkpoint_dir'], RANKER))]
    if 'views' in study.ensemble:
        made.last.append([together(study.ensemble['views'], last, given | {name: options[name] for name in places})])
    if study.predict:
        made.last += prediction_steps(study, last, given)
    return made


def trainings(study: Study, folder: Path | None, results: Sequence[Result] | None) -> Iterator[Cell]:
    """Yield the training runs, those first that others start from: these are trained once, whatever the splits."""
    starts: dict[str, Path] = {}
    for label in sorted(study.settings, key=lambda label: depth(study, label)):
        for split, seed in product(study.splits if label in study.last() else [''], study.seeds):
            more = [study.splits.get(split, {}), {} if seed is None else {'seed': seed},
                    {'pretrained': str(starts[study.after[label]])} if label in study.after else {},
                    folders(folder) if folder else {}]
            words = study.words(label, *more)
            args = parsed(words, f'{study.at}: {label}')
            results = read_results(args.result_dir) if results is None else results
            name, ignored = log_name(args), NOT_COMPARED - study.given
            cell = as_found(Cell(
                label, split, args.seed, dataset_name(args.dataset), training_step(words), {}, True, args.values,
                Path(args.log_dir, name), folder and folder / 'logs' / f'{name}.log', tuple(study.flags()),
                curve_files(study, label, args), depth(study, label)), results, ignored)
            layers = (study.common, study.settings[label], *more)
            tests = {name: step for place in study.tests for name, step in [test_elsewhere(cell, args, place, layers)]
                     if name != cell.trained_on and label in study.last()}
            starts.setdefault(label, cell.training.checkpoint)
            yield as_found(replace(cell, tests=tests), results, ignored)


def curve_files(study: Study, label: str, args: Options) -> dict[Path, str]:
    """Return the CSV files that the curves of a run are exported to, and the tag of each curve."""
    data, found = dataset_name(args.dataset), {}
    known = {**args.values, 'setting': label, 'dataset': data,
             'other': '' if args.dataset == TRAIN.defaults['dataset'] else f'-{data}'}
    for part, criterion in product(*study.curves[1:]) if study.curves else ():
        values = {**known, 'part': part, 'criterion': criterion}
        name = FIELD.sub(lambda field, values=values: typed_number(values.get(field[1], field[0])), study.curves.files)
        found[Path(args.result_dir, 'csv', f'{as_file_name(name)}.csv')] = f'{part}/{data}/{criterion}'
    return found


def depth(study: Study, label: str) -> int:
    """Return the number of trainings that come before that of a setting."""
    return 1 + depth(study, study.after[label]) if label in study.after else 0


def as_found(cell: Cell, results: Sequence[Result], ignored: Collection[str]) -> Cell:
    """Return the cell with the files of a run of the same options, if its own are not there."""
    found, step = find(results, cell.options, cell.trained_on, ignored), cell.training
    if found and not step.makes.exists():
        checkpoint = Path(cell.options['checkpoint_dir'], f'{found.path.stem}.pth')
        cell = replace(cell, log=Path(cell.options['log_dir'], found.path.stem), training=replace(
            step, makes=found.path, checkpoint=checkpoint if checkpoint.exists() else step.checkpoint))
    tests = {data: replace(step, makes=other.path) if not step.makes.exists() and (
        other := find(results, cell.options, data, ignored)) else step for data, step in cell.tests.items()}
    return replace(cell, tests=tests)


def test_elsewhere(cell: Cell, args: Options, place: Given, layers: Sequence[Given]) -> tuple[str, Step]:
    """Return the name of another data set, and the step that tests a run on the whole of it.

    A run that its options do not name, as one of a recipe, is named by its file.
    """
    machine = {name: args.values[name] for name in TEST.actions if name in args.given - TRAIN.names() - {*PLACES}}
    name, file = dataset_name(str(place['dataset'])), cell.training.checkpoint
    if 'recipe' in args.given or args.data_info or file.stem != log_name(args) or len(place) > 1 or any(
            layer.get('recipe') for layer in layers):
        words = ['--trained_model_file', str(file), *typed(place), '--part', 'all', *words_of(machine)]
    else:
        own = {name: value for layer in layers for name, value in layer.items() if name in TRAIN.names()}
        words = [*typed({**place, **own, **place}), *words_of(machine)]
        if args.dataset != TRAIN.defaults['dataset']:
            words += ['--trained_on', args.dataset]
    return name, Step(('test_dataset.py', *words), Path(args.result_dir, f'{file.stem}-on-{name}-all.json'))


def together(views: str, cells: Sequence[Cell], given: Given) -> Step:
    """Return the step that tests the mean score of several networks and of several views of each image."""
    files = [cell.training.checkpoint for cell in cells]
    words = words_of({name: value for name, value in given.items() if name != 'checkpoint_dir'})
    return Step(('test_dataset.py', *words, '--views', views, '--trained_model_file', *map(str, files)),
                Path(cells[0].options['result_dir'], f'{joined([file.stem for file in files])}-views-{views}.json'))


def prediction_steps(study: Study, cells: Sequence[Cell], given: Mapping) -> list[list[Step]]:
    """Return the steps that write the table of each network's scores of a folder of images, and put them together."""
    folder = Path(cells[0].options['result_dir'], 'result_csv')
    option = next((name for split in study.splits.values() for name in split), '')
    words = words_of({name: value for name, value in given.items() if not name.endswith('_dir')})
    tables = []
    for cell in cells:
        table = folder / f'{as_file_name(f"{cell.setting}_{option}{cell.split}" if option else cell.setting)}.csv'
        tables.append(Step(('test_demo.py', '--trained_model_file', str(cell.training.checkpoint), '--img',
                            study.predict, '--csv', str(table), '--columns', 'challenge', *words), table))
    final, how = folder / 'final.csv', study.ensemble.get('how', 'iqr')
    return [tables, [Step(('iqa_scoring/ensemble.py', *(str(step.makes) for step in tables), *(
        [] if how == 'iqr' else ['--how', how]), '--out', str(final)), final)]]
