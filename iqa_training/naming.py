"""Names of runs and of their files."""
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_data.info import dataset_name, named_source
from iqa_runtime.errors import UserError
from iqa_runtime.files import Paths
from iqa_runtime.options import Options, shown
from iqa_runtime.recipes import options_of_run

# files of a log, beside its events
LOGGED = ('options.json', 'split.csv', 'bhat.csv', 'scalars.csv', 'summary.html', 'curves.png')
LONGEST = 120  # characters of a name, its digest aside
ALWAYS = ('architecture', 'loss_type', 'dataset')
# options whose defaults once were those of the chosen row, so that a former digest holds them whenever they were given
HAD_NO_DEFAULT = ('dense_num', 'num_resblocks', 'attention', 'tile_size', 'lstm_units', 'momentum',
                  'warmup_steps', 'cycle_mult', 'min_lr')
# options that a reader looks for first, in this order, and the words for them; '' if the value is enough
SHORT = {'resize': 'resize', 'optimizer': '', 'learning_rate': 'lr', 'batch_size': 'bs', 'epochs': 'e',
         'ft_lr_ratio': 'ft', 'schedule': '', 'split': '', 'exp_id': 'exp', 'fold': 'fold', 'seed': 'seed',
         'weights': 'weights', 'pretrained': 'pretrained', 'use_bn_end': 'bn_end', 'pool': '', 'opt_level': '',
         'augmentation': 'augment', 'weight_decay': 'wd', 'accumulation_steps': 'accum', 'val_criterion': 'best',
         'monotonicity_regularization': 'monoreg', 'resize_size_h': 'h', 'resize_size_w': 'w'}


def run_name(args: Options) -> str:
    """Return the name of a run's files: its main options and those that are not the defaults, and a digest.

    Of many options, those are left out that a name has no room for.
    """
    changed = args.changed()
    head = '-'.join(_file_name(word)[:40] for word in (args.architecture, args.loss_type, dataset_name(args.dataset)))
    for name in sorted(changed, key=lambda name: list(SHORT).index(name) if name in SHORT else len(SHORT)):
        word = _file_name(_word(name, changed[name]))
        if name not in ALWAYS and len(f'{head}-{word}') <= LONGEST:
            head = f'{head}-{word}'
    return f'{head}-{digest_of(args)}'


def digest_of(args: Options) -> str:
    """Return the digest by which a run is known: of the options of training that differ from their defaults.

    So a new option with a default renames no run, and neither does an option without effect.
    """
    return _digest(args.changed())


def former_digest_of(args: Options) -> str:
    """Return the digest of a run of former versions, in which options without effect counted too."""
    values = {name: args.values[name] for name in args.command.names()}
    return _digest({name: value for name, value in values.items() if value != args.command.defaults[name]
                    or (name in HAD_NO_DEFAULT and name in args.given)})


def _digest(options: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]


def joined(names: Sequence[str]) -> str:
    """Return a name of several models together: theirs with + between them, its end a digest if it is too long."""
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
    """Return the file of a run's checkpoint: the one named, or that of the run in --checkpoint_dir.

    A run is known by the digest of its options: one of this digest that has another name is found too, as of a version
    that put the options into other words; and so is one of its former digest.
    """
    if args.trained_model_file:
        return Path(args.trained_model_file)
    file = Path(args.checkpoint_dir, f'{run_name(args)}.pth')
    if file.exists():
        return file
    beside = (path.name for digest in (digest_of(args), former_digest_of(args))
              for path in sorted(file.parent.glob(f'*-{digest}.pth*')))
    names = [found[1] for name in beside if (found := re.fullmatch(r'(.+\.pth)(\.\d+\.state)?', name))]
    return file.with_name(names[0]) if names and file.name not in names else file


def name_of(args: Options) -> str:
    """Return the name of the log and the results of a run: that of its checkpoint's file."""
    return checkpoint_file(args).name.removesuffix('.pth')


