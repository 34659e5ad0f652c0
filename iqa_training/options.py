"""Options of the network, its loss, its training, and what a training run records."""
import re
from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Sequence
from itertools import pairwise

from iqa_data import options as of_data
from iqa_losses import LOSSES, chosen
from iqa_networks import HEADS, NETWORKS
from iqa_runtime.errors import UserError
from iqa_runtime.hub import on_hub
from iqa_runtime.option_types import among, choice, count, look_up, named, number, positive, seed, weight, whole
from iqa_runtime.options import LATEST, Command, Options, group, machine, options_of
from iqa_training import OPTIMIZERS, SCHEDULES

PROBES = ('ridge',)
# groups of options of the loss and its steps, and the other options of steps
STEPS = {'loss', 'losses', 'optimizer', 'optimizers', 'schedule', 'schedules'}
OF_STEPS = {'learning_rate', 'optimizer', 'val_every', 'compile', 'sync_bn'}
FEATURES = ('computed', 'cached')
LINES = ('fitted', 'target')
AMP_BACKENDS = ('torch', 'apex')
OPT_LEVELS = ('O0', 'O1', 'O2', 'O3', 'bf16')


def weights(text: str) -> str:
    """Return imagenet, pypi or none in small letters, or a path as it is: an argparse type."""
    return text.lower() if text.lower() in ('imagenet', 'pypi', 'none') else text


def own_network(words: Sequence[str]) -> None:
    """Import the user's own class that the words of a command line name, as in -arch my.py:MyNet."""
    for option, value in pairwise([part for word in words for part in word.split('=', 1)]):
        if option in ('-arch', '--arch', '--architecture') and value.rpartition(':')[0].endswith('.py'):
            look_up('iqa_networks.own:register_own')(value)


@group('network', 'the network and its weights', trained=True, prepare=own_network)
def network(add) -> None:
    add('-arch', '--architecture', '--arch', type=named('IQAmodel:network_name'),
        default='resnext101_32x8d',
        help='the network: for LinearityIQA its backbone; --list_models lists all; timm/NAME: any backbone of '
             'timm; FILE.py:CLASS: a class of your own')
    add('--weights', type=weights, default='imagenet', metavar='{imagenet,pypi,none,PATH}',
        help='initial weights of the backbone: ImageNet (downloaded, or from a package of PyPI), random, or a state '
             'dict')
    add('--probe', type=choice(PROBES, 'probe'), metavar=among(PROBES),
        help='one linear layer on the features of a frozen backbone, fitted by ridge regression; --epochs penalties '
             'are tried, and validation chooses')
    add('--pretrained', metavar='FILE', help='initial weights of the network: a checkpoint, a published model '
                                             '(a folder, or hf-hub:USER/NAME), or a state dict of torchvision or pyiqa')
    add('--head', type=choice('iqa_networks:HEADS', 'head'), metavar='{score,histogram,gaussian}', default='score',
        help='what is predicted: a score, or a distribution of ratings, whose mean is the score and whose spread its '
             'uncertainty: a histogram over --levels, or a normal distribution')


networks = options_of('networks', 'options that some networks take', NETWORKS, pool='-pl', use_bn_end='-ubne', P6='-P6',
                      P7='-P7')


heads = options_of('heads', 'options that some heads take', HEADS)


@group('svd', 'SVD-CNNIQA: factored layers', trained=True)
def svd(add) -> None:
    add('--svd', metavar='PATTERN', help="factor the linear layers and convolutions whose names match, such as 'fc*' "
                                         "or 'features.*conv*', and train only their singular values")
    add('--svd_scale', type=positive, help='factor of the change of the singular values (default: 1)')
    add('--svd_bias', action='store_true', default=None, help='train the biases of factored layers too')
    add('--svd_legacy_init', action='store_true', help='as in the published SVD-CNNIQA, load neither the biases of '
                                                       'factored layers nor the weight of fc3')


def check_lora(args: Options) -> None:
    """Raise UserError if an option of LoRA is given without --lora."""
    for option in sorted({'rank', 'lora_alpha'} & args.given):
        if not args.lora:
            raise UserError(f'--{option} needs --lora PATTERN, which selects the layers')


