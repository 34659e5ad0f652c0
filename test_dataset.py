"""Test a trained model on a data set.

    python test_dataset.py --trained_model_file checkpoints/NAME.pth                    the set it was trained on
    python test_dataset.py --trained_model_file checkpoints/NAME.pth --dataset CLIVE    another one
    python test_dataset.py --resize -arch resnet18 --dataset CLIVE                      main.py's run of these options
"""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import IQAcheckpoint
from IQAdataset import Info, loading_of, named_source, open_data, preprocess_of, split
from IQAmodel import build_model
from IQAoptions import TEST_DATASET, parse, run_name, with_dataset
from IQAresults import table, write_results
from IQAutils import UserError, command
from modified_ignite_engine import evaluate

OF_THE_TESTED_SET = ('dataset', 'data_info', 'exp_id', 'train_ratio', 'train_and_val_ratio', 'batch_size')


@command
def main(argv: list[str] | None = None) -> dict:
    """Parse the options and test; return the performance."""
    return test(parse(argv, TEST_DATASET, __doc__))


def test(args) -> dict:
    """Test the checkpoint that the options name or describe, write the results, and return the performance."""
    file = Path(args.trained_model_file or find_checkpoint(args))
    checkpoint = IQAcheckpoint.load(file)
    trained_on = checkpoint.get('dataset', 'KonIQ-10k')
    tested = args.dataset if 'dataset' in args.given else trained_on
    own = with_dataset(args, tested)  # its split, before the checkpoint's options come in
    IQAcheckpoint.adopt(args, checkpoint, file, ignore=('dataset', 'batch_size') if tested == trained_on
                        else OF_THE_TESTED_SET)
    part = getattr(args, 'part', 'test')
    if part == 'auto':
        part = 'test' if tested == trained_on else 'all'
    model = load_model(args, checkpoint, file)
    source = named_source(tested, args.im_dir, args.data_info if tested == trained_on else own.data_info)
    data = open_data(source, tested, rows_of(part, checkpoint if tested == trained_on else {}, own),
                     preprocess_of(args, source), loading_of(args))
    print(f'Testing {file} (trained on {trained_on}) on {len(data.names[part])} images of {tested}')
    performance = evaluate(model, data.evaluation_loader(part), args.device, 'test', checkpoint['k'], checkpoint['b'],
                           pbar=tested if args.pbar else '')
    name = file.stem if (tested, part) == (trained_on, 'test') else f'{file.stem}-on-{tested}-{part}'
    written = write_results(args.result_dir, name, data.names[part], performance, {
        'run_name': file.stem, 'dataset': tested, 'trained_on': trained_on, 'part': part, 'checkpoint': str(file),
        'options': checkpoint.get('options', {}), 'versions': IQAcheckpoint.versions()})
    print(f'{table(performance)}\nPredictions and metrics: {", ".join(map(str, written))}')
    return performance


def find_checkpoint(args) -> Path:
    """Where main.py wrote the run of these options, on the set tested or, for a test across sets, on KonIQ-10k."""
    trained_on = getattr(args, 'trained_on', None)
    datasets = [trained_on] if trained_on else dict.fromkeys((args.dataset, 'KonIQ-10k'))
    return IQAcheckpoint.find(args.checkpoint_dir, {name: run_name(with_dataset(args, name)) for name in datasets})


def load_model(args, checkpoint: dict, file: Path) -> torch.nn.Module:
    """The network of the options, with the weights of the checkpoint, on the device and in eval mode."""
    args.weights = 'none'
    model = build_model(args)
    IQAcheckpoint.load_weights(model, checkpoint, file)
    return model.to(args.device).eval()


def rows_of(part: str, checkpoint: dict, own) -> Callable[[Info], dict[str, np.ndarray]]:
    """What chooses the images: all, or the test part as the checkpoint says, or else as the options split the set."""
    def rows(info: Info) -> dict[str, np.ndarray]:
        if part == 'all':
            return {'all': np.arange(len(info.names))}
        if 'split' not in checkpoint:
            return {'test': split(info, own.exp_id, own.train_ratio, own.train_and_val_ratio)['test']}
        place = {name: i for i, name in enumerate(info.names)}
        missing = [name for name in checkpoint['split']['test'] if name not in place]
        if missing:
            raise UserError(f'the info file lacks {len(missing)} images of the test part of the checkpoint, as '
                            f'{missing[0]}: it is not the one of the training run')
        return {'test': np.array([place[name] for name in checkpoint['split']['test']])}
    return rows


if __name__ == '__main__':
    main()