def runs_of_other_epochs(args: Options) -> dict[str, int]:
    """Return name -> epochs of the runs in --log_dir whose options of training differ in nothing but the epochs."""
    own, runs = args.of_training(), {}
    for file in sorted(Path(args.log_dir).glob('*/options.json')):
        try:
            stored = {**args.command.defaults, **options_of_run(file)}
        except UserError:
            continue  # no run's options
        others = [name for name in own if own[name] != stored[name]]
        if others == ['epochs'] and isinstance(stored['epochs'], int):
            runs[file.parent.name] = stored['epochs']
    return runs


def card_file(checkpoint: Path) -> Path:
    """Return the file of a checkpoint's model card, beside it."""
    return checkpoint.with_name(f'{checkpoint.name.removesuffix(".pth")}.md')


@dataclass(frozen=True)
class RunFiles:
    """The files that a run writes; the name of its checkpoint, without the suffix, is the name of all."""

    checkpoint: Path
    log_dir: Path
    result_dir: Path

    @classmethod
    def of(cls, args: Options) -> 'RunFiles':
        """Return the files of the run that the options describe."""
        return cls(checkpoint_file(args), Path(args.log_dir), Path(args.result_dir))

    name = property(lambda self: self.checkpoint.name.removesuffix('.pth'))
    card = property(lambda self: card_file(self.checkpoint))
    log = property(lambda self: self.log_dir / self.name)

    def outputs(self, named: bool) -> dict[str, Paths]:
        """Return the files by the option that names their place; `named`: the user named the checkpoint's file."""
        return {'--trained_model_file' if named else '--checkpoint_dir': [self.checkpoint, self.card],
                '--result_dir': [self.result_dir / f'{self.name}.{kind}' for kind in ('csv', 'json')],
                '--log_dir': [self.log / file for file in LOGGED]}


def inputs_of(args: Options) -> dict[str, Paths]:
    """Return the files that a run reads, without the images, by option."""
    info = named_source(args.dataset, args.im_dir, args.data_info).info
    return {'--data_info' if args.data_info else '--dataset': info, '--split_file': args.split_file,
            '--weights': args.weights, '--pretrained': args.pretrained, '--ranker': args.ranker,
            '--resume': args.resume}


def on_dataset(args: Options, dataset: str) -> Options:
    """Return the options with another data set, and without the info file, which is the first one's."""
    return args if dataset == args.dataset else args.having(dataset=dataset, data_info=None)


def find_checkpoints(args: Options, trained_on: str | None = None) -> list[Path]:
    """Return the checkpoints that the options name, or the one of `find_checkpoint`."""
    if not args.trained_model_file:
        return [find_checkpoint(args, trained_on)]
    named = args.trained_model_file
    return [Path(named)] if isinstance(named, str) else [Path(file) for file in named]


def find_checkpoint(args: Options, trained_on: str | None = None) -> Path:
    """Return the checkpoint that the options name, or that main.py wrote for them.

    It was trained on `trained_on`, or else on the data set of the options or on KonIQ-10k; if there are several, they
    are named on the screen. UserError if there is none.
    """
    if args.trained_model_file:
        return Path(args.trained_model_file)
    datasets = [trained_on] if trained_on else dict.fromkeys((args.dataset, 'KonIQ-10k'))
    paths = {name: checkpoint_file(on_dataset(args, name)) for name in datasets}
    found = [name for name, path in paths.items() if path.exists()]
    if not found:
        wanted = ' or '.join(map(str, paths.values()))
        there = ', '.join(sorted(path.name for path in Path(args.checkpoint_dir).glob('*.pth'))[:5]) or 'none'
        raise UserError(f'no checkpoint of a run with these options: {wanted} (in the folder: {there}); '
                        'train it with main.py, or give --trained_model_file')
    for other in found[1:]:
        print(f'Trained on {found[0]}; there is one trained on {other} too: --trained_on {other}')
    return paths[found[0]]