@group('lora', 'LoRA: products of low rank beside the weights of layers', trained=True, check=check_lora)
def lora(add) -> None:
    add('--lora', metavar='PATTERN', help="add a product of low rank to the linear layers and convolutions whose "
                                          "names match, such as 'features.*', and train only the products")
    add('--rank', type=number(int, 1, 1 << 14), help='rank of the products (default: 4)')
    add('--lora_alpha', type=positive, help='the products are multiplied by this over the rank (default: the rank)')


def check_loss(args: Options) -> None:
    """Raise UserError if all weights of --alpha or --beta are 0, which leaves nothing to minimise."""
    if sum(args.alpha) == 0 or sum(args.beta) == 0:
        raise UserError('--alpha and --beta each need a weight above 0')
    needs = {need: name for name in chosen(args.values) for need in LOSSES[name].needs()}
    for head, row in HEADS.items():
        need = getattr(row.build, 'needs', None)
        if need in needs and args.head != head:
            raise UserError(f'--loss_type {needs[need]} needs --head {head}')
        if need and need not in needs and args.head == head:
            able = [name for name, loss in LOSSES.items() if need in loss.needs()]
            raise UserError(f'--head {head} needs a loss that trains its distribution, alone or in a sum: --loss_type '
                            f'{" or ".join(able)}')
    if args.features == 'cached' and 'flipped' in needs:
        raise UserError(f'--features cached: {needs["flipped"]} needs mirror images in each step: leave one out')
    if args.probe and args.head != 'score':
        raise UserError(f'--probe {args.probe} fits a score: leave out --head {args.head}')
    others = set(needs) - {'y_pred', 'y', 'std'}
    if args.val_criterion == 'loss' and others:
        raise UserError(f'--val_criterion loss: {needs[min(others)]} is not computed in validation; expected another '
                        'criterion')


@group('loss', 'the loss', trained=True, check=check_loss)
def loss(add) -> None:
    add('-lt', '--loss_type', type=named('iqa_losses:loss_type'), default='norm-in-norm',
        help='norm-in-norm, min-max-norm, mean-norm, scaling, linearity; mae, mse, huber, charbonnier, logcosh, '
             'epsilon; plcc, ccc; monotonicity, macs; rank-hinge, ranknet, tres, mixed; fidelity, fidelity-std, '
             'thurstone-bce, thurstone-bce-std; soft-srocc, neuralsort; consistency; emd, soft-label, coral of '
             '--head histogram, nll of --head gaussian (docs/losses.md); or a sum with weights: '
             'mse+plcc:.5; Lp is an old name of norm-in-norm')
    add('-b', '--beta', type=weight, nargs='+', default=[.1, .1, 1.], metavar='B',
        help='weights of the heads: level 6, level 7, both; a network with one head uses the last')
    add('-monoreg', '--monotonicity_regularization', action='store_true', help='penalise pairs in the wrong order')
    add('-g', '--gamma', type=weight, default=.1, help='weight of that penalty')
    add('--l2', type=weight, nargs=2, default=[0., 0.], metavar=('DENSE', 'CONV'),
        help='add the squared weights of dense layers and of convolutions to the loss, times these factors; for ASNA')


losses = options_of('losses', 'options that some losses take', LOSSES, alpha='-a', p='-p', q='-q', detach='-detach')


def check_probe(args: Options) -> Options:
    """Return the options with cached features for a probe; refuse options that its fit has no use for."""
    if not args.probe:
        return args
    for option in sorted(name for name in args.typed if name in OF_STEPS or args.command.titles.get(name) in STEPS):
        raise UserError(f'--{option}: --probe {args.probe} is solved at once, by least squares, and does not use it')
    return args.having(features='cached')


def check_features(args: Options) -> None:
    """Refuse features that change from epoch to epoch."""
    if args.features != 'cached':
        return
    wants = f'--probe {args.probe}' if args.probe else '--features cached'
    if args.ft_lr_ratio and not args.freeze:
        raise UserError(f"{wants} needs a frozen backbone: --ft_lr_ratio 0, or --freeze with its name, as 'features' "
                        'of LinearityIQA')
    if args.augmentation is not None and not args.fixed_augmentations:
        raise UserError(f'{wants}: --augmentation draws other changes in each epoch; --fixed_augmentations K '
                        'draws K of each image, once for all')


def check_training(args: Options) -> Options:
    """Check the options of the schedule and the optimizer (see check_schedule and check_optimizer)."""
    from iqa_training.optimizers import check_optimizer
    from iqa_training.schedules import check_schedule
    check_schedule(args)
    args = check_probe(args)
    check_features(args)
    return check_optimizer(args)


