"""Test a trained model on a data set.

    python test_dataset.py --trained_model_file checkpoints/NAME.pth                    the set it was trained on
    python test_dataset.py --trained_model_file checkpoints/NAME.pth --dataset CLIVE    another one
    python test_dataset.py --resize -arch resnet18 --dataset CLIVE                      main.py's run of these options
"""
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from iqa_data.info import Info, dataset_name, named_source
from iqa_data.splits import choose, split_hash
from iqa_runtime.checkpoint import adopt, load_checkpoint, versions
from iqa_runtime.errors import UserError, command
from iqa_runtime.process import keep_freed_memory
from iqa_scoring.maps import small_map
from iqa_scoring.report import THUMBNAIL, Entry, write_report
from iqa_scoring.scorer import MAX_PIXELS, Mapping, Scorer
from iqa_scoring.stream import Reader, row_of, score_files
from IQAdataset import loading_of, open_data, plan_of, preprocess_of
from IQAmodel import load_model
from IQAoptions import TEST_DATASET, find_checkpoint, parse, with_dataset
from IQAperformance import agreement, table, write_results
from modified_ignite_engine import evaluate
from results_in_the_paper.driver.iqa_statistics import CRITERIA, interval, resamples

OF_THE_TESTED_SET = ('dataset', 'data_info', 'split', 'exp_id', 'train_ratio', 'train_and_val_ratio', 'split_seed',
                     'folds', 'fold', 'split_file', 'batch_size')


@command
def main(argv: list[str] | None = None) -> dict:
    """Parse the options and test; return the performance."""
    return test(parse(argv, TEST_DATASET, __doc__))


def test(args) -> dict:
    """Test the checkpoint that the options name or describe, write the results, and return the performance."""
    file = Path(args.trained_model_file or find_checkpoint(args))
    checkpoint = load_checkpoint(file)
    trained_on = checkpoint.get('options', {}).get('dataset', checkpoint.get('dataset', 'KonIQ-10k'))
    tested = args.dataset if 'dataset' in args.given else trained_on
    same, name = dataset_name(tested) == dataset_name(trained_on), dataset_name(tested)
    own = with_dataset(args, tested)  # its split, before the checkpoint's options come in
    adopt(args, checkpoint, file, ignore=('dataset', 'batch_size') if same else OF_THE_TESTED_SET)
    part = getattr(args, 'part', 'test')
    if part == 'auto':
        part = 'test' if same else 'all'
    keep_freed_memory(args.device)
    model = load_model(args, checkpoint, file)
    source = named_source(tested, args.im_dir, args.data_info if same else own.data_info)
    data = open_data(source, name, rows_of(part, checkpoint if same else {}, own), preprocess_of(args, source),
                     loading_of(args))
    names = data.names[part]
    seen = warn_of_trained_images(names, checkpoint, file) if same else 0
    print(f'Testing {file} (trained on {dataset_name(trained_on)}) on {len(names)} images of {name}')
    performance = evaluate(model, data.evaluation_loader(part), args.device, 'test', checkpoint['k'], checkpoint['b'],
                           pbar=name if args.pbar else '')
    mapping = Mapping.of(checkpoint)
    if mapping.name != 'linear':  # calibrated by a curve, which k and b do not hold
        performance['pq'] = mapping(performance['pq_before'])
        performance |= agreement(performance['pq'], performance['sq'])
    result = file.stem if same and part == 'test' else f'{file.stem}-on-{name}-{part}'
    written = write_results(args.result_dir, result, names, performance, {
        'run_name': file.stem, 'dataset': name, 'trained_on': dataset_name(trained_on), 'part': part,
        'split_hash': hash_of(checkpoint), 'images_trained_on': seen, 'checkpoint': str(file),
        'options': checkpoint.get('options', {}), 'versions': versions()})
    print(f'{table(performance)}\nPredictions and metrics: {", ".join(map(str, written))}')
    if getattr(args, 'report', None):
        report(args, Scorer(model, checkpoint, preprocess_of(args, source), args.device), file.name,
               data.datasets[part].paths, performance, f'{file.stem} on {len(names)} images of {name}')
    return performance


def hash_of(checkpoint: dict) -> str | None:
    """The hash of the split that the checkpoint was trained with; None for one of the original package."""
    return split_hash(checkpoint['split']) if 'split' in checkpoint else None


def warn_of_trained_images(names: list[str], checkpoint: dict, file: Path) -> int:
    """Count the images that the checkpoint was trained on, and warn of them on stderr: they flatter the result."""
    seen = sorted(set(names) & set(checkpoint.get('split', {}).get('train', ())))
    if seen:
        print(f'WARNING: {file} was trained on {len(seen)} of the {len(names)} images tested ({", ".join(seen[:3])}'
              f'{", ..." if len(seen) > 3 else ""}): this result does not tell how good it is on new images',
              file=sys.stderr)
    return len(seen)


def report(args, scorer: Scorer, model: str, paths: list[Path], performance: dict, title: str) -> None:
    """Write the report of a labelled set: its images are read again for thumbnails and quality maps."""
    read = Reader(scorer.preprocess, MAX_PIXELS, THUMBNAIL)
    samples = score_files(scorer, map(str, paths), read, args.batch_size, args.num_workers,
                          args.map_window if args.report_maps else 0)
    entries = []
    for sample in tqdm(samples, 'Report', len(paths), leave=False, disable=not args.pbar):
        row = row_of(sample, scorer, model) | {'score': float(performance['pq'][sample.index])}
        small = b'' if sample.grid is None else small_map(sample.grid, scorer.scale)
        entries.append(Entry(row, sample.thumbnail, small, float(performance['sq'][sample.index])))
    counts = resamples(len(paths), 1000)
    metrics = {name: (performance[name], *interval(criterion(performance['pq'], performance['sq'], counts)))
               for name, criterion in CRITERIA.items()}
    write_report(args.report, entries, scorer.scale, title, metrics=metrics)
    print(f'Report: {args.report}')


def rows_of(part: str, checkpoint: dict, own) -> Callable[[Info], dict[str, np.ndarray]]:
    """What chooses the images: all, or the test part as the checkpoint says, or else as the options split the set."""
    def rows(info: Info) -> dict[str, np.ndarray]:
        if part == 'all':
            return {'all': np.arange(len(info.names))}
        if 'split' not in checkpoint:
            return {'test': choose(info, plan_of(own))['test']}
        place = {name: i for i, name in enumerate(info.names)}
        missing = [name for name in checkpoint['split']['test'] if name not in place]
        if missing:
            raise UserError(f'the info file lacks {len(missing)} images of the test part of the checkpoint, as '
                            f'{missing[0]}: it is not the one of the training run')
        return {'test': np.array([place[name] for name in checkpoint['split']['test']])}
    return rows


if __name__ == '__main__':
    main()
