"""Every option of the three scripts, declared once, in groups; and the name of a run."""
import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from iqa_data.info import DATASETS, READERS, dataset_name, source_of
from iqa_data.splits import SPLITS
from iqa_runtime.checkpoint import find_file
from iqa_runtime.errors import UserError, pick
from iqa_scoring.scorer import MAPPINGS, MAX_PIXELS, WINDOW
from IQAloss import ALIASES, LOSSES
from IQAmodel import BACKBONES, POOLS
from IQAperformance import CRITERIA, SUFFIXES


def _choice(table, what: str, aliases: dict | None = None) -> Callable[[str], str]:
    """An argparse type: a name in `table`, or one of its aliases; an error lists the names and the nearest one."""
    def parse(name: str) -> str:
        try:
            return pick(table, (aliases or {}).get(name, name), what)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return parse


def _number(kind: type, low: float, high: float = math.inf, open_low: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number in low..high (`open_low`: above low)."""
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not {"a whole" if kind is int else "a"} number') from None
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            limits = f'{"above" if open_low else "at least"} {low}' + (f', at most {high}' if high < math.inf else '')
            raise argparse.ArgumentTypeError(f'{text} is out of range: {limits}')
        return value
    return parse


_count = _number(int, 1)
_whole = _number(int, 0)
_positive = _number(float, 0, open_low=True)
_weight = _number(float, 0)
_share = _number(float, 0, 1)


def _criterion(name: str) -> str:
    return _choice([criterion + suffix for suffix in SUFFIXES for criterion in CRITERIA], 'criterion')(name)


def dataset(text: str) -> str:
    """An argparse type: a name in DATASETS, or an info file that is there; an error says which names come near."""
    path = Path(text)
    if text not in DATASETS and path.suffix.lower() in READERS and path.is_file():
        return os.path.normpath(text)
    beside = [str(file) for suffix in READERS for file in path.parent.glob(f'*{suffix}')] if path.suffix else []
    try:
        return pick([*DATASETS, *sorted(beside)[:10]], text, 'data set')
    except UserError as error:
        raise argparse.ArgumentTypeError(f'{error}, or an info file ({" or ".join(READERS)}) that is there') from None


def _device(text: str) -> str:
    """An argparse type: a device that torch knows and that this machine has."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise argparse.ArgumentTypeError(f'{text!r} is not a device of this machine ({reason})') from None
    return text


def add_run(parser: argparse.ArgumentParser) -> None:
    """Where things lie and how the machine is used: nothing here changes the trained model."""
    group = parser.add_argument_group('machine and files')
    group.add_argument('--device', type=_device, default='cuda' if torch.cuda.is_available() else 'cpu',
                       help='cuda, cuda:1, cpu ...')
    group.add_argument('--num_workers', type=_whole, default=min(8, os.cpu_count() or 1),
                       help='processes that decode images (--cache none) or augment them')
    group.add_argument('--cache', choices=('disk', 'ram', 'none'), default='disk',
                       help='keep decoded images in files, for later runs too; in memory; or decode as they are used')
    group.add_argument('--cache_dir', default='cache', help='where the decoded images are kept')
    group.add_argument('-pbar', '--pbar', action=argparse.BooleanOptionalAction, default=sys.stderr.isatty(),
                       help='progress bars (default: where stderr is a terminal)')
    group.add_argument('--im_dir', help="the folder of the data set's images (default: see --dataset)")
    group.add_argument('--allow_outside', action='store_true',
                       help='read images that the info file names outside their folder (.., absolute, symbolic links)')
    group.add_argument('--checkpoint_dir', default='checkpoints', help='where checkpoints are written and looked for')
    group.add_argument('--result_dir', default='results', help='where per-image predictions and metrics are written')
    group.add_argument('-modelfile', '--trained_model_file',
                       help='a checkpoint (default: the one that main.py wrote for the same options)')


def add_data(parser: argparse.ArgumentParser) -> None:
    """The data set."""
    group = parser.add_argument_group('data')
    places = '; '.join(f'{name}: {source.im_dir}, {source.info}' for name, source in DATASETS.items())
    group.add_argument('-ds', '--dataset', type=dataset, default='KonIQ-10k',
                       help=f'the data set, with its images and info file in ({places}); or an info file, .csv or '
                            '.mat, its images beside it or in --im_dir')
    group.add_argument('--data_info', help='the info file of a data set that is named (default: see --dataset)')


def add_split(parser: argparse.ArgumentParser) -> None:
    """How the data set is split into train, val and test."""
    group = parser.add_argument_group('split')
    group.add_argument('--split', type=_choice(SPLITS, 'split'), default='official',
                       help="official: the info file's own, and where it has none, reference; random: by image; "
                            'reference: by content; kfold: by content, kfold-sorted: images by MOS, dealt to --folds, '
                            'of which --fold is val, the next one test, the others train')
    group.add_argument('-eid', '--exp_id', type=_whole, default=0,
                       help="which of the info file's permutations; another random split")
    group.add_argument('-tr', '--train_ratio', type=_share, default=.6,
                       help='share of training contents; of images with --split random')
    group.add_argument('-tvr', '--train_and_val_ratio', type=_share, default=.8,
                       help='share of training and validation contents; an official split that is one of parts, as '
                            "KonIQ-10k's, has its own shares")
    group.add_argument('--split_seed', type=_number(int, 0, 2 ** 32 - 1), default=0, help='seed of random splits')
    group.add_argument('--folds', type=_number(int, 3), default=5, help='folds of the k-fold splits')
    group.add_argument('--fold', type=_whole, default=0, help='which fold is val; the next one is test')
    group.add_argument('--split_file', help='a split as main.py writes it, RUN/split.csv: columns image and part')


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """What happens to an image before the network sees it."""
    group = parser.add_argument_group('preprocessing')
    group.add_argument('-rs', '--resize', action='store_true', help='resize the images')
    group.add_argument('-rs_h', '--resize_size_h', type=_count, default=498, help='height after --resize')
    group.add_argument('-rs_w', '--resize_size_w', type=_count, default=664, help='width after --resize')
    group.add_argument('-augment', '--augmentation', action='store_true', help='rotate, flip, crop training images')
    group.add_argument('-ag', '--angle', type=_weight, default=2., help='largest rotation in degrees')
    group.add_argument('-cs_h', '--crop_size_h', type=_count, default=498, help='height of the random crop')
    group.add_argument('-cs_w', '--crop_size_w', type=_count, default=498, help='width of the random crop')
    group.add_argument('-hp', '--hflip_p', type=_share, default=.5, help='probability of a horizontal flip')


def add_model(parser: argparse.ArgumentParser) -> None:
    """The network."""
    group = parser.add_argument_group('model')
    group.add_argument('-arch', '--architecture', '--arch', type=_choice(BACKBONES, 'architecture'),
                       default='resnext101_32x8d', help=f'the backbone: {", ".join(BACKBONES)}')
    group.add_argument('--weights', default='imagenet', metavar='{imagenet,none,PATH}',
                       help='start from ImageNet weights (downloaded), from nothing, or from a torchvision state dict')
    group.add_argument('-pl', '--pool', type=_choice(POOLS, 'pool'), default='avg', help=', '.join(POOLS))
    group.add_argument('-ubne', '--use_bn_end', action='store_true', help='end each head with a batch normalisation')
    group.add_argument('-P6', '--P6', type=_count, default=1, help='pyramid levels on level 6')
    group.add_argument('-P7', '--P7', type=_count, default=1, help='pyramid levels on level 7')


def add_loss(parser: argparse.ArgumentParser) -> None:
    """The loss."""
    group = parser.add_argument_group('loss')
    group.add_argument('-lt', '--loss_type', type=_choice(LOSSES, 'loss', ALIASES), default='norm-in-norm',
                       help=f'{", ".join(LOSSES)}; Lp is an old name of norm-in-norm')
    group.add_argument('-p', '--p', type=_positive, default=1., help='norm that compares predictions with scores')
    group.add_argument('-q', '--q', type=_positive, default=2., help='norm that normalises them')
    group.add_argument('-a', '--alpha', type=_weight, nargs=2, default=[1., 0.], metavar=('A0', 'A1'),
                       help="weights of l and of its variant l'")
    group.add_argument('-b', '--beta', type=_weight, nargs=3, default=[.1, .1, 1.], metavar=('B6', 'B7', 'B'),
                       help='weights of the heads: level 6, level 7, both')
    group.add_argument('-detach', '--detach', action='store_true',
                       help="no gradient through the predictions' statistics")
    group.add_argument('-monoreg', '--monotonicity_regularization', action='store_true', help='penalise wrong order')
    group.add_argument('-g', '--gamma', type=_weight, default=.1, help='weight of that penalty')


def add_training(parser: argparse.ArgumentParser) -> None:
    """How the network is trained."""
    group = parser.add_argument_group('training')
    group.add_argument('--seed', type=_whole, default=19920517, help='seed of all random numbers')
    group.add_argument('-rn', '--randomness', action='store_true', help='no seed, and the fastest GPU kernels')
    group.add_argument('--optimizer', type=_choice(OPTIMIZERS, 'optimizer'), default='adam',
                       help=', '.join(OPTIMIZERS))
    group.add_argument('-lr', '--learning_rate', '--lr', type=_positive, default=1e-4,
                       help='learning rate of the heads')
    group.add_argument('-flr', '--ft_lr_ratio', type=_weight, default=.1,
                       help="the backbone's learning rate over the heads'; 0 freezes its weights")
    group.add_argument('-wd', '--weight_decay', type=_weight, default=0., help='weight decay')
    group.add_argument('-bs', '--batch_size', type=_count, default=8, help='images in a batch')
    group.add_argument('-accum', '--accumulation_steps', type=_count, default=1, help='batches per optimizer step')
    group.add_argument('-e', '--epochs', type=_count, default=30, help='epochs')
    group.add_argument('-lrd', '--lr_decay', type=_number(float, 0, 1, open_low=True), default=.1,
                       help='factor of the learning rate at each decay')
    group.add_argument('-olrd', '--overall_lr_decay', type=_number(float, 0, 1, open_low=True), default=.01,
                       help='factor of the learning rate over all epochs')
    group.add_argument('-optl', '--opt_level', type=_choice(OPT_LEVELS, 'opt level'), default='O1',
                       help='O0 float32; O1 float16 autocast on a GPU (O2, O3 mean the same); bf16 bfloat16 autocast')
    group.add_argument('-valc', '--val_criterion', type=_criterion, default='SROCC',
                       help='what the best epoch is chosen by: SROCC, PLCC, KROCC, RMSE; suffix 1 level 6, 2 level 7')
    group.add_argument('--amp_backend', choices=('torch', 'apex'), default='torch',
                       help="whose mixed precision: apex's own is for an old apex that still has it")
    group.add_argument('--sync_bn', action='store_true',
                       help='batch normalisation over the whole batch where several processes share it')
    group.add_argument('-debug', '--debug', action='store_true', help='5 training batches, 5 val and 5 test images')


def add_recording(parser: argparse.ArgumentParser) -> None:
    """What main.py does besides training."""
    group = parser.add_argument_group('recording')
    group.add_argument('-logd', '--log_dir', default='runs', help='TensorBoard logs')
    group.add_argument('-tdt', '--test_during_training', action='store_true',
                       help='evaluate the training and test images after each epoch too')
    group.add_argument('--log_bhat', action='store_true', help='record the norm of the centred predictions')
    group.add_argument('--resume', metavar='{auto,PATH}',
                       help='go on from a state, or with auto from the last one of the run with these options, if any')
    group.add_argument('--keep', type=_count, default=1, help='how many of the last states are kept')
    group.add_argument('-eval', '--evaluate', action='store_true', help='no training: test the trained model')


def add_testing(parser: argparse.ArgumentParser) -> None:
    """What test_dataset.py tests."""
    group = parser.add_argument_group('testing')
    group.add_argument('--part', choices=('auto', 'test', 'all'), default='auto',
                       help='which images: auto is the test part of the data set that the model was trained on, and '
                            'all of any other')
    group.add_argument('--trained_on', type=dataset,
                       help='data set of the training run, to find its checkpoint (default: --dataset, else KonIQ-10k)')


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """What test_demo.py scores, and where the scores go."""
    group = parser.add_argument_group('images')
    group.add_argument('--img', '--img_path', dest='img', nargs='+', default=[],
                       help='files, folders, glob patterns, or - for a list on stdin')
    group.add_argument('--recursive', action='store_true', help='look into the folders below a folder too')
    group.add_argument('--max_pixels', type=_count, default=MAX_PIXELS,
                       help='refuse larger images: a small file can hold a huge one')
    group = parser.add_argument_group('output')
    group.add_argument('--csv', metavar='FILE', help='write a table')
    group.add_argument('--json', metavar='FILE', help='write JSON lines')
    group.add_argument('--resume', action='store_true', help='score only what --csv or --json lack')
    group.add_argument('--sort', action='store_true', help='best first')
    group.add_argument('--clamp', action='store_true', help='keep scores within the range of the training MOS')
    group.add_argument('--map', metavar='DIR', help='write the quality map of each image to this folder, as PNG')
    add_report(parser)
    group = parser.add_argument_group('calibration')
    group.add_argument('--calibrate', metavar='CSV', help='fit the scores to these ratings; write a new checkpoint')
    group.add_argument('--calibration', choices=tuple(MAPPINGS), default='linear', help='what is fitted')
    group.add_argument('--out', metavar='FILE', help='the new checkpoint (default: NAME-calibrated.pth beside the old)')


def add_report(parser: argparse.ArgumentParser) -> None:
    """The report of a set of images, and its quality maps."""
    group = parser.add_argument_group('report')
    group.add_argument('--report', metavar='FILE', help='write a self-contained HTML page')
    group.add_argument('--report_maps', action=argparse.BooleanOptionalAction, default=True,
                       help='with a quality map of each image in the report')
    group.add_argument('--map_window', type=_count, default=WINDOW,
                       help='side of the windows of a quality map, in cells (32 pixels in a ResNet)')


def add_export(parser: argparse.ArgumentParser) -> None:
    """What export.py writes."""
    group = parser.add_argument_group('export')
    group.add_argument('--onnx', metavar='FILE', help='write an ONNX file')
    group.add_argument('--torch_export', metavar='FILE', help='write an exported program of torch.export (.pt2)')
    group.add_argument('--size', type=_count, nargs=2, metavar=('H', 'W'),
                       help='fix the size of the images; needed for pyramids (--P6, --P7) without --resize')


OPT_LEVELS = ('O0', 'O1', 'O2', 'O3', 'bf16')
OPTIMIZERS = {'adam': torch.optim.Adam, 'sgd': torch.optim.SGD, 'adadelta': torch.optim.Adadelta}
SHARED = (add_data, add_split, add_preprocessing, add_model, add_loss, add_training, add_run)
MAIN = (*SHARED, add_recording)
TEST_DATASET = (*SHARED, add_testing, add_report)
TEST_DEMO = (add_scoring, *SHARED)
EXPORT = (add_export, *SHARED)

# options that do not change the trained model: where things lie, what is recorded, what is tested
NOT_TRAINED = {'device', 'num_workers', 'cache', 'cache_dir', 'pbar', 'im_dir', 'allow_outside', 'checkpoint_dir',
               'result_dir', 'trained_model_file', 'log_dir', 'test_during_training', 'log_bhat', 'evaluate', 'part',
               'trained_on', 'img', 'recursive', 'max_pixels', 'csv', 'json', 'resume', 'keep', 'sort', 'clamp', 'map',
               'report', 'report_maps', 'map_window', 'calibrate', 'calibration', 'out', 'onnx', 'torch_export', 'size'}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """One line and exit status 2, without the usage text of sixty options."""
        self.exit(2, f'{self.prog}: error: {message} (--help lists all options)\n')


def make_parser(groups: tuple[Callable, ...], description: str = '', **kwargs) -> argparse.ArgumentParser:
    """A parser with these groups of options."""
    parser = _Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, add_help=False,
                     allow_abbrev=False, **kwargs)
    parser.add_argument('-h', '-help', '--help', action='help', help='show this and exit')
    for add in groups:
        add(parser)
    return parser


