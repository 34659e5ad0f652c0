"""Publish a trained model as a folder of safetensors, JSON and text, or on the Hugging Face Hub (docs/publishing.md).

The folder is read again before anything is uploaded: its scores of random images equal the checkpoint's bit for bit.
Absolute paths among the options of training are reduced to the names of the files.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_scoring.options import PUBLISH

if __name__ == '__main__':
    PUBLISH.begin()  # --help and mistakes end here, before torch is imported

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np

from iqa_data.datasets import sets_of
from iqa_results.read import CLOSE, read_predictions
from iqa_runtime.checkpoint import FORMAT, load_checkpoint, versions
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import replacing, write_text, writing
from iqa_runtime.hub import client_for, on_hub, upload
from iqa_runtime.names import as_file_name
from iqa_runtime.option_values import words_of
from iqa_runtime.options import Options
from iqa_runtime.published import FILES, PREDICTIONS, README, RECIPE, SPLIT, is_published, write_published
from iqa_runtime.split_file import names_in_parts, write_split
from iqa_scoring.export import random_images
from iqa_scoring.readme import Publication, readme, tested_parts
from iqa_scoring.restore import restore_network
from iqa_scoring.scorer import Scorer, completed, scorer_of
from iqa_training.card import changed_options
from iqa_training.naming import card_file, named_checkpoint, result_name
from IQAperformance import agreement


@command
def main(argv: list[str] | None = None) -> str:
    """Parse the options and publish; return the folder, or the address on the hub."""
    args = PUBLISH.parse(argv)
    if not args.to:
        raise UserError('give --to, a folder or hf-hub:USER/NAME')
    file = named_checkpoint(args.checkpoint[0], args.checkpoint_dir)
    if on_hub(args.to):
        return publish_on_hub(args, file)
    if is_published(file):
        raise UserError(f'{file} is a published model: --to hf-hub:USER/NAME uploads it as it is')
    folder = Path(args.to)
    check_folder(folder, args.overwrite)
    with writing(folder):
        folder.resolve().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix='.published-') as temporary:
            write_folder(args, file, Path(temporary), folder.resolve().name)
            replace_files(Path(temporary), folder)
    print(f'Published: {folder}')
    return str(folder)


def publish_on_hub(args: Options, file: Path) -> str:
    """Upload a published folder as it is, or publish a checkpoint on the hub; return the address of the commit."""
    _, model, _ = client_for(args.to)
    if on_hub(file):
        raise UserError(f'{file} is on the hub already: name a checkpoint or a folder')
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if is_published(file):
            restore_network(load_checkpoint(file), file)  # checks all that is loaded
            for path in files_in(file):
                (folder / path.name).write_bytes(path.read_bytes())
        else:
            write_folder(args, file, folder, model.split('/')[1])
        address = upload(folder, args.to, f'Publish {model}')
    print(f'Published: {args.to}, {address}')
    return address


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder that belong to a published model."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern)}) if folder.is_dir() else []


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise UserError if a folder cannot be published to, or has files that would be lost or mixed with new ones."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--to {folder}: expected a folder, found a file')
    own = files_in(folder)
    if others := sorted(set(folder.iterdir() if folder.is_dir() else ()) - set(own)):
        raise UserError(f'--to {folder}: it has other files, such as {others[0].name}: expected a new folder')
    if own and not overwrite:
        raise UserError(f'--to {folder}: it exists: --overwrite replaces its files')


def replace_files(new: Path, folder: Path) -> None:
    """Move the files of a published model to a folder, in place of those of an earlier publication."""
    folder.mkdir(exist_ok=True)
    for path in files_in(folder):
        if not (new / path.name).exists():
            path.unlink()
    for path in files_in(new):
        os.replace(path, folder / path.name)


def write_folder(args: Options, file: Path, folder: Path, name: str) -> None:
    """Write all files of a published model to a folder, and check that it scores as the checkpoint does."""
    stored = load_checkpoint(file)
    scorer = scorer_of(args, stored, file, 'cpu')
    checkpoint = {'versions': versions(), **completed(args, stored, file, scorer)}
    options, refused = changed_options(checkpoint)
    options = without_folders(options)
    checkpoint |= {'options': without_folders(checkpoint['options'])} if 'options' in checkpoint else {}
    write_published(folder, checkpoint, FORMAT)
    if 'split' in checkpoint:
        write_split(folder / SPLIT, whole_split(checkpoint))
    predictions = dict(copied_predictions(checkpoint, card_file(file).stem, Path(args.result_dir), folder))
    write_text(folder / RECIPE, recipe(options, refused, name))
    publication = Publication(name, args.to, args.license, predictions)
    write_text(folder / README, readme(checkpoint, publication, options, refused))
    check_scores(scorer, folder)
    if args.license == 'other':
        print('Its license is "other": --license NAME names one')


def without_folders(options: Mapping) -> dict:
    """Return options in which absolute paths are reduced to names of files, so that none names a folder of yours."""
    def short(value):
        sets = sets_of(value) if isinstance(value, str) else ()
        return '+'.join(os.path.basename(one) if os.path.isabs(one) else one for one in sets) if sets else value
    return {name: short(value) for name, value in options.items()}


def whole_split(checkpoint: Mapping) -> dict[str, list[str]]:
    """Return part -> images of a checkpoint; of several data sets, the images are called SET/IMAGE."""
    if 'sets' not in checkpoint:
        return checkpoint['split']
    return names_in_parts(list(checkpoint['sets']), [one.get('split', {}) for one in checkpoint['sets'].values()])


def copied_predictions(checkpoint: Mapping, run: str, results: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Copy the predictions of the tested images of each data set to a folder; yield the file, and what it is of.

    Predictions that are not there, or from which the checkpoint's metrics do not follow, are left out, with a message.
    """
    parts, several = tested_parts(checkpoint), 'sets' in checkpoint
    for name, part, one in parts:
        table = results / f'{result_name(run, [other for other, _, _ in parts], name, part)}.csv'
        why = why_not(table, one['metrics'][part]) if part else f'{run} has no metrics of {name}'
        if why:
            print(f'Without predictions of {name}: {why}', file=sys.stderr)
            continue
        copy = folder / PREDICTIONS.replace('*', f'-{as_file_name(name)}' if several else '')
        with replacing(copy) as temporary:
            temporary.write_bytes(table.read_bytes())
        yield copy.name, f'{name} {part}'


