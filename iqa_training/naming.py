"""Name runs and their files, and find the checkpoint of a run."""
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_data.datasets import dataset_name, named_source, names_of, sets_of
from iqa_runtime.errors import UserError
from iqa_runtime.files import Paths
from iqa_runtime.hub import on_hub, parts_of
from iqa_runtime.names import nearest
from iqa_runtime.option_values import shown
from iqa_runtime.options import LATEST, Options
from iqa_runtime.published import CONFIG
from iqa_runtime.recipes import options_of_run

# files of a log other than TensorBoard's event files
LOGGED = ('options.json', 'split.csv', 'bhat.csv', 'scalars.csv', 'summary.html', 'curves.png')
LONGEST = 120  # characters of a name without its digest
ALWAYS = ('architecture', 'loss_type', 'dataset')
# options whose defaults once depended on the chosen row: a former digest includes them whenever they were given
HAD_NO_DEFAULT = ('dense_num', 'num_resblocks', 'attention', 'tile_size', 'lstm_units', 'momentum',
                  'warmup_steps', 'cycle_mult', 'min_lr')
# options in the order in which a name lists them -> their words in a name; '' if the value is enough
SHORT = {'resize': 'resize', 'optimizer': '', 'learning_rate': 'lr', 'batch_size': 'bs', 'epochs': 'e',
         'ft_lr_ratio': 'ft', 'schedule': '', 'split': '', 'exp_id': 'exp', 'fold': 'fold', 'seed': 'seed',
         'weights': 'weights', 'pretrained': 'pretrained', 'use_bn_end': 'bn_end', 'pool': '', 'opt_level': '',
         'augmentation': 'augment', 'weight_decay': 'wd', 'accumulation_steps': 'accum', 'val_criterion': 'best',
         'monotonicity_regularization': 'monoreg', 'resize_size_h': 'h', 'resize_size_w': 'w'}


def run_name(args: Options) -> str:
    """Return the name of a run's files: its main options, those that differ from the defaults, and a digest.

    Options that would make the name longer than LONGEST are left out. --name stands for all but the digest.
    """
    if args.values.get('name'):
        return f'{args.name}-{run_digest(args)}'
    changed = args.changed()
    head = '-'.join(_file_name(word)[:40] for word in (args.architecture, args.loss_type, dataset_name(args.dataset)))
    for name in sorted(changed, key=lambda name: list(SHORT).index(name) if name in SHORT else len(SHORT)):
        word = _file_name(_word(name, changed[name]))
        if name not in ALWAYS and len(f'{head}-{word}') <= LONGEST:
            head = f'{head}-{word}'
    return f'{head}-{run_digest(args)}'


def run_digest(args: Options) -> str:
    """Return the digest that identifies a run: that of the training options that differ from their defaults.

    A new option with a default therefore renames no run, nor does an option without effect.
    """
    return _digest(args.changed())


def former_digest_of(args: Options) -> str:
    """Return the digest of a run in former versions, in which options without effect counted too."""
    values = {name: args.values[name] for name in args.command.names()}
    return _digest({name: value for name, value in values.items() if value != args.command.defaults[name]
                    or (name in HAD_NO_DEFAULT and name in args.given)})


def _digest(options: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]


def joined(names: Sequence[str]) -> str:
    """Return one name for several models: their names joined by +, or cut and ended by a digest if it is too long."""
    name = '+'.join(names)
    if len(names) == 1 or len(name) <= LONGEST:
        return name
    return f'{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'


def _word(name: str, value) -> str:
    """Return an option as a word of a name: -lr0.001, -beta1-0-0, -sgd, -filter_cubic, -P6_2, -no_attention."""
    short = SHORT.get(name, name)
    if isinstance(value, bool):
        return short if value else f'no_{short}'
    text = (Path(value).name if isinstance(value, str) else shown(value)).replace(' ', '-')
    number = re.match(r'[\d.]', text) and not re.search(r'\d$', short)
    return f'{short}{text}' if number or not short else f'{short}_{text}'


def _file_name(text: str) -> str:
    return re.sub(r'[^\w.+=-]+', '_', text)


def checkpoint_file(args: Options) -> Path:
    """Return the checkpoint file of a run: --trained_model_file, or the file of the run in --checkpoint_dir.

    A run is identified by the digest of its options. A file with this digest under another name, as written by another
    version, is found too, and so is one with the run's former digest.
    """
    if args.trained_model_file:
        return Path(args.trained_model_file)
    file = Path(args.checkpoint_dir, f'{run_name(args)}.pth')
    if file.exists():
        return file
    beside = (path.name for digest in (run_digest(args), former_digest_of(args))
              for path in sorted(file.parent.glob(f'*-{digest}.pth*')))
    names = [found[1] for name in beside if (found := re.fullmatch(r'(.+\.pth)(\.\d+\.state)?', name))]
    return file.with_name(names[0]) if names and file.name not in names else file


def log_name(args: Options) -> str:
    """Return the name of the log and the results of a run: that of its checkpoint's file."""
    return checkpoint_file(args).name.removesuffix('.pth')


def runs_of_other_epochs(args: Options) -> dict[str, int]:
    """Return {name: epochs} of the runs in --log_dir whose training options differ only in the number of epochs."""
    own, runs = args.of_training(), {}
    for file in sorted(Path(args.log_dir).glob('*/options.json')):
        try:
            stored = {**args.command.defaults, **options_of_run(file)}
        except UserError:
            continue  # not the options of a run
        others = [name for name in own if own[name] != stored[name]]
        if others == ['epochs'] and isinstance(stored['epochs'], int):
            runs[file.parent.name] = stored['epochs']
    return runs