def parse(argv: list[str] | None, groups: tuple[Callable, ...], description: str = '') -> argparse.Namespace:
    """Parse and check the options. `args.given` holds the names of those that the user gave."""
    parser = make_parser(groups, description)
    args = parser.parse_args(argv)
    bare = make_parser(groups)
    for action in bare._actions:
        action.default = argparse.SUPPRESS
    args.given = sorted(vars(bare.parse_args(argv)))
    args.unsettled = argparse.Namespace(**vars(args))
    settle(args)
    check_data(parser, args)
    if sum(args.alpha) == 0 or sum(args.beta) == 0:
        parser.error('--alpha and --beta each need a weight above 0')
    return args


def check_data(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of the data that contradict each other; `args.given` as in `parse`."""
    given = set(args.given)
    if args.train_ratio > args.train_and_val_ratio:
        parser.error(f'--train_ratio {args.train_ratio:g} is larger than --train_and_val_ratio '
                     f'{args.train_and_val_ratio:g}')
    if args.data_info and args.dataset not in DATASETS:
        parser.error(f'--data_info {args.data_info}: --dataset {args.dataset} is an info file already')
    if args.split_file and 'split' in given:
        parser.error(f'--split_file {args.split_file} and --split {args.split} both say how to split')
    if given & {'fold', 'folds'} and not args.split.startswith('kfold'):
        parser.error(f'--folds and --fold need --split kfold or kfold-sorted, not {args.split}')


def settle(args: argparse.Namespace) -> None:
    """Put in what follows from other options: KonIQ-10k's split and size, the criterion of the head that is trained."""
    settle_data(args)
    args.val_criterion = trained_criterion(args.val_criterion, args.beta)


def settle_data(args: argparse.Namespace) -> None:
    """Put in what the data set fixes."""
    source = source_of(args.dataset)
    if source.ratios and args.split == 'official':
        args.train_ratio, args.train_and_val_ratio = source.ratios
    if source.size and not args.resize:
        args.resize_size_h, args.resize_size_w = source.size


def trained_criterion(criterion: str, beta: list[float]) -> str:
    """The criterion of the head that is trained, where it is only one: level 6 has suffix 1, level 7 suffix 2."""
    for suffix, others in (('1', (beta[1], beta[2])), ('2', (beta[0], beta[2]))):
        if sum(others) == 0:
            return criterion.rstrip('12') + suffix
    return criterion


def lr_decay_step(epochs: int, lr_decay: float, overall_lr_decay: float) -> int:
    """Epochs between two decays, at least 1: int(epochs / (1 + log(overall_lr_decay) / log(lr_decay)))."""
    if lr_decay == 1:  # no decay at all
        return epochs
    return max(1, int(epochs / (1 + math.log(overall_lr_decay) / math.log(lr_decay))))


def trained_options(args: argparse.Namespace) -> dict:
    """The options that change the trained model, by name."""
    return {name: value for name, value in sorted(vars(args).items())
            if name not in NOT_TRAINED and name not in ('given', 'unsettled')}


def run_name(args: argparse.Namespace) -> str:
    """The name of a run's files: what people look for, and 8 hexadecimal digits of all options of training."""
    options = trained_options(args)
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]
    size = f'{args.resize_size_h}x{args.resize_size_w}' if args.resize else 'full'
    return (f'{args.architecture}-{args.loss_type}-p{args.p:g}q{args.q:g}-{dataset_name(args.dataset)[:40]}-{size}'
            f'-lr{args.learning_rate:g}-bs{args.batch_size}-ft{args.ft_lr_ratio:g}-e{args.epochs}-exp{args.exp_id}'
            f'{split_name(args)}-{digest}')


def split_name(args: argparse.Namespace) -> str:
    """What a run's name says of a split that is not the official one."""
    if args.split_file:
        return '-splitfile'
    fold = f'{args.fold}of{args.folds}' if args.split.startswith('kfold') else ''
    return '' if args.split == 'official' else f'-{args.split}{fold}'


def with_dataset(args: argparse.Namespace, dataset: str) -> argparse.Namespace:
    """The options as they would be had the user said `--dataset dataset`, and no --data_info, which is another's."""
    other = argparse.Namespace(**vars(args.unsettled))
    if dataset != args.dataset:
        other.dataset, other.data_info = dataset, None
    settle(other)
    return other


def find_checkpoint(args) -> Path:
    """Where main.py wrote the run of these options, on the set tested or, for a test across sets, on KonIQ-10k."""
    trained_on = getattr(args, 'trained_on', None)
    datasets = [trained_on] if trained_on else dict.fromkeys((args.dataset, 'KonIQ-10k'))
    return find_file(args.checkpoint_dir, {name: run_name(with_dataset(args, name)) for name in datasets})
