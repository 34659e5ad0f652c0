"""Score images; `python test_demo.py --help` shows how."""
from iqa_scoring.options import SCORE

if __name__ == '__main__':
    SCORE.begin()  # --help and mistakes end here, before torch is imported

import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import ignite.distributed as idist
import numpy as np
from tqdm import tqdm

from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.distributed import device_of, gather_objects, is_main, processes
from iqa_runtime.errors import UserError, command, needed
from iqa_runtime.files import Paths, check_outputs, is_device
from iqa_runtime.hub import on_hub
from iqa_runtime.names import path_text, plain_path
from iqa_runtime.options import Options
from iqa_runtime.process import keep_freed_memory, pillow_without_limit, signals_wait
from iqa_scoring.average import average_of
from iqa_scoring.calibrate import calibrated, read_ratings
from iqa_scoring.engines import ENGINES
from iqa_scoring.maps import check_maps
from iqa_scoring.parts import TableParts, model_digest
from iqa_scoring.references import Item, files_of, find_items, path_of, reference_of, with_references
from iqa_scoring.report import THUMBNAIL
from iqa_scoring.restore import as_asked
from iqa_scoring.scorer import Scorer, completed, scorer_of
from iqa_scoring.shards import How, Packed, is_shard, is_video, open_shards, prefetched
from iqa_scoring.shipped import checkpoints_of, notice
from iqa_scoring.sinks import Alone, Maps, Notice, PartSink, Picture, Report, Screen, Sink, TableSink, Videos
from iqa_scoring.stream import Reader, Sample, Work, row_of, score_files
from iqa_scoring.tables import Tables
from iqa_training.card import about, write_card
from iqa_training.naming import card_file, named_checkpoint
from IQAperformance import CRITERIA

PATIENCE = timedelta(days=1)  # how long processes that share a list wait for the slowest of them


@command
def main(argv: list[str] | None = None) -> float | int | None:
    """Parse the options and score; return the score of a single image, or else the number of images scored.

    With --calibrate, returns the leave-one-out RMSE of the ratings; with --about, None.
    """
    args = SCORE.parse(argv)
    if args.about:
        print(about(named_checkpoint(args.about, args.checkpoint_dir)), end='')
        return None
    files = checkpoints_of(args)
    check_outputs(outputs_of(args, files[0]), {'--trained_model_file': files, '--calibrate': args.calibrate})
    checkpoints = [load_checkpoint(file) for file in files]
    keep_freed_memory(device_of(args.device))
    with processes(device_of(args.device), timeout=PATIENCE) as device, pillow_without_limit():
        checkpoints = [as_asked(args, *one) for one in zip(checkpoints, files, strict=True)]
        scorers = [ENGINES[args.engine](scorer_of(args, *one, device)) for one in zip(checkpoints, files, strict=True)]
        if args.calibrate:
            return calibrate(args, scorers[0], checkpoints[0], files[0])
        checkpoints = [completed(args, *one) for one in zip(checkpoints, files, scorers, strict=True)]
        return score_list(args, average_of(scorers, args.views, files), files, checkpoints)


def model_of(files: list[Path], views: str) -> str:
    """Return the name of the model in tables: the checkpoints' names, and the views."""
    names = '+'.join(file.name for file in files)
    return path_text(names if views == 'none' else f'{names} ({views})')


def outputs_of(args: Options, file: Path) -> dict[str, Paths]:
    """Return {option: files} of the files to write; `file` is the checkpoint that scores."""
    own = Path(file.name) if on_hub(file) else file
    other = Path(args.out) if args.out else own.with_name(f'{own.name.removesuffix(".pth")}-calibrated.pth')
    out = other if args.calibrate else None
    return {'--csv': args.csv, '--json': args.json, '--report': args.report,
            '--out': [out, card_file(out)] if out else None, '--picture': args.picture, '--curve': args.curve,
            '--map': Path(args.map, 'NAME.png') if args.map else None,
            '--parquet': Path(args.parquet, 'NAME.parquet') if args.parquet else None}


def sinks_of(args: Options, scorer: Scorer, model: str, alone: bool, line: str) -> list[Sink]:
    """Return the other sinks: the `line` before all scores, the picture, the screen, the report, means of videos."""
    scale, sinks = scorer.scale, [Notice(line)]
    if args.picture:
        sinks.append(Picture(args.picture, scale))
    if alone:
        sinks.append(Alone(scale, messages_of(args, alone)))
    elif on_screen(args, alone):
        sinks.append(Screen(scale, args.sort))
    if args.report:
        sinks.append(Report(args.report, scale, f'Scores of {model}'))
    return [*sinks, Videos(scale, messages_of(args, alone), args.curve)]


def tables_of(args: Options) -> dict[str, str]:
    """Return {kind: path} of the tables to write."""
    return {kind: getattr(args, kind) for kind in ('csv', 'json') if getattr(args, kind)}


