"""Score images; `python test_demo.py --help` shows how."""
from iqa_scoring.options import SCORE

if __name__ == '__main__':
    SCORE.begin()  # --help and mistakes end here, before torch is imported

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from tqdm import tqdm

from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.distributed import device_of, gather_objects, is_main, processes
from iqa_runtime.errors import UserError, command, needed
from iqa_runtime.files import Paths, check_outputs, is_device
from iqa_runtime.names import text, without_suffix
from iqa_runtime.options import Options
from iqa_runtime.process import keep_freed_memory, pillow_without_limit, signals_wait
from iqa_scoring.average import average_of
from iqa_scoring.calibrate import calibrated, read_ratings
from iqa_scoring.identity import digest_of
from iqa_scoring.inputs import SUFFIXES
from iqa_scoring.maps import check_maps, small_map, write_map
from iqa_scoring.parts import Parts
from iqa_scoring.picture import write_picture
from iqa_scoring.references import Item, files_of, find_items, path_of, reference_of, with_references
from iqa_scoring.report import THUMBNAIL, entry_of, write_report
from iqa_scoring.scorer import Scorer, as_asked, given_network, network_of, scorer_of
from iqa_scoring.shards import Packed, is_shard, open_shards, prefetched
from iqa_scoring.stream import Reader, Sample, Work, row_of, score_files
from iqa_scoring.tables import SCREEN_HEADER, Tables, screen_line
from iqa_training.card import about, write_card
from iqa_training.naming import card_file, find_checkpoints
from IQAperformance import CRITERIA

PATIENCE = timedelta(days=1)  # of processes that share a list: the last may be done long after the first


@command
def main(argv: list[str] | None = None) -> float | int | None:
    """Parse the options and score. Returns the score of one image alone, or else how many images were scored.

    With --calibrate, the leave-one-out RMSE of the ratings; with --about, nothing.
    """
    args = SCORE.parse(argv)
    if args.about:
        print(about(args.about), end='')
        return None
    files = find_checkpoints(args)
    check_outputs(outputs_of(args, files[0]), {'--trained_model_file': files, '--calibrate': args.calibrate})
    checkpoints = [load_checkpoint(file) for file in files]
    keep_freed_memory(device_of(args.device))
    with processes(device_of(args.device), timeout=PATIENCE) as device, pillow_without_limit():
        checkpoints = [as_asked(args, *one) for one in zip(checkpoints, files, strict=True)]
        scorers = [scorer_of(args, *one, device) for one in zip(checkpoints, files, strict=True)]
        if args.calibrate:
            return calibrate(args, scorers[0], checkpoints[0], files[0])
        checkpoints = [whole(args, *one) for one in zip(checkpoints, files, scorers, strict=True)]
        return Scoring(args, average_of(scorers, args.views, files), files, checkpoints).run()


def model_of(files: list[Path], views: str) -> str:
    """Return the name of the model in tables: the checkpoints' names, and the views."""
    names = '+'.join(file.name for file in files)
    return text(names if views == 'none' else f'{names} ({views})')


def outputs_of(args: Options, file: Path) -> dict[str, Paths]:
    """Return the files that are written, by option; `file` is the checkpoint that scores."""
    other = Path(args.out) if args.out else file.with_name(f'{file.name.removesuffix(".pth")}-calibrated.pth')
    out = other if args.calibrate else None
    return {'--csv': args.csv, '--json': args.json, '--report': args.report,
            '--out': [out, card_file(out)] if out else None, '--picture': args.picture,
            '--map': Path(args.map, 'NAME.png') if args.map else None,
            '--parquet': Path(args.parquet, 'NAME.parquet') if args.parquet else None}


