"""Score images with every checkpoint in a folder, and combine the predictions.

    python iqa_scoring/predict_all.py --models weight --img test --out result_csv

writes result_csv/NAME.csv for each weight/NAME.pth or NAME.ckpt, and their ensemble, result_csv/final.csv. An existing
table is not made again; NAME.csv.digest beside it holds a digest of its checkpoint, images and columns. Checkpoints are
those of main.py; a state dict of MANIQA, plain or wrapped by Lightning, is accepted too if its name begins with the
size, as 384_fold0.ckpt does: its scores are ten times its outputs.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_scoring.options import PREDICT

if __name__ == '__main__':
    PREDICT.begin()  # --help and mistakes end here, before torch is imported

import re

from tqdm import tqdm

from iqa_networks.pretrained import state_dict_in
from iqa_runtime.checkpoint import check_checkpoint, read_tensors
from iqa_runtime.distributed import device_of
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import read_text, replacing, write_text
from iqa_runtime.names import path_text
from iqa_scoring import ensemble
from iqa_scoring.inputs import find_images
from iqa_scoring.parts import model_digest
from iqa_scoring.scorer import Scorer, load_scorer
from iqa_scoring.shards import is_shard
from iqa_scoring.stream import Reader, row_of, score_files
from iqa_scoring.tables import Tables
from IQAmodel import list_models

SUFFIXES = ('.pth', '.ckpt', '.pt')
FINAL = 'final'


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the options, score with each checkpoint, write the tables and the ensemble."""
    args = PREDICT.parse(argv)
    files = checkpoints_in(args.models)
    paths, _ = find_images(args.img, args.recursive, sys.stdin.buffer if sys.stdin and '-' in args.img else ())
    for path in filter(is_shard, paths):
        raise UserError(f'--img {path_text(path)}: expected image files; test_demo.py scores shards and videos')
    tables = [Path(args.out, f'{file.stem}.csv') for file in files]
    for i, (file, table) in enumerate(zip(files, tables, strict=True), 1):
        checkpoint = read_checkpoint(file)
        digest = model_digest([checkpoint], images=[path_text(path) for path in paths], columns=args.columns)
        if made_already(table, digest):
            print(f'[{i}/{len(files)}] {table} exists')
            continue
        scorer = load_scorer(checkpoint, device_of(args.device))
        if scorer.inputs == 2:
            raise UserError(f'{file}: it compares images with references; expected networks that score images alone '
                            '(test_demo.py --ref scores pairs)')
        write_text(_digest_file(table), f'{digest}\n')
        predict(args, scorer, file, table, paths)
        print(f'[{i}/{len(files)}] {file}: {len(paths)} images scored: {table}', flush=True)
    ensemble.main([*map(str, tables), '--how', args.how, '--out', str(Path(args.out, f'{FINAL}.csv'))])


def checkpoints_in(folder: str) -> list[Path]:
    """Return the checkpoints in a folder, sorted by name; UserError if there are none, or two with one name."""
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UserError(f'--models {folder}: {error.strerror or error}') from None
    if not files:
        raise UserError(f'--models {folder}: no checkpoints ({" ".join(SUFFIXES)}) in it')
    stems = [file.stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1 or stem == FINAL:
            raise UserError(f'--models {folder}: the table of {stem} would be written twice: rename the checkpoint')
    return files


def _digest_file(table: Path) -> Path:
    return table.with_name(f'{table.name}.digest')


def made_already(table: Path, digest: str) -> bool:
    """Return whether a table exists; UserError if it was made from other inputs."""
    if not table.exists():
        return False
    beside = _digest_file(table)
    if not beside.exists() or read_text(beside).strip() != digest:
        raise UserError(f'{table} was made by another checkpoint of that name, of other images or --columns, or '
                        f'{beside.name} is not beside it: remove the table, or name another --out')
    return True


def read_checkpoint(file: Path) -> dict:
    """Return a checkpoint of this project, or make one from a published MANIQA, by the size in its name."""
    content = read_tensors(file)
    if isinstance(content, dict) and {'model', 'k', 'b'} <= set(content):
        return check_checkpoint(content, file)
    size = re.match(r'(\d+)_', file.name)
    name = f'maniqa_{size[1]}' if size else ''
    if name not in list_models('maniqa_*'):
        raise UserError(f'{file}: not a checkpoint of this project, and its name does not begin with the size of a '
                        'MANIQA, as 384_fold0 does')
    side = int(size[1])
    preprocessing = {'resize': (side, side), 'filter': 'cubic'}
    return {'model': state_dict_in(content, file), 'k': [10.], 'b': [0.], 'network': {'name': name, 'options': {}},
            'input': {'preprocessing': preprocessing, 'normalise': 'half'}}


def predict(args, scorer: Scorer, file: Path, table: Path, paths: list[str]) -> None:
    """Score images with a model and write its table, whole or not at all; UserError if an image cannot be scored."""
    samples = score_files(scorer, paths, Reader(scorer.preprocess, args.max_pixels), args.batch_size, args.num_workers)
    with replacing(table) as temporary:
        made = Tables({'csv': str(temporary)}, resume=False, digest='')
        for sample in tqdm(samples, file.name, len(paths), unit='image', leave=False, disable=not args.pbar):
            if sample.error:
                raise UserError(f'--img {path_text(sample.path)}: {sample.error}')
            made.write(row_of(sample, scorer, path_text(file.name)))
        made.close()
        made.finish(form=args.columns)


if __name__ == '__main__':
    main()