def on_screen(args: Options, alone: bool) -> bool:
    """Return whether each score is printed: for several images, without a table or parts."""
    return not (tables_of(args) or args.parquet or alone)


def messages_of(args: Options, alone: bool) -> TextIO:
    """Return the stream of messages: stderr if scores go to stdout, or to a device, which may be stdout."""
    files = filter(None, [*tables_of(args).values(), args.report])
    return sys.stderr if on_screen(args, alone) or any(map(is_device, files)) else sys.stdout


def check_fit(args: Options, scorer: Scorer, shards: list[str], alone: bool) -> None:
    """Raise UserError if an option does not fit these images."""
    if args.picture and not alone:
        raise UserError('--picture draws one image: give one --img')
    if args.map:
        check_maps(scorer)
    if args.parquet or any(shard.lower().endswith('.parquet') for shard in shards):
        needed('pyarrow.parquet', 'pyarrow', 'Parquet')
    if any(map(is_video, shards)):
        needed('av', 'av', f'--img {path_text(next(filter(is_video, shards)))}: reading a video')
    elif args.curve:
        raise UserError('--curve draws the scores of videos over time: give a video')
    if shards and idist.get_world_size() > 1 and not args.parquet:
        raise UserError(f'--img {path_text(shards[0])}: under torchrun, scores of shards need --parquet')
    folder = os.path.realpath(args.parquet) if args.parquet else ''
    for shard in shards if folder else ():
        if os.path.dirname(os.path.realpath(shard)) == folder:
            raise UserError(f'--img {path_text(shard)} is in the folder of --parquet: name another folder')


def score_list(args: Options, scorer: Scorer, files: list[Path], checkpoints: list[dict]) -> float | int:
    """Score the images that the options name; return a single image's score, or else the number scored here."""
    items, repeated = find_items(args.img, args.ref, scorer.inputs, args.recursive,
                                 sys.stdin.buffer if sys.stdin and '-' in args.img else ())
    check_outputs(outputs_of(args, files[0]), {'--img': files_of(items)})
    paths = [path_of(item) for item in items]
    shards = list(filter(is_shard, paths))
    alone = len(args.img) == 1 and paths == [plain_path(args.img[0])] and not shards and not args.parquet
    check_fit(args, scorer, shards, alone)
    if repeated and is_main():
        print(f'{repeated} repeated images are left out: each is scored once', file=sys.stderr)
    model, tables = model_of(files, args.views), tables_of(args)
    digest = model_digest(checkpoints, views=args.views, clamp=args.clamp) if tables or args.parquet else ''
    return Scoring(args, scorer, model, items, Tables(tables, args.resume, digest),
                   TableParts(args.parquet, items, args.resume, model, digest) if args.parquet else None, alone,
                   notice(args, files[0])).run()