class Scoring:
    """The scoring of a list of images, with its tables and pictures."""

    def __init__(self, args, scorer: Scorer, files: list[Path], checkpoints: list[dict]):
        self.args, self.scorer, self.model = args, scorer, model_of(files, args.views)
        self.outputs = outputs_of(args, files[0])
        self.files = {kind: getattr(args, kind) for kind in ('csv', 'json') if getattr(args, kind)}
        kept = self.files or args.parquet
        self.digest = digest_of(checkpoints, views=args.views, clamp=args.clamp) if kept else ''
        self.scored, self.failed, self.broken = 0, 0, 0  # images, images without a score, broken shards
        self.skipped = 0                                 # images with a score already
        self.unreadable, self.entries = [], []           # for the report
        self.parts: Parts | None = None                  # of --parquet
        self.rows: list[dict] = []        # those that wait until the end
        self.kept: dict[int, tuple] = {}  # of images in flight: the path of the map, and its cells for the report

    def run(self) -> float | int:
        """Score all; return the score of one image alone, else how many images this process scored."""
        args = self.args
        items, repeated = find_items(args.img, args.ref, self.scorer.inputs, args.recursive,
                                     sys.stdin.buffer if '-' in args.img else ())
        check_outputs(self.outputs, {'--img': files_of(items)})
        paths = [path_of(item) for item in items]
        self.shards = list(filter(is_shard, paths))
        one = len(args.img) == 1 and paths == [os.path.normpath(args.img[0])]
        self.alone = one and not self.shards and not args.parquet
        self._check()
        if repeated and is_main():
            print(f'{repeated} came more than once, and are scored once', file=sys.stderr)
        mine = self._mine(items)
        self.on_screen = not self.files and not self.parts and not self.alone
        folders = [folder for folder in (args.parquet, args.map) if folder]
        self.written = [*self.files.values(), *filter(None, [args.report]), *folders]
        on_stdout = self.on_screen or any(is_device(path) for path in self.written if path not in folders)
        self.messages = sys.stderr if on_stdout else sys.stdout
        if self.on_screen:
            print(f'{self.scorer.scale}\n{SCREEN_HEADER}', flush=True)
        total = None if self.shards or self.parts else len(mine)
        with signals_wait() as stop, tqdm(total=total, desc='Scoring', unit='image', leave=False,
                                          disable=not args.pbar or self.alone) as self.bar:
            for sample in self._samples(mine, lambda: stop.signal is not None):
                self._take(sample)
                self.bar.update(not sample.ended)
        self.tables.close()
        return self._finish(stop.signal)

    def _check(self) -> None:
        """Refuse options that do not go with these images."""
        args = self.args
        if args.picture and not self.alone:
            raise UserError('--picture draws one image: give one --img')
        if args.map:
            check_maps(self.scorer)
        if args.parquet or any(shard.lower().endswith('.parquet') for shard in self.shards):
            needed('pyarrow.parquet', 'pyarrow', 'Parquet')
        if self.shards and idist.get_world_size() > 1 and not args.parquet:
            raise UserError(f'--img {text(self.shards[0])}: under torchrun, scores of shards need --parquet')
        folder = os.path.realpath(args.parquet) if args.parquet else ''
        for shard in self.shards if folder else ():
            if os.path.dirname(os.path.realpath(shard)) == folder:
                raise UserError(f'--img {text(shard)} is in the folder of --parquet: name another one')

    def _mine(self, items: list[Item]) -> list[Work]:
        """Return the part of this process in the images and shards that are to be done."""
        args = self.args
        self.tables = Tables(self.files, args.resume, self.digest)
        if args.parquet:
            self.parts = Parts(args.parquet, items, args.resume, self.model, self.digest)
            self.skipped = self.parts.scored
            self.failed = self.parts.failed if is_main() else 0
            return [item for unit in self.parts.mine for item in unit.items]
        todo = [item for item in items if self.tables.lack(text(path_of(item)), text(reference_of(item)))]
        self.skipped = len(items) - len(todo)
        return todo[idist.get_rank()::idist.get_world_size()]

    def _images(self, items: list[Work], stop: Callable[[], bool]) -> Iterator[Work]:
        """Yield the items, and of shards the images that the tables lack, and their ends."""
        for item in open_shards(items, self.args.image_column, self.args.max_bytes):
            if stop():  # a shard may have no image that is to be scored
                return
            if isinstance(item, Packed) and not self.tables.lack(text(item.path)):
                self.skipped += 1
            else:
                yield item

    def _samples(self, items: list[Work], stop: Callable[[], bool]) -> Iterator[Sample]:
        args = self.args
        read = Reader(self.scorer.preprocess, args.max_pixels, THUMBNAIL if args.report else 0)
        window = args.map_window if args.map or (args.report and self._maps_in_report()) else 0
        images = prefetched(self._images(items, stop))
        return score_files(self.scorer, images, read, args.batch_size, args.num_workers, window, self._keep, stop)

    def _maps_in_report(self) -> bool:
        return self.args.report_maps and self.scorer.has_maps

    def _keep(self, sample: Sample) -> None:
        """Draw the picture, the map and the entry of the report, while the pixels are there."""
        if self.args.picture:
            write_picture(self.args.picture, sample.inputs, sample.score, self.scorer.scale)
        if sample.grid is None:
            return
        path = None
        if self.args.map:
            digest = hashlib.sha256(os.fsencode(sample.path)).hexdigest()[:8]  # there may be two files of one name
            name = text(without_suffix(os.path.basename(sample.path), SUFFIXES))
            name = name.encode()[:150].decode(errors='ignore')  # file systems allow 255 bytes
            path = Path(self.args.map, f'{name}-{digest}.png')
            write_map(path, sample.pixels.permute(1, 2, 0).numpy(), sample.grid, self.scorer.scale,
                      f'score {sample.score:.4g}')
        self.kept[sample.index] = path, small_map(sample.grid, self.scorer.scale) if self.args.report else b''

    def _take(self, sample: Sample) -> None:
        """Add a result to the tables, the pictures or the screen."""
        if sample.error:
            self._tell(sample)
        if sample.ended and self.parts:
            self.parts.end(sample.error)
        if sample.error or sample.ended:
            return
        path, small = self.kept.pop(sample.index, (None, b''))
        row = row_of(sample, self.scorer, self.model, self.args.clamp, path)
        self.scored += 1
        self.tables.write(row)
        if self.parts:
            self.parts.write(row)
        if self.args.report:
            self.entries.append(entry_of(row, sample, small))
        if self.alone or (self.on_screen and self.args.sort):
            self.rows.append(row)
        elif self.on_screen:
            self.bar.write(screen_line(row), file=sys.stdout)
            sys.stdout.flush()

    def _tell(self, sample: Sample) -> None:
        """Name an image that has no score, or a broken shard, and count it."""
        if self.alone:
            raise UserError(f'--img {text(sample.path)}: {sample.error}')
        line = f'{text(sample.path)}: {sample.error}'
        self.bar.write(line, file=sys.stderr)
        self.broken, self.failed = self.broken + sample.ended, self.failed + (not sample.ended)
        if self.args.report:
            self.unreadable.append(line)
        if self.parts and not sample.ended:
            self.parts.write({'name': text(sample.path), 'model': self.model, 'shard': text(sample.shard),
                              'key': text(sample.key), 'reference': text(sample.reference), 'error': sample.error})

    def _finish(self, signal: int | None) -> float | int:
        """Add up the counts of the processes, print them, and end with the status that fits."""
        gathered = gather_objects((self.scored, self.failed, self.broken, self.unreadable, self.entries))
        scored, failed, broken, unreadable, entries = (
            sum(values, type(values[0])()) for values in zip(*gathered, strict=True))
        if is_main():
            self._conclude(unreadable, entries)
            if not self.alone:
                written = ', '.join(text(path) for path in self.written)
                print(f'{scored} images scored' + (f', {self.skipped} were there already' if self.skipped else '')
                      + (f', {failed} could not be' if failed else '')
                      + (f', broken shards: {broken}' if broken else '')
                      + (f': {written}' if written else ''), file=self.messages)
        idist.barrier()  # torchrun ends all processes when one ends with an error
        if signal:
            again = self.files or self.parts
            print('Interrupted' + ('; with --resume, the same command does the rest' if again else ''), file=sys.stderr)
            raise SystemExit(128 + signal)
        if failed or broken:
            raise SystemExit(1)
        return self.rows[0]['score'] if self.alone else self.scored

    def _conclude(self, unreadable: list[str], entries: list) -> None:
        """Finish the files, show the sorted scores, and write the report."""
        sign = -1 if self.scorer.scale.higher_is_better is not False else 1

        def place(row: dict) -> float:
            return sign * float(row['score'])

        self.tables.finish(place if self.args.sort else None, self.args.columns)
        if self.alone:
            print(sentence(self.rows[0], self.scorer.scale), file=self.messages)
        for row in sorted(self.rows, key=place) if self.on_screen else ():
            print(screen_line(row))
        if self.args.report:
            write_report(self.args.report, entries, self.scorer.scale, f'Scores of {self.model}', unreadable)