@group('training', 'training the network', trained=True, check=check_training)
def training(add) -> None:
    add('-lr', '--learning_rate', '--lr', type=positive, default=1e-4, help='learning rate of the heads')
    add('-flr', '--ft_lr_ratio', type=weight, default=.1,
        help="the backbone's learning rate over the heads'; 0 freezes its weights")
    add('-bs', '--batch_size', type=count, default=8, help='images in a batch')
    add('-e', '--epochs', type=count, default=30, help='epochs')
    add('--optimizer', type=choice(OPTIMIZERS, 'optimizer'), default='adam',
        help='adam, adam-keras, adamw, sgd, adadelta')
    add('--freeze', nargs='+', metavar='PATTERN',
        help="do not train parameters and layers whose names match, such as 'features.0*'")
    add('--features', type=choice(FEATURES, 'way'), metavar=among(FEATURES), default='computed',
        help='of a frozen backbone, compute the pooled features of each image once, for all epochs and later runs')
    add('--seed', type=seed, default=19920517, help='seed of all random numbers')
    add('-debug', '--debug', action='store_true', help='use 5 training batches, 5 val and 5 test images')


@group('validation', 'choosing the best epoch', trained=True)
def validation(add) -> None:
    add('-valc', '--val_criterion', type=choice('iqa_training.record:VAL_CRITERIA', 'criterion'), default='SROCC',
        help='criterion of the best epoch: SROCC, PLCC, KROCC, RMSE (suffix 1, 2: other heads), SROCC+PLCC or loss')
    add('--later_wins', action='store_true', help='if validations are equally good, keep the later one')
    add('--val_every', type=count, help='iterations between validations (default: one after each epoch)')
    add('--patience', type=count, help='end after this many validations in a row without improvement')
    add('--line', type=choice(LINES, 'line'), metavar=among(LINES), default='fitted',
        help='predictions to MOS: by least squares, or by the inverse of --target')


@group('optimizer', 'the steps of the optimizer', trained=True)
def optimizer(add) -> None:
    add('-wd', '--weight_decay', type=weight, default=0., help='weight decay (default: 0; adamw: .01)')
    add('-accum', '--accumulation_steps', type=count, default=1, help='batches per optimizer step')
    add('--renew_optimizer', action=BooleanOptionalAction, default=False,
        help="forget the optimizer's moments after each epoch, as HyperIQA's published code")
    add('--clip_grad', type=positive, metavar='NORM', help='clip the gradient to this norm before each step')
    add('--ema', type=number(float, 0, 1, open_low=True, open_high=True), metavar='DECAY',
        help='validate and save an exponential moving average of the weights with this decay, such as .999')


@group('computing', 'precision and processes', trained=True)
def computing(add) -> None:
    add('-optl', '--opt_level', type=choice(OPT_LEVELS, 'opt level'), default='O1',
        help='O0 float32; O1 float16 autocast on a GPU (O2, O3 act the same); bf16 bfloat16 autocast')
    add('--amp_backend', type=choice(AMP_BACKENDS, 'backend'), metavar=among(AMP_BACKENDS), default='torch',
        help='implementation of mixed precision; apex needs an old version of it that still has its own')
    add('--sync_bn', action='store_true',
        help='batch normalisation over the whole batch if several processes share it, on GPUs')
    add('--compile', action='store_true', help='compile the training step: slow to start, then faster')
    add('-rn', '--randomness', action='store_true', help='set no seed, and use the fastest GPU kernels')


@group('schedule', 'the schedule of the learning rate', trained=True)
def schedule(add) -> None:
    add('--schedule', type=choice(SCHEDULES, 'schedule'), default='step',
        help='step: a decay at regular intervals; multistep: after the epochs of --milestones; step_decay: every '
             '--decay_every epochs, the first an epoch early; cosine: half a cosine over the run; '
             'cosine_warmup_restarts: cycles of a rise and half a cosine, by iteration; constant; hyperiqa: the rates '
             'published for its backbone and for its other parameters')
    add('--warmup', type=whole, default=0, help='iterations of a linear rise before the schedule')
    add('--warmup_epochs', type=whole, default=0, help='the same in epochs')


schedules = options_of('schedules', 'options that some schedules take', SCHEDULES, lr_decay='-lrd',
                       overall_lr_decay='-olrd')
