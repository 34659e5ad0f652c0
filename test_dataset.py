"""Test a trained model on a data set; `python test_dataset.py --help` shows how."""
from iqa_scoring.options import MAX_PIXELS, TEST

if __name__ == '__main__':
    TEST.begin()  # --help and mistakes end here, before torch is imported

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from iqa_data.datasets import DATASETS, dataset_name, named_source, names_of, sets_of
from iqa_data.info import Info
from iqa_data.loaders import Data
from iqa_data.options import data as data_group
from iqa_data.options import split as split_group
from iqa_data.splits import choose
from iqa_data.transforms import Preprocess, preprocess_of
from iqa_networks.network import scored_first
from iqa_results.charts import Panel, png
from iqa_results.write import results_table, write_results
from iqa_runtime.checkpoint import load_checkpoint, versions
from iqa_runtime.distributed import device_of, is_main, processes
from iqa_runtime.errors import UserError, command, one_line
from iqa_runtime.files import Paths, check_outputs, replacing
from iqa_runtime.options import Options
from iqa_runtime.process import keep_freed_memory
from iqa_runtime.reliability import NOMINAL, coverage
from iqa_runtime.split_file import split_hash
from iqa_scoring.average import Average, average_of, performance_of
from iqa_scoring.maps import small_map
from iqa_scoring.report import THUMBNAIL, report_entry, write_report
from iqa_scoring.restore import CROPPING, as_asked, given_network, restore_network
from iqa_scoring.scorer import Scorer
from iqa_scoring.stream import Reader, row_of, score_files
from iqa_training.naming import find_checkpoints, joined, on_dataset, result_name
from IQAdataset import loading_of, open_data, plan_of
from IQAperformance import CRITERIA, IQAPerformance, Performance, evaluate, interval


@command
def main(argv: list[str] | None = None) -> Performance | dict[str, Performance]:
    """Parse the options and test; return the performance, of several data sets by their names."""
    args = TEST.parse(argv)
    return test(args, args.part, args.trained_on)


def test(args: Options, part: str = 'auto', trained_on: str | None = None) -> Performance | dict[str, Performance]:
    """Test the checkpoint that the options name or describe, write the results, and return the performance.

    On several data sets, or of a checkpoint of several if no other is named, each is tested: name -> performance.

    Args:
        args: the options of test_dataset.py or main.py.
        part: 'test', 'all', or 'auto': the test part of the data set that the model was trained on, or all images of
            another data set.
        trained_on: the data set of the training run, to find its checkpoint.
    """
    keep_freed_memory(device_of(args.device))
    with processes(device_of(args.device)) as device:
        files = find_checkpoints(args, trained_on)
        checkpoints = [load_checkpoint(file) for file in files]
        sets = sets_of(args.dataset if 'dataset' in args.given else trained_set(checkpoints[0]))
        if len(sets) > 1 and args.values.get('report'):
            raise UserError(f'--report {args.report} shows one data set: --dataset names one of {", ".join(sets)}')
        found = {dataset_name(one): Test(args, files, checkpoints, device, one).run(part) for one in sets}
        return found if len(sets) > 1 else found[dataset_name(sets[0])]


def trained_set(checkpoint: dict) -> str:
    """Return the data set that a checkpoint was trained on, as its options name it."""
    return str(checkpoint.get('options', {}).get('dataset', checkpoint.get('dataset', 'KonIQ-10k')))


