"""Train a network, or with --evaluate test the trained one; `python main.py --help` shows how."""
from iqa_training.options import TRAIN

if __name__ == '__main__':
    TRAIN.begin()  # --help and mistakes end here, before torch is imported

from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from types import SimpleNamespace

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from iqa_data.datasets import dataset_name, require
from iqa_data.loaders import Data
from iqa_data.several import PerSet
from iqa_networks.network import Network
from iqa_networks.normalise import memory_format
from iqa_runtime.distributed import (
    check_synchronised,
    device_of,
    fewest_images,
    is_main,
    parallel,
    processes,
    synchronise,
)
from iqa_runtime.errors import command
from iqa_runtime.files import check_outputs, locked
from iqa_runtime.options import Options
from iqa_runtime.process import keep_freed_memory, seed_by_rank, seed_everything, signals_wait
from iqa_training.card import models_table
from iqa_training.dry_run import Costs, Images, in_words, measured, noise
from iqa_training.evaluation import Evaluation, Performances, mean_over_sets
from iqa_training.features import OnFeatures, check_frozen, with_features
from iqa_training.labels import check_labels, fit_distribution
from iqa_training.naming import RunFiles, inputs_of, named_checkpoint, runs_of_other_epochs
from iqa_training.optimizers import build_optimizer, build_penalty, forget
from iqa_training.ranking import find_ranker, needs_ranker, warn_of_ranker
from iqa_training.record import Record, val_criterion
from iqa_training.ridge import create_ridge_trainer, one_batch
from iqa_training.run import Run, RunPlan
from iqa_training.schedules import build_schedule
from iqa_training.state import find_state, refuse_finished, remove_unfinished
from iqa_training.summary import summarise, summarise_if_possible
from iqa_training.updates import averaged
from iqa_training.writer import About, RunParts, RunWriter
from IQAdataset import get_data_loaders, of_each_set, source_at
from IQAloss import IQALoss, build_loss
from IQAmodel import build_model, create_model, network_options
from IQAperformance import Performance
from linearity_iqa.test_dataset import test  # a program that imports this may have a test_dataset of its own
from modified_ignite_engine import (
    autocast_dtype,
    create_supervised_trainer,
    initialize_apex,
    limits_explained,
    preparing,
)


@command
def main(argv: list[str] | None = None) -> Performance | Performances | None:
    """Parse the options, then train or test; return the performance on the tested images."""
    return run(TRAIN.parse(argv))


def train(recipe: str | None = None, **options) -> Performance | Performances | None:
    """Train from Python, in this process, as main.py does: `train(dataset='demo', epochs=1).srocc`.

    Args:
        recipe: the name of a recipe, or a file of options.
        options: options of the command line, by their long names; they override the recipe's.

    Returns:
        The performance of the best epoch on the tested images, of several data sets by name; None if there are none.

    Raises UserError, a ValueError, if main.py refuses the options.
    """
    return run(TRAIN.options(recipe, **options))


def run(args: Options) -> Performance | Performances | None:
    """List networks, test, summarise, plan or train, as the options ask; return the performance if there is one."""
    if args.list_models:
        print(models_table(args.list_models))
        return None
    if args.evaluate:
        return test(args, part='test')
    if args.summary:
        if args.trained_model_file:
            args = args.having(trained_model_file=str(named_checkpoint(args.trained_model_file, args.checkpoint_dir)))
        print(*summarise(args), sep='\n')
        return None
    if args.plan:
        for line in plan(args):
            print(line, flush=True)
        return None
    keep_freed_memory(device_of(args.device))
    with processes(device_of(args.device)) as device:
        files = RunFiles.of(args)
        lock = locked(f'{files.checkpoint}.lock') if is_main() else nullcontext()
        with lock, signals_wait('Stopping after this iteration') as stop:
            return fit(args, files, device, stop)