def why_not(table: Path, metrics: Mapping) -> str:
    """Return why a table of predictions cannot be published with these metrics; '' if it can."""
    if not table.is_file():
        return f'{table} not found; python test_dataset.py writes it (--result_dir names its folder)'
    predictions = read_predictions(table)
    for name, value in agreement(predictions.pq, predictions.mos).items():
        claimed = metrics.get(name)
        known = isinstance(claimed, (int, float)) and not np.isnan(claimed)
        if known and not np.isclose(claimed, value, rtol=CLOSE, atol=CLOSE):
            return f'{table} is of other weights: its {name} is {value:.6f}, the checkpoint\'s {claimed:.6f}'
    return ''


def recipe(options: Mapping, refused: int, name: str) -> str:
    """Return the options of training as the text of a recipe, one on each line."""
    lines = [f'# options of {name}' + (f'; {refused} are left out, which main.py does not accept' if refused else '')]
    return '\n'.join([*lines, *(shlex.join(words_of({option: value})) for option, value in options.items())]) + '\n'


def check_scores(scorer: Scorer, folder: Path) -> None:
    """Raise UserError if a published folder scores random images otherwise than the checkpoint, bit for bit."""
    side = max([scorer.network.side or 256, *(scorer.crops.size if scorer.crops else ())])
    images = np.split(random_images((2 * scorer.inputs, side, side)), scorer.inputs)
    checkpoint = load_checkpoint(folder)
    published = Scorer(restore_network(checkpoint, folder), checkpoint)
    expected, found = scorer.score(*images), published.score(*images)
    if not np.array_equal(expected, found):
        raise UserError(f'{folder}: it scores random images {found}, but the checkpoint {expected}: do not use it')


if __name__ == '__main__':
    main()