class Test:
    """Tests a checkpoint, or the mean score of several, on a data set; the first checkpoint decides on which images."""

    def __init__(self, args: Options, files: list[Path], checkpoints: list[dict], device: str, tested: str):
        self.tested, self.name = tested, dataset_name(tested)
        own = checkpoints
        checkpoints = [as_asked(args, *one, self.name) for one in zip(checkpoints, files, strict=True)]
        file, checkpoint = files[0], checkpoints[0]
        self.files, self.checkpoints, self.views = files, checkpoints, args.values.get('views', 'none')
        options, trained = checkpoint.get('options', {}), args.command.names()
        self.args, self.file, self.checkpoint, self.device = args, file, checkpoint, device
        self.trained_on = trained_set(checkpoint)
        self.same = self.name in names_of(self.trained_on)
        of_the_set = {'dataset'} if self.same else args.command.names(data_group, split_group)
        may_differ = {*of_the_set, *CROPPING, 'batch_size'}
        args.adopting(options, (args.given & trained) - may_differ, file)  # raises if one contradicts it
        info = args.adopting(options, {'data_info'}, file).data_info if self.same else args.data_info
        self.source = named_source(self.tested, args.im_dir, info if self.tested in DATASETS else None,
                                   args.ref_dir)
        self.run_name = joined([one.name.removesuffix('.pth') for one in files])
        self.run_name += '' if self.views == 'none' else f'-views-{self.views}'
        self.run_name += cropping(checkpoint) if checkpoint.get('crops') != own[0].get('crops') else ''

    def run(self, part: str) -> Performance:
        """Test a part of the data set (see `test`); return the performance."""
        part = (self.own_part if self.same else 'all') if part == 'auto' else part
        outputs = self.outputs_of(part)
        check_outputs(outputs, {'--trained_model_file': self.files, '--data_info': self.source.info,
                                '--split_file': self.args.split_file})
        scorer = self.scorer()
        data = open_data(self.source, self.name, self.rows_of(part), scorer.preprocess, loading_of(self.args),
                         scorer.network.inputs, outputs)
        names = data.names[part]
        if scorer.crops:
            scorer.crops.check(data.sizes[part])
        seen = max(warn_of_trained_images(names, *one) for one in zip(self.checkpoints, self.files, strict=True)
                   ) if self.same else 0
        print(f'Testing {", ".join(map(str, self.files))} (trained on {dataset_name(self.trained_on)}) on '
              f'{len(names)} images of {self.name}')
        performance = self.performance(scorer, data.evaluation_loader(part))
        if is_main():
            self.write(part, data, performance, scorer, seen)
            if 'report' in self.args.values and self.args.report:
                report(self.args, scorer, self.run_name, data.datasets[part].paths,
                       performance, f'{self.run_name} on {len(names)} images of {self.name}')
        return performance

    @property
    def own_part(self) -> str:
        """Return the part of its own data set that a model is tested on: val if the run had no test part."""
        split = self.checkpoint.get('split')
        return 'test' if not split or 'test' in split else 'val'

    def scorer(self) -> Scorer:
        """Return the scorer of a single checkpoint, or of the mean over several checkpoints or views."""
        given = given_network(self.args)
        scorers = []
        for checkpoint, file in zip(self.checkpoints, self.files, strict=True):
            network = restore_network(checkpoint, file, **given)
            scorers.append(Scorer(network, checkpoint, self.preprocess(checkpoint), self.device))
        return average_of(scorers, self.views, self.files)

    def performance(self, scorer: Scorer, loader: DataLoader) -> Performance:
        """Return the performance on the images of a loader."""
        if isinstance(scorer, Average):
            return performance_of(scorer, loader)
        metric = IQAPerformance('test', self.checkpoint['k'], self.checkpoint['b'], scored=scorer.head)
        performance = evaluate(scorer.network, loader, metric, self.name if self.args.pbar else '', scorer.crops)
        linear = scorer.mapping.name == 'linear'
        return performance if linear else performance.mapped(scorer.mapping)  # a curve, which k and b cannot describe

    def write(self, part: str, data: Data, performance: Performance, scorer: Scorer, seen: int) -> None:
        """Write the results, and print them."""
        split = self.checkpoint.get('split')
        several = len(sets_of(self.trained_on)) > 1  # the split of all is the run's
        own_hash = self.checkpoint.get('split_hash') if several else split_hash(split) if split else None
        written = write_results(
            self.args.result_dir, self.result_name(part), data.names[part], performance, {
                'run_name': self.run_name, 'dataset': self.name, 'trained_on': dataset_name(self.trained_on),
                'part': part, 'split_hash': own_hash, 'images_trained_on': seen,
                'checkpoint': ', '.join(map(str, self.files)), 'options': self.checkpoint.get('options', {}),
                'versions': versions(), 'mapping': scorer.mapping.name,
                'reversed': scorer.scale.higher_is_better is (not data.higher_is_better)}, data.votes.get(part))
        heads = ['mean'] if isinstance(scorer, Average) else scored_first(scorer.network.heads, scorer.head)
        if performance.uncertainty is not None:
            written.append(self.write_reliability(part, performance))
            criteria = performance.criteria
            print(f'Uncertainty: sharpness {criteria["sharpness"]:.4g} MOS units (mean standard deviation), coverage '
                  f'error {criteria["coverage_error"]:.3f}')
        main_score = abs(performance.srocc) + abs(performance.plcc)
        print(f'{results_table(performance, heads)}\n|SROCC| + |PLCC| {main_score:.4f}\n'
              f'Predictions and metrics: {", ".join(map(str, written))}')

    def write_reliability(self, part: str, performance: Performance) -> Path:
        """Draw the share of the MOS inside intervals of the uncertainty over the nominal one; return the picture."""
        seen = coverage(performance.pq, performance.sq, performance.uncertainty)
        curves = {'seen': (100 * NOMINAL, 100 * seen), 'ideal': (100 * NOMINAL, 100 * NOMINAL)}
        path = self.picture(part)
        with replacing(path) as temporary:
            temporary.write_bytes(png([Panel('Reliability of the uncertainty', 'nominal coverage, %',
                                             '% of the MOS inside', curves)], 4, 4))
        return path

    def picture(self, part: str) -> Path:
        """Return the file of the reliability plot."""
        return Path(self.args.result_dir, f'{self.result_name(part)}-reliability.png')

    def result_name(self, part: str) -> str:
        """Return the name of the results: the run's, with the data set and the part if these are not its own."""
        return result_name(self.run_name, names_of(self.trained_on), self.name, part, part == self.own_part)

    def outputs_of(self, part: str) -> dict[str, Paths]:
        """Return {option that sets their place: files} that the test of a part writes."""
        results = [Path(self.args.result_dir, f'{self.result_name(part)}.{kind}') for kind in ('csv', 'json')]
        return {'--result_dir': [*results, self.picture(part)], '--report': self.args.values.get('report')}

    def preprocess(self, checkpoint: dict) -> Preprocess:
        """Return the checkpoint's preprocessing with the first resize of the tested set, or else the options' one."""
        if 'input' not in checkpoint:
            return preprocess_of(self.args, self.source)
        stored = {**checkpoint['input']['preprocessing'], 'first_resize': self.source.first_resize}
        return Preprocess(**stored)

    def rows_of(self, part: str) -> Callable[[Info], dict[str, np.ndarray]]:
        """Return the function that chooses images: all, or a part by the checkpoint's split, or else by the options."""
        split = self.checkpoint.get('split') if self.same else None

        def rows(info: Info) -> dict[str, np.ndarray]:
            if part == 'all':
                return {'all': np.arange(len(info.names))}
            if split is None:
                return {part: choose(info, plan_of(on_dataset(self.args, self.tested), self.source))[part]}
            if part not in split:
                raise UserError(f'{self.file} was trained without a {part} part: --part all tests all images')
            tested, there = set(split[part]), set(info.names)
            missing = [name for name in split[part] if name not in there]
            if missing:
                raise UserError(f'the info file lacks {len(missing)} images of the {part} part of the checkpoint, as '
                                f'{missing[0]}: it is not the info file of the training run')
            return {part: np.array([i for i, name in enumerate(info.names) if name in tested])}
        return rows


