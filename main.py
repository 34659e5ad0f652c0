"""Train LinearityIQA, or with --evaluate test the trained model.

    python main.py --dataset demo -arch resnet18 --weights none
    python main.py --dataset KonIQ-10k --resize --loss_type norm-in-norm
    torchrun --nproc_per_node=4 main.py --resize -bs 32
"""
import random
from contextlib import nullcontext
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from torch import nn
from torch.optim.lr_scheduler import StepLR

from iqa_data.transforms import augmentation, memory_format
from iqa_runtime.distributed import is_main, parallel, processes, synchronise
from iqa_runtime.errors import command
from iqa_runtime.files import locked
from iqa_runtime.process import keep_freed_memory, signals_wait
from iqa_training.run import Run, Skipping, checkpoint_file, find_state
from IQAdataset import get_data_loaders
from IQAloss import IQALoss
from IQAmodel import build_model, parameter_groups
from IQAoptions import MAIN, OPTIMIZERS, lr_decay_step, parse
from modified_ignite_engine import autocast_dtype, create_supervised_trainer, initialize_apex
from results_in_the_paper.export_csv import export_finished
from test_dataset import test


@command
def main(argv: list[str] | None = None) -> dict | None:
    """Parse the options, then train or test; return the performance on the test images."""
    args = parse(argv, MAIN, __doc__)
    if args.evaluate:
        return test(args)
    keep_freed_memory(args.device)
    with processes(args.device) as args.device:
        lock = locked(checkpoint_file(args).with_suffix('.lock')) if is_main() else nullcontext()
        with lock, signals_wait('Stopping after this iteration') as stop:
            return train(args, stop)


def train(args, stop) -> dict | None:
    """Train, keep the best epoch, fit its line to MOS, test it; return the performance on the test images.

    None where --resume finds that all is done.
    """
    state = find_state(args) if args.resume else None
    if state == {}:
        print(f'{checkpoint_file(args)} is finished: nothing to resume')
        return None
    seed_everything(args.seed, args.randomness)
    data = get_data_loaders(args)
    model = build_model(args).to(args.device, memory_format=memory_format(data.sizes['train'][0]))
    trainer, run = assemble(args, data, model, stop)
    loader = data.training_loader(training_transform(args))
    print(f'Run {run.name}\n' + ', '.join(f'{len(names)} {part}' for part, names in data.names.items())
          + f' images of {data.name}, {where_and_how(args)}\n'
          f'Split {args.split_file or args.split}, hash {run.split_hash}: {run.log_dir / "split.csv"}')
    if state:
        print(f'Resuming {state["path"]}: {state["iteration"]} of {args.epochs * len(loader)} iterations are done')
        run.resume(state)
        trainer.load_state_dict({'epoch_length': len(loader), 'max_epochs': args.epochs, 'iteration': run.iteration})
        loader = Skipping(loader, run.iteration % len(loader))
    with run.log():
        if run.iteration < args.epochs * len(loader):
            trainer.run(loader, max_epochs=args.epochs)
        performance = run.finish()
    if is_main():
        export_finished(run.log_dir, Path(args.result_dir, 'csv'))
    return performance


def assemble(args, data, model: nn.Module, stop) -> tuple[Engine, Run]:
    """The engine that trains the model, with its handlers, and the run that they belong to."""
    if args.sync_bn and idist.get_world_size() > 1:
        synchronise(model)
    optimizer = OPTIMIZERS[args.optimizer](parameter_groups(model, args.learning_rate, args.ft_lr_ratio),
                                           lr=args.learning_rate, weight_decay=args.weight_decay)
    if args.amp_backend == 'apex':
        model, optimizer = initialize_apex(model, optimizer, args.opt_level)
    scheduler = StepLR(optimizer, lr_decay_step(args.epochs, args.lr_decay, args.overall_lr_decay), args.lr_decay)
    loss_fn = IQALoss(args.loss_type, args.alpha, args.beta, args.p, args.q, args.monotonicity_regularization,
                      args.gamma, args.detach)
    trainer = create_supervised_trainer(parallel(model, some_unused=0 in args.beta), optimizer, loss_fn, args.device,
                                        args.accumulation_steps, args.opt_level, args.amp_backend)
    run = Run(args, data, model, {'optimizer': optimizer, 'scheduler': scheduler, 'scaler': trainer.scaler}, stop)
    if args.pbar and is_main():
        ProgressBar(desc='Training', persist=False).attach(trainer, output_transform=lambda out: {'loss': out['loss']})
    trainer.add_event_handler(Events.EPOCH_STARTED, run.begin_epoch)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, run.end_iteration)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, run.end_epoch)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: scheduler.step())
    trainer.add_event_handler(Events.EPOCH_COMPLETED, run.keep_state)
    return trainer, run


def seed_everything(seed: int, randomness: bool) -> None:
    """Seed Python, numpy and torch and choose repeatable GPU kernels; with `randomness` any seed, and the fastest.

    All processes get the same seed, since they share out the batches that it orders.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = not randomness, randomness
    if randomness:
        seed = int(idist.broadcast(float(torch.seed() % 2 ** 32), 0) if idist.get_world_size() > 1 else torch.seed())
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)


def training_transform(args):
    """The random part of preprocessing: PIL image -> uint8 tensor, or None."""
    if not args.augmentation:
        return None
    return augmentation(args.angle, (args.crop_size_h, args.crop_size_w), args.hflip_p)


def where_and_how(args) -> str:
    """The device, the precision and the processes, in words."""
    dtype, world = autocast_dtype(args.opt_level, args.device), idist.get_world_size()
    precision = 'float32' if dtype is None else f'{dtype} autocast'.removeprefix('torch.')
    if args.amp_backend == 'apex':
        precision = f"apex's {args.opt_level}"
    elif args.opt_level in ('O2', 'O3'):
        precision += f' (-optl {args.opt_level} means O1 here)'
    elif args.opt_level == 'O1' and dtype is None:
        precision += ' (-optl O1 is float16, which needs a GPU)'
    share = '' if world == 1 else f', by {world} processes: a batch of {args.batch_size} is all theirs together'
    return f'on {args.device}, in {precision}{share}'


if __name__ == '__main__':
    main()