def fit(args: Options, files: RunFiles, device: str, stop: SimpleNamespace) -> Performance | Performances | None:
    """Train, keep the best weights, fit their line to MOS, test them; return the performance on the tested images.

    On several data sets: name -> performance. Returns None if --resume finds that the run is finished, or if there are
    no test images.
    """
    if args.sync_bn:
        check_synchronised(device)
    if is_main():
        remove_unfinished(files.checkpoint)
    state = find_state(files.checkpoint, args.resume, args) if args.resume else None
    if not (args.resume or args.again):
        refuse_finished(files.checkpoint)
    if args.resume == 'auto' and state is None:
        for name, epochs in runs_of_other_epochs(args).items():
            print(f'{name}, the run with these options and --epochs {epochs}, is not resumed: a run of another '
                  'length is another run, since learning rates can depend on it')
    if state == {}:
        print(f'{files.checkpoint} is finished: nothing to resume')
        return None
    outputs = files.outputs(named=bool(args.trained_model_file))
    check_outputs(outputs, inputs_of(args))
    seed_everything(args.seed, args.randomness)
    for one in of_each_set(args):
        require(source_at(one), dataset_name(one.dataset))
    model = build_model(args).to(device)
    if args.features == 'cached':
        check_frozen(args, model)
    data = get_data_loaders(args, model.inputs, outputs, partial(try_on, model, device))  # takes minutes: comes last
    model.to(memory_format=memory_format(data.sizes['train'][0]))
    if data.crops:
        data.crops.check_side(model.side)
    for one in data.sets:
        fit_distribution(model, one)
        check_labels(args.values, one)
    if args.features == 'cached':
        data = data.each(partial(with_features, args, network=model))
    loader = one_batch() if args.probe else data.training_loader(fewest_images(args.batch_size, args.sync_bn, model))
    training = assemble(args, files, data, model, loader, device, stop)
    seed_by_rank(idist.get_rank())
    print(f'Run {files.name}\n' + ', '.join(f'{len(names)} {part}' for part, names in data.names.items())
          + f' images of {data.name}, {where_and_how(args, device)}\n'
          f'Split {args.split_file or args.split}, hash {training.writer.split_hash}: {files.log / "split.csv"}')
    if training.evaluation.head != len(model.heads) - 1:
        print(f'The head that is scored is {model.heads[training.evaluation.head]!r}, since --beta leaves '
              f'{model.heads[-1]!r} untrained')
    performances = training.train(loader, state)
    if is_main() and args.summary is not False:
        summarise_if_possible(args, training.log.history)
    return performances if len(data.sets) > 1 else performances.get(data.name)


def plan(args: Options) -> Iterator[str]:
    """Yield lines on what a run of these options will take, from a few steps on noise; nothing is kept or written."""
    device = device_of(args.device)
    seed_everything(args.seed, args.randomness)
    with redirect_stdout(StringIO()):  # messages about weights, which do not matter
        model = build_model(args.having(weights='none', pretrained=None, svd_legacy_init=False)).to(device)
    fewest_images(args.batch_size, args.sync_bn, model)
    val_criterion(args.val_criterion, len(model.heads))
    images = Images.of(args, model.inputs)
    try_on(model, device, images.cropped(args))
    data = noise(args, images, model.inputs)
    fit_distribution(model, data)
    check_labels(args.values, data)

    def measure() -> Costs:
        optimizer = build_optimizer(args, model)
        ranker = create_model('asna_ranker').to(device).eval() if needs_ranker(args) else None
        loss = build_loss(args, len(model.heads), ranker, build_penalty(args, model), model.distribution)
        trainer = create_trainer(args, data, model, optimizer, loss, device)
        return measured(trainer, data.training_loader(), model, optimizer, device)
    yield from in_words(args, model, images, device, measure)


def try_on(model: Network, device: str, size: tuple[int, int]) -> None:
    """Score a black image of size (h, w); raise UserError if the network does not accept it, or memory is short."""
    images = [torch.zeros(1, 3, *size, device=device)] * model.inputs
    with torch.no_grad(), limits_explained(model, lambda: images):
        model.eval()(*images)
    model.train()