def cropping(checkpoint: dict) -> str:
    """Return the suffix of the name of results whose crops differ from those of the run: -crops25-224x224-grid."""
    if 'crops' not in checkpoint:
        return '-whole'
    crops = checkpoint['crops']
    return f'-crops{crops["count"]}-{crops["size"][0]}x{crops["size"][1]}-{crops["places"]}'


def warn_of_trained_images(names: list[str], checkpoint: dict, file: Path) -> int:
    """Count the images that the checkpoint was trained on, and warn on stderr: they make the result too good."""
    seen = sorted(set(names) & set(checkpoint.get('split', {}).get('train', ())))
    if seen and is_main():
        examples = one_line(', '.join(seen[:3])) + (', ...' if len(seen) > 3 else '')
        print(f'WARNING: {file} was trained on {len(seen)} of the {len(names)} images tested ({examples}): this '
              'result does not show how good it is on new images',
              file=sys.stderr)
    return len(seen)


def report(args: Options, scorer: Scorer, model: str, paths: list[tuple[Path, ...]], performance: Performance,
           title: str) -> None:
    """Write the report of a labelled set; its images are read again for thumbnails and quality maps."""
    read = Reader(scorer.preprocess, MAX_PIXELS, THUMBNAIL)
    items = [tuple(map(str, item)) if len(item) == 2 else str(item[0]) for item in paths]
    samples = score_files(scorer, items, read, args.batch_size, args.num_workers,
                          args.map_window if args.report_maps and scorer.has_maps else 0)
    entries = []
    for sample in tqdm(samples, 'Report', len(paths), leave=False, disable=not args.pbar):
        row = row_of(sample, scorer, model) | {'score': float(performance.pq[sample.index])}
        small = b'' if sample.grid is None else small_map(sample.grid, scorer.scale)
        entries.append(report_entry(row, sample, small, float(performance.sq[sample.index])))
    metrics = {name: (performance.criteria[name], *interval(criterion, performance.pq, performance.sq))
               for name, criterion in CRITERIA.items()}
    write_report(args.report, entries, scorer.scale, title, metrics=metrics)
    print(f'Report: {args.report}')


if __name__ == '__main__':
    main()