def card_file(checkpoint: Path) -> Path:
    """Return the file of a checkpoint's model card, beside it."""
    return checkpoint.with_name(f'{checkpoint.name.removesuffix(".pth")}.md')


def result_name(run: str, datasets: Collection[str], tested: str, part: str, own: bool = True) -> str:
    """Return the name of the results of a run on a part of a data set: the run's, for the `own` part of its one set.

    `datasets`: the names of those that it was trained on.
    """
    return run if own and list(datasets) == [tested] else f'{run}-on-{tested}-{part}'


@dataclass(frozen=True)
class RunFiles:
    """The files that a run writes, all named after its checkpoint, without the suffix.

    `datasets` are the names of the data sets that it is trained on.
    """

    checkpoint: Path
    log_dir: Path
    result_dir: Path
    datasets: tuple[str, ...]

    @classmethod
    def of(cls, args: Options) -> 'RunFiles':
        """Return the files of the run that the options describe."""
        return cls(checkpoint_file(args), Path(args.log_dir), Path(args.result_dir), names_of(args.dataset))

    name = property(lambda self: self.checkpoint.name.removesuffix('.pth'))
    card = property(lambda self: card_file(self.checkpoint))
    log = property(lambda self: self.log_dir / self.name)

    def outputs(self, named: bool) -> dict[str, Paths]:
        """Return {option that sets their place: files}; `named`: whether the user named the checkpoint file."""
        return {'--trained_model_file' if named else '--checkpoint_dir': [self.checkpoint, self.card],
                '--result_dir': [self.result_dir / f'{result}.{kind}' for result in self.results()
                                 for kind in ('csv', 'json')],
                '--log_dir': [self.log / file for file in LOGGED]}

    def result(self, tested: str, part: str) -> str:
        """Return the name of the results on a part of one of its data sets."""
        return result_name(self.name, self.datasets, tested, part)

    def results(self) -> list[str]:
        """Return the names of the results that it may write."""
        return list(dict.fromkeys(self.result(name, part) for name in self.datasets for part in ('test', 'val')))


def inputs_of(args: Options) -> dict[str, Paths]:
    """Return {option: files} of the files that a run reads, without the images."""
    info = [named_source(one, args.im_dir, args.data_info).info for one in sets_of(args.dataset)]
    return {'--data_info' if args.data_info else '--dataset': info, '--split_file': args.split_file,
            '--weights': args.weights, '--pretrained': args.pretrained, '--ranker': args.ranker,
            '--resume': args.resume}


def on_dataset(args: Options, dataset: str) -> Options:
    """Return the options with another data set, without --data_info, which describes the first one."""
    return args if dataset == args.dataset else args.having(dataset=dataset, data_info=None)


def find_checkpoints(args: Options, trained_on: str | None = None) -> list[Path]:
    """Return the checkpoints that the options name, or else the one that `find_checkpoint` returns."""
    if not args.trained_model_file:
        return [find_checkpoint(args, trained_on)]
    named = args.trained_model_file
    return [named_checkpoint(one, args.checkpoint_dir) for one in ([named] if isinstance(named, str) else named)]


def named_checkpoint(named: str, folder: str | Path) -> Path:
    """Return the checkpoint that a user names: its file, its run, the first letters of its digest, or `latest`.

    Published models are named by their folder, or as on the hub. Runs are looked up among the checkpoints in `folder`.
    Raises UserError that lists them if none or several match.
    """
    if on_hub(named):
        parts_of(named)  # raises if it has another form
        return Path(named)
    path = Path(named) if Path(named).name.strip('.') else Path(named).resolve()
    if path.is_file() or (path / CONFIG).is_file():
        return path
    found = sorted(Path(folder).glob('*.pth'), key=lambda path: path.stat().st_mtime, reverse=True)
    name = named.removesuffix('.pth')
    called = found[:1] if named == LATEST else [path for path in found if _is_called(path.stem, name)]
    if len(called) == 1:
        return called[0]
    if path.exists():  # any other folder, as of photos, only if no run has its name
        return path
    there = ', '.join(path.name for path in (called or found)[:5]) or 'none'
    if called:
        raise UserError(f'{named}: {len(called)} checkpoints are called so: {there}')
    raise UserError(f'{named}: no such file{nearest(named)}; checkpoints in {folder}: {there}')


def _is_called(stem: str, named: str) -> bool:
    """Return whether a name is that of a run's file, without its digest too, or at least 3 letters of the digest."""
    own = re.fullmatch(r'(.+)-([0-9a-f]{8})', stem)
    return stem == named or (own is not None and (own[1] == named or (
        len(named) >= 3 and own[2].startswith(named))))


def find_checkpoint(args: Options, trained_on: str | None = None) -> Path:
    """Return the checkpoint that the options name, or the one that main.py wrote for these options.

    The latter was trained on `trained_on`, or if that is None, on --dataset or else on KonIQ-10k; if both exist, the
    other one is printed. Raises UserError if there is none.
    """
    if args.trained_model_file:
        return named_checkpoint(args.trained_model_file, args.checkpoint_dir)
    datasets = [trained_on] if trained_on else dict.fromkeys((args.dataset, 'KonIQ-10k'))
    paths = {name: checkpoint_file(on_dataset(args, name)) for name in datasets}
    found = [name for name, path in paths.items() if path.exists()]
    if not found:
        wanted = ' or '.join(map(str, paths.values()))
        there = ', '.join(sorted(path.name for path in Path(args.checkpoint_dir).glob('*.pth'))[:5]) or 'none'
        raise UserError(f'no checkpoint of a run with these options: {wanted} (in the folder: {there}); '
                        'train it with main.py, or give --trained_model_file')
    for other in found[1:]:
        print(f'The checkpoint trained on {found[0]} is used; for the one trained on {other}: --trained_on {other}')
    return paths[found[0]]