optimizers = options_of('optimizers', 'options that some optimizers take', OPTIMIZERS)


def name_of_run(text: str) -> str:
    """Return a name for the files of a run: an argparse type."""
    if not re.fullmatch(r'\w[\w.+=-]{0,99}', text, re.ASCII) or text == LATEST:
        raise ArgumentTypeError(f'{text!r}: expected up to 100 letters, digits and _ . + = -, the first a letter, a '
                                f'digit or _, and not {LATEST!r}')
    return text


def check_recording(args: Options) -> None:
    """Check the loggers and the name of --log_dir, and refuse options that contradict each other."""
    from iqa_training.loggers import check_loggers
    check_loggers(args.logger)
    if args.summary and args.evaluate:
        raise UserError('--summary and --evaluate cannot be combined: give one')
    if args.plan and (args.evaluate or args.summary):
        raise UserError('--plan describes a training run: leave out --evaluate and --summary')
    if args.plan and args.features == 'cached':
        raise UserError('--plan measures steps on images, and cannot plan those on cached features (--features, '
                        '--probe)')
    if {'again', 'resume'} <= args.given:
        raise UserError('--again trains from the beginning, and --resume from a state: give one')
    if args.name and args.trained_model_file:
        raise UserError(f'--name {args.name} and --trained_model_file {args.trained_model_file} both name the '
                        'checkpoint: give one')
    if args.trained_model_file and on_hub(args.trained_model_file) and not args.evaluate:
        raise UserError(f'--trained_model_file {args.trained_model_file}: training writes a file, expected its path; '
                        '--pretrained starts from a published model')
    try:
        args.log_dir.encode()
    except UnicodeEncodeError:
        raise UserError(f'--log_dir {args.log_dir}: TensorBoard needs a name in UTF-8') from None


@group('recording', 'recording, resuming and stopping', check=check_recording)
def recording(add) -> None:
    add('--name', type=name_of_run, metavar='NAME',
        help="name of the run's files, before the digest of its options (default: its main options)")
    add('-logd', '--log_dir', metavar='DIR', default='runs', help="folder of the runs' logs")
    add('--logger', nargs='+', type=choice('iqa_training.loggers:LOGGERS', 'logger'), metavar='NAME',
        default=['tensorboard'], help='where scalars are logged: tensorboard, csv, wandb, mlflow')
    add('-tdt', '--test_during_training', action='store_true',
        help='evaluate the training and test images after each epoch too')
    add('--log_bhat', action='store_true', help='record the norm of the centred predictions')
    add('--resume', metavar='{auto,PATH}',
        help='resume from a state file, or with auto from the last state of the run with these options, if any')
    add('--again', action='store_true', help='train even if a finished run with these options exists')
    add('--keep', type=count,
        help='number of latest states to keep (default: 1 while the run trains, none when it is finished)')
    add('-eval', '--evaluate', action='store_true', help='no training: test the trained model')
    add('--summary', action=BooleanOptionalAction,
        help='no training: write summary.html and curves.png of a run again; --no-summary trains without them')
    add('--plan', action='store_true',
        help='no training: show parameters, MACs, cache, memory and time of a step and of an epoch, by ten steps on '
             'noise')
    add('--list_models', nargs='?', const='*', metavar='PATTERN',
        help="no training: list the networks, as resnet*; 'timm/*' lists timm's")


NETWORK = (network, networks, heads, svd, lora)
LOSS = (loss, losses)
TRAINING = (training, validation, optimizer, optimizers, computing, schedule, schedules)

TRAIN = Command("""Train a network, or with --evaluate test the trained one.

    python main.py --dataset demo -arch resnet18 --weights none
    python main.py --dataset KonIQ-10k --resize --loss_type norm-in-norm
    python main.py --recipe linearity_iqa
    torchrun --nproc_per_node=4 main.py --resize -bs 32
""", [of_data.data, training, validation, recording],
                [schedule, schedules, optimizer, optimizers, *NETWORK, *LOSS, of_data.split, *of_data.PREPROCESSING,
                 of_data.crops, computing, of_data.places, machine],
                most_used=('dataset', 'im_dir', 'architecture', 'weights', 'loss_type', 'resize', 'split', 'epochs',
                           'batch_size', 'learning_rate', 'ema', 'name', 'resume', 'evaluate', 'device'))