def assemble(args: Options, files: RunFiles, data: Data, model: Network, loader: DataLoader, device: str,
             stop: SimpleNamespace) -> Run:
    """Return the run: the engine that trains the model, with the loss, the optimizer, the tests and the files."""
    if args.sync_bn and idist.get_world_size() > 1:
        synchronise(model)
    optimizer = build_optimizer(args, model)
    if args.amp_backend == 'apex':
        model, optimizer = initialize_apex(model, optimizer, args.opt_level)
    schedule = build_schedule(args, optimizer, len(loader))
    ranker = find_ranker(args, device, stop)
    if ranker is not None:
        warn_of_ranker(ranker, args, len(data.datasets['train']))
    loss = build_loss(args, len(model.heads), ranker, build_penalty(args, model), model.distribution)
    average = averaged(model, args.ema) if args.ema else None
    trainer = create_trainer(args, data, model, optimizer, loss, device)
    evaluation = Evaluation(average.module if average else model, data, head=loss.scored_head, line=args.line,
                            loss_fn=loss if args.val_criterion == 'loss' else None, pbar=args.pbar)
    plan = RunPlan(epochs=args.epochs, val_every=args.val_every, val_criterion=args.val_criterion,
                   everywhere=args.test_during_training, bhat=args.q if args.log_bhat else None,
                   accumulation=args.accumulation_steps, keep=args.keep, loggers=tuple(args.logger), pbar=args.pbar)
    about = About(options=args.of_training(), head=loss.scored_head,
                  network={'name': args.architecture, 'options': network_options(args)},
                  input={'preprocessing': data.preprocess.stored(), 'normalise': model.normalise},
                  crops=data.crops and data.crops.stored())
    criterion = mean_over_sets(val_criterion(args.val_criterion, len(model.heads)))
    record = Record(criterion, args.patience, args.later_wins)
    return Run(model=model, trainer=trainer, parts=RunParts(optimizer, schedule, trainer.scaler, average),
               evaluation=evaluation, record=record, plan=plan, stop=stop,
               writer=RunWriter(files, about, data, model, evaluation.model))


def create_trainer(args: Options, data: Data, model: Network, optimizer: Optimizer, loss: IQALoss, device: str
                   ) -> Engine:
    """Return the engine that trains the network with the loss, or a linear probe in closed form."""
    trained = OnFeatures(model, data.pooled) if data.pooled else model
    if args.probe:
        return create_ridge_trainer(trained, data, optimizer, args.epochs)
    loss_fn = PerSet(loss, [one.target for one in data.sets]) if len(data.sets) > 1 else loss
    trainer = create_supervised_trainer(parallel(trained, some_unused=0 in loss.beta), optimizer, loss_fn,
                                        prepare=preparing(trained, data.target), device=device,
                                        accumulation_steps=args.accumulation_steps, opt_level=args.opt_level,
                                        amp_backend=args.amp_backend, compile_model=args.compile)
    if args.renew_optimizer:  # before the state of an epoch is written
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: forget(optimizer))
    return trainer


def where_and_how(args: Options, device: str) -> str:
    """Describe the device, the precision and the processes."""
    dtype, world = autocast_dtype(args.opt_level, device), idist.get_world_size()
    precision = 'float32' if dtype is None else f'{dtype} autocast'.removeprefix('torch.')
    if args.amp_backend == 'apex':
        precision = f"apex's {args.opt_level}"
    elif args.opt_level in ('O2', 'O3'):
        precision += f' (-optl {args.opt_level} means O1 here)'
    elif args.opt_level == 'O1' and dtype is None:
        precision += ' (-optl O1 is float16, which needs a GPU)'
    share = '' if world == 1 else f', by {world} processes, which share a batch of {args.batch_size}'
    return f'on {device}, in {precision}{share}'


if __name__ == '__main__':
    main()