class Scoring:
    """Scores a list of images and sends the results to sinks (iqa_scoring/sinks.py).

    Args:
        args, scorer: the options and the scorer.
        model: its name in the tables.
        items: the images and shards.
        tables, parts: the files of scores; images that they hold already are not scored again.
        alone: whether the list is a single image, whose score is returned.
        line: printed before the first score.
    """

    def __init__(self, args: Options, scorer: Scorer, model: str, items: list[Item], tables: Tables,
                 parts: TableParts | None, alone: bool, line: str):
        self.args, self.scorer, self.model, self.tables, self.alone = args, scorer, model, tables, alone
        self.scored, self.broken, self.score = 0, 0, 0.  # images, broken shards, the last score
        if parts:
            self.work, self.there = [item for unit in parts.mine for item in unit.items], parts.scored
            self.failed = parts.failed if is_main() else 0
        else:
            todo = [item for item in items if tables.lack(path_text(path_of(item)), path_text(reference_of(item)))]
            self.work, self.there = todo[idist.get_rank()::idist.get_world_size()], len(items) - len(todo)
            self.failed = 0
        self.maps = Maps(args.map, scorer.scale) if args.map else None
        self.sinks = [TableSink(tables, args.columns), *([PartSink(parts)] if parts else []),
                      *([self.maps] if self.maps else []), *sinks_of(args, scorer, model, alone, line)]

    def run(self) -> float | int:
        """Score all images; return the score of a single image, or else the number that this process scored."""
        counted = not self.args.parquet and not any(is_shard(path_of(item)) for item in self.work)
        with signals_wait() as stop, tqdm(total=len(self.work) if counted else None, desc='Scoring', unit='image',
                                          leave=False, disable=not self.args.pbar or self.alone) as bar:
            for sample in self.samples(lambda: stop.signal is not None):
                self.take(sample)
                bar.update(not sample.ended)
        return self.finish(stop.signal)

    def samples(self, stop: Callable[[], bool]) -> Iterator[Sample]:
        """Yield the scored images; each is passed to the sinks while its pixels are in memory."""
        args = self.args
        read = Reader(self.scorer.preprocess, args.max_pixels, THUMBNAIL if args.report else 0)
        in_report = args.report and args.report_maps and self.scorer.has_maps
        window = args.map_window if args.map or in_report else 0

        def keep(sample: Sample) -> None:
            for sink in self.sinks:
                sink.pixels(sample)
        return score_files(self.scorer, prefetched(self.images(stop)), read, args.batch_size, args.num_workers, window,
                           keep, stop)

    def images(self, stop: Callable[[], bool]) -> Iterator[Work]:
        """Yield the items; instead of a shard, its images that the tables lack, and its end."""
        for item in open_shards(self.work, How(self.args.image_column, self.args.max_bytes, self.args.every)):
            if stop():  # a shard may have no image left to score
                return
            if isinstance(item, Packed) and not self.tables.lack(path_text(item.path)):
                self.there += 1
            else:
                yield item

    def take(self, sample: Sample) -> None:
        """Send a result to the sinks, and count it."""
        if sample.error:
            line = f'{path_text(sample.path)}: {sample.error}'
            for sink in self.sinks:
                sink.error(sample, line)
            tqdm.write(line, file=sys.stderr)
            self.broken, self.failed = self.broken + sample.ended, self.failed + (not sample.ended)
        if sample.ended:
            for sink in self.sinks:
                sink.ended(sample)
        elif not sample.error:
            row = row_of(sample, self.scorer, self.model, self.args.clamp, self.maps and self.maps.path(sample))
            for sink in self.sinks:
                sink.row(row, sample)
            self.scored += 1
            self.score = row['score']

    def finish(self, signal: int | None) -> float | int:
        """Finish the sinks, print the counts of all processes, and exit with the status of a signal or an error."""
        for sink in self.sinks:
            sink.close()
        scored, failed, broken = map(sum, zip(*gather_objects((self.scored, self.failed, self.broken)), strict=True))
        sign = -1 if self.scorer.scale.higher_is_better is not False else 1
        for sink in self.sinks:
            sink.finish((lambda row: sign * float(row['score'])) if self.args.sort else None)
        if is_main() and not self.alone:
            self.print_counts(scored, failed, broken)
        idist.barrier()  # torchrun ends all processes when one ends with an error
        if signal:
            again = self.tables.files or self.args.parquet
            print('Interrupted' + ('; with --resume, the same command scores the rest' if again else ''),
                  file=sys.stderr)
            raise SystemExit(128 + signal)
        if failed or broken:
            raise SystemExit(1)
        return self.score if self.alone else self.scored

    def print_counts(self, scored: int, failed: int, broken: int) -> None:
        """Print the numbers of images scored and failed, and the files written."""
        args = self.args
        paths = filter(None, [*self.tables.files.values(), args.report, args.parquet, args.map])
        written = ', '.join(map(path_text, paths))
        print(f'{scored} images scored' + (f', {self.there} were scored before' if self.there else '')
              + (f', {failed} could not be scored' if failed else '') + (f', broken shards: {broken}' if broken else '')
              + (f': {written}' if written else ''), file=messages_of(args, self.alone))


def calibrate(args: Options, scorer: Scorer, checkpoint: dict, file: Path) -> float:
    """Fit the scores to ratings, print how well they agree, write a new checkpoint; return the leave-one-out RMSE."""
    outputs = outputs_of(args, file)
    paths, ratings = read_ratings(args.calibrate, args.im_dir)
    items = with_references(paths, args.ref, scorer.inputs, args.recursive)
    check_outputs(outputs, {'--calibrate': files_of(items)})
    samples = list(tqdm(score_files(scorer, items, Reader(scorer.preprocess, args.max_pixels), args.batch_size,
                                    args.num_workers), 'Scoring', len(paths), leave=False, disable=not args.pbar))
    good = [sample for sample in samples if not sample.error]
    for sample in samples:
        if sample.error:
            print(f'{path_text(sample.path)}: {sample.error}', file=sys.stderr)
    if len(good) < len(samples):
        print(f'{len(samples) - len(good)} of {len(samples)} rated images could not be scored', file=sys.stderr)
    if line := notice(args, file):
        print(line, file=sys.stderr)
    heads = np.array([sample.heads for sample in good]).reshape(-1, len(scorer.network.heads))
    new, report, against = calibrated(completed(args, checkpoint, file, scorer), heads,
                                      ratings[[sample.index for sample in good]], args.calibration)
    print(f'{args.calibration} calibration on {len(good)} images\n{"":15}' + ''.join(f'{c:>9}' for c in CRITERIA))
    for name, values in report.items():
        print(f'{name:15}' + ''.join(f'{values[criterion]:9.4f}' for criterion in CRITERIA))
    if against:
        worse = f'the calibration makes things worse: {"; ".join(against)}'
        if not args.force:
            raise UserError(f'--calibrate {args.calibrate}: {worse}; nothing is written without --force')
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
