"""Declare the options of the data set, its places, its split and the preprocessing of images."""
import argparse
import os
from argparse import ArgumentTypeError

from iqa_data import AUGMENTATIONS
from iqa_data.datasets import DATASETS, names_of, sets_of
from iqa_data.find import find_dataset, find_datasets
from iqa_data.pyiqa import PICKLES
from iqa_data.splits import FOLD_ORDERS, SPLITS, TEST_FOLDS
from iqa_data.target import check_target
from iqa_runtime.errors import UserError
from iqa_runtime.option_types import among, choice, count, number, positive, share, whole
from iqa_runtime.option_values import Joined, shown
from iqa_runtime.options import Options, group, options_of

CACHES = ('disk', 'ram', 'none')


def dataset(text: str) -> str:
    """Return a name in DATASETS, or the path of an existing info file: an argparse type."""
    try:
        return find_dataset(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def datasets(text: str) -> str:
    """Return one or several data sets, with + between them: an argparse type."""
    try:
        return find_datasets(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


def check_data(args: Options) -> None:
    """Refuse an info file for a data set that is an info file already, and what several data sets cannot have."""
    sets = sets_of(args.dataset)
    if len(sets) > 1:
        check_sets(args, sets)
    elif args.data_weights:
        raise UserError(f'--data_weights {shown(args.data_weights)} needs several data sets: --dataset A.csv B.csv')
    if args.data_info and args.dataset not in DATASETS:
        raise UserError(f'--data_info {args.data_info}: --dataset {args.dataset} is an info file already')


def check_sets(args: Options, sets: list[str]) -> None:
    """Refuse several data sets of one name, other numbers of weights, and files that describe one set."""
    names = names_of(args.dataset)
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f'--dataset {" ".join(sets)}: two data sets are called {twice[0]}, and each needs a name of '
                        'its own')
    if args.data_weights and len(args.data_weights) != len(sets):
        raise UserError(f'--data_weights {shown(args.data_weights)}: expected {len(sets)} weights, one of each data '
                        f'set ({", ".join(names)})')
    for name in ('data_info', 'split_file', 'probe', 'head'):
        if args.values.get(name) and args.values[name] != args.command.defaults[name]:
            raise UserError(f'--{name} {args.values[name]} is of one data set, and --dataset names {len(sets)}')


@group('data', 'the data set and its info file', trained=True, check=check_data)
def data(add) -> None:
    add('-ds', '--dataset', type=datasets, action=Joined, nargs='+', metavar='SET', default='KonIQ-10k',
        help=f'{", ".join(DATASETS)}; or info files (.csv, .tsv, .txt, .mat), images beside them or in --im_dir')
    add('--data_weights', type=positive, nargs='+', metavar='W',
        help='shares of several data sets in a batch, as 2 1 (default: equal ones)')
    add('--data_info', metavar='FILE', help='info file to use instead of the named data set\'s own')


@group('images', 'the folder of the images, and the cache of decoded images')
def places(add) -> None:
    add('--im_dir', metavar='DIR', help="folder of the data set's images (default: the data set's own)")
    add('--ref_dir', metavar='DIR',
        help='folder of the reference images that the info file names (default: that of the images)')
    add('--allow_outside', action='store_true',
        help='read images that the info file names outside their folder (.., absolute, symbolic links)')
    add('--cache', type=choice(CACHES, 'cache'), metavar=among(CACHES), default='disk',
        help='disk: keep decoded images in files, also for later runs; ram: in memory; none: decode images when used')
    add('--cache_dir', metavar='DIR', default='cache', help='folder of the decoded images')
    add('--num_workers', type=number(int, 0, 1024), default=min(8, os.cpu_count() or 1),
        help='processes or threads that decode or augment images')


def check_split(args: Options) -> None:
    """Refuse options of a split that contradict each other."""
    if args.train_ratio > args.train_and_val_ratio:
        raise UserError(f'--train_ratio {args.train_ratio:g} is larger than --train_and_val_ratio '
                        f'{args.train_and_val_ratio:g}')
    if args.split_file and 'split' in args.given:
        raise UserError(f'--split_file {args.split_file} and --split {args.split} both say how to split')
    if args.given & {'fold', 'folds'} and not args.split.startswith('kfold'):
        raise UserError(f'--folds and --fold need --split kfold or kfold-sorted, not {args.split}')
    if args.split.startswith('kfold') and args.folds == 2 and args.test_fold == 'next':
        raise UserError('--folds 2 leaves no images to train on, one fold being val and the next one test: give 3 or '
                        'more, or --test_fold none')
    if 'fold_order' in args.given and args.split != 'kfold-sorted':
        raise UserError(f'--fold_order needs --split kfold-sorted, not {args.split}')
    pickled = args.split_file and args.split_file.lower().endswith(PICKLES)
    if 'split_index' in args.given and args.split != 'pyiqa' and not pickled:
        raise UserError(f'--split_index {args.split_index} needs --split pyiqa, or a --split_file of pyiqa\'s (.pkl)')


@group('split', 'splitting the data set into train, val and test', trained=True, check=check_split)
def split(add) -> None:
    add('--split', type=choice(SPLITS, 'split'), default='official',
        help="official: the info file's own, and if it has none, reference; random: by image; reference: by content; "
             'all: the whole set by content, only train and val; kfold: by content, kfold-sorted: images by MOS, dealt '
             "to --folds, of which --fold is val; pyiqa: split --split_index of that toolbox's, only train and val")
    add('-eid', '--exp_id', type=whole, default=0,
        help="number of the info file's permutation; also changes random splits")
    add('-tr', '--train_ratio', type=share, default=.6,
        help='share of training contents; of images with --split random')
    add('-tvr', '--train_and_val_ratio', type=share, default=.8,
        help="share of training and validation contents; KonIQ-10k's official split has its own shares")
    add('--split_seed', type=number(int, 0, 2 ** 32 - 1), default=0, help='seed of random splits')
    add('--folds', type=number(int, 2, 10 ** 6), default=5, help='folds of the k-fold splits')
    add('--fold', type=whole, default=0, help='number of the validation fold')
    add('--test_fold', type=choice(TEST_FOLDS, 'test fold'), default='next',
        help='the test part of a k-fold split: the next fold, none, or val itself; val also serves other splits that '
             'have no test part')
    add('--fold_order', type=choice(FOLD_ORDERS, 'fold order'), default='slides',
        help='how kfold-sorted numbers its folds: slides: fold 0 is dealt to last; published: fold 0 is dealt to first')
    add('--split_index', type=count, default=1, help="number of pyiqa's split")
    add('--split_file', metavar='FILE',
        help="file of a split: RUN/split.csv, as main.py writes it, with columns image and part; or pyiqa's, .pkl")


SIDE = number(int, 1, 1 << 15)


class Resize(argparse.Action):
    """Switches --resize on; one or two sides after it, H W, set --resize_size_h and --resize_size_w."""

    def __call__(self, parser, namespace, values, option_string=None):
        if len(values) > 2:
            parser.error(f'argument {option_string}: expected at most two sides, H W, found {len(values)}')
        setattr(namespace, self.dest, True)
        for name, side in zip(('resize_size_h', 'resize_size_w'), (values * 2)[:2], strict=False):
            setattr(namespace, name, side)


def target_word(text: str) -> str:
    """Return a word of --target in lower case: an argparse type."""
    return text.casefold()


def check_preprocessing(args: Options) -> None:
    """Refuse an invalid target, and a fit without a size."""
    check_target(args.target)
    if args.fixed_augmentations and args.augmentation is None:
        raise UserError(f'--fixed_augmentations {args.fixed_augmentations} needs --augmentation, which says of what')
    if args.fixed_augmentations and args.train_crops > 1:
        raise UserError(f'--train_crops {args.train_crops} and --fixed_augmentations {args.fixed_augmentations}: give '
                        'one of them')
    if args.enlarge and args.resize:
        raise UserError('--enlarge is for images that keep their size, and --resize gives all the same: leave one out')
    if args.fit != 'resize' and not args.resize:
        raise UserError(f'--fit {args.fit} needs --resize, with the size in --resize_size_h and --resize_size_w')


@group('preprocessing', 'preparing images for the network', trained=True, check=check_preprocessing)
def preprocessing(add) -> None:
    add('-rs', '--resize', action=Resize, nargs='*', type=SIDE, default=False, metavar='SIDE',
        help='resize the images to --resize_size_h x --resize_size_w, or to the sides given here, H W or one for both')
    add('-rs_h', '--resize_size_h', type=SIDE, default=498, help='height after --resize')
    add('-rs_w', '--resize_size_w', type=SIDE, default=664, help='width after --resize')
    add('--filter', type=choice('iqa_data.transforms:FILTERS', 'filter'), default='bilinear',
        help="filter of --resize: Pillow's bilinear, bicubic or lanczos; cubic: OpenCV's bicubic, not antialiased")
    add('--fit', type=choice('iqa_data.transforms:FITS', 'fit'), default='resize',
        help='how --resize brings an image to the size: resize; pad: black around the whole image; crop: its middle, '
             'with black where a side is too short')
    add('--normalise', type=choice('iqa_networks.normalise:NORMALISATIONS', 'normalisation'),
        help='imagenet; none: 0..1; half: -1..1; half-bgr: the same, blue first (default: the network\'s own)')
    add('--target', nargs='+', type=target_word, default=['none'], metavar='WORD',
        help='scale of the MOS in the loss: none: unchanged; LOW HIGH: this range mapped to 0..1; zscore [MEAN STD]: '
             'z-scores, by default with the mean and standard deviation of the training set')
    add('-augment', '--augmentation', nargs='*', type=choice(AUGMENTATIONS, 'augmentation'),
        metavar='PART', help='change training images at random: rotate hflip vflip crop rot90 lightness, in the '
                             "order given; without parts the paper's, rotate hflip crop")
    add('--fixed_augmentations', type=count, metavar='K',
        help='draw the random changes of each training image K times, once for all; an epoch takes one of them')
    add('--enlarge', action='store_true',
        help='enlarge images that are smaller than --crop_size_h x --crop_size_w, in proportion')


def check_crops(args: Options) -> None:
    """Refuse several crops of a training image that is not cropped."""
    parts = args.augmentation is not None and (args.augmentation or ['crop'])  # without parts, the paper's
    if args.train_crops > 1 and 'crop' not in (parts or ()):
        raise UserError(f'--train_crops {args.train_crops} needs --augmentation with crop: without it, an epoch would '
                        'repeat each whole image')


@group('crops', 'crops of an image, which are trained with and scored', trained=True, check=check_crops)
def crops(add) -> None:
    add('--test_crops', type=number(int, 0, 10_000), default=0,
        help='score an image by the mean over this number of crops of --crop_size_h x --crop_size_w; 0: whole image')
    add('--crop_places', type=choice('iqa_data.crops:PLACES', 'places of crops'), default='grid',
        help="places of these crops: grid, which reaches all edges; toolbox: pyiqa's grid; random, but always the same "
             'for the same image')
    add('--train_crops', type=count, default=1, help='crops of each training image in an epoch; it is decoded once')


augmentation = options_of('augmentation', 'options that some augmentations take', AUGMENTATIONS, angle='-ag',
                          crop_size_h='-cs_h', crop_size_w='-cs_w', hflip_p='-hp')
PREPROCESSING = (preprocessing, augmentation)