def sentence(row: dict, scale) -> str:
    """Return the text that describes one image alone."""
    percentile = '-' if row['percentile'] is None else f'{row["percentile"]:.1f}'
    lines = [f'The image quality score is {row["score"]}',
             f'Raw output {row["raw"]:.4f}; percentile {percentile}. {scale}']
    if row['spread'] is not None:
        lines.append(f'The scores of its crops have a standard deviation of {row["spread"]:.4g}')
    if row['outside']:
        lines.append(f'The score lies {row["outside"]} that range: the image is unlike what was rated in training')
    lines += [f'Note: {row["note"]}'] if row['note'] else []
    lines += [f'Quality map: {row["map"]}'] if row['map'] else []
    return '\n'.join(lines)


def whole(args: Options, checkpoint: dict, file: Path, scorer: Scorer) -> dict:
    """Return the checkpoint; one of the original package is completed by the options."""
    name, options = network_of(checkpoint, file, given_network(args))
    return {'network': {'name': name, 'options': options}, 'head': scorer.head,
            'input': {'preprocessing': scorer.preprocess.stored(), 'normalise': scorer.network.normalise}, **checkpoint}


def calibrate(args: Options, scorer: Scorer, checkpoint: dict, file: Path) -> float:
    """Fit the scores to ratings, say how well they agree, write a new checkpoint; return the leave-one-out RMSE."""
    outputs = outputs_of(args, file)
    paths, ratings = read_ratings(args.calibrate, args.im_dir)
    items = with_references(paths, args.ref, scorer.inputs, args.recursive)
    check_outputs(outputs, {'--calibrate': files_of(items)})
    samples = list(tqdm(score_files(scorer, items, Reader(scorer.preprocess, args.max_pixels), args.batch_size,
                                    args.num_workers), 'Scoring', len(paths), leave=False, disable=not args.pbar))
    good = [sample for sample in samples if not sample.error]
    for sample in samples:
        if sample.error:
            print(f'{text(sample.path)}: {sample.error}', file=sys.stderr)
    if len(good) < len(samples):
        print(f'{len(samples) - len(good)} of {len(samples)} rated images could not be scored', file=sys.stderr)
    heads = np.array([sample.heads for sample in good]).reshape(-1, len(scorer.network.heads))
    new, report, against = calibrated(whole(args, checkpoint, file, scorer), heads,
                                      ratings[[sample.index for sample in good]], args.calibration)
    print(f'{args.calibration} calibration on {len(good)} images\n{"":15}' + ''.join(f'{c:>9}' for c in CRITERIA))
    for name, values in report.items():
        print(f'{name:15}' + ''.join(f'{values[criterion]:9.4f}' for criterion in CRITERIA))
    if against:
        worse = f'the calibration makes things worse: {"; ".join(against)}'
        if not args.force:
            raise UserError(f'--calibrate {args.calibrate}: {worse}; nothing is written, --force writes it')
        print(f'WARNING: {worse}')
    out = outputs['--out'][0]
    write_card(out, new)
    save_checkpoint(out, new)
    print(f'Calibrated checkpoint: {out}')
    if len(good) < len(samples):
        raise SystemExit(1)
    return report['leave-one-out']['RMSE']


if __name__ == '__main__':
    main()
