"""Train LinearityIQA, or with --evaluate test the trained model.

    python main.py --dataset demo -arch resnet18 --weights none
    python main.py --dataset KonIQ-10k --resize --loss_type norm-in-norm
"""
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.functional import pil_to_tensor

import IQAcheckpoint
from IQAdataset import Data, augmentation, get_data_loaders, memory_format
from IQAloss import IQALoss, bhat
from IQAmodel import build_model, parameter_groups
from IQAoptions import MAIN, OPTIMIZERS, lr_decay_step, parse, run_name, trained_options
from IQAperformance import SUFFIXES, criteria_of
from IQAresults import table, write_results
from IQAsplits import split_hash, write_split
from IQAutils import UserError, command, replacing, write_text
from modified_ignite_engine import autocast_dtype, create_supervised_trainer, evaluate
from test_dataset import test


@command
def main(argv: list[str] | None = None) -> dict:
    """Parse the options, then train or test; return the performance on the test images."""
    args = parse(argv, MAIN, __doc__)
    return test(args) if args.evaluate else train(args)


def train(args) -> dict:
    """Train, keep the best epoch, fit its line to MOS, test it; return the performance on the test images."""
    seed_everything(args.seed, args.randomness)
    data = get_data_loaders(args)
    model = build_model(args).to(args.device, memory_format=memory_format(data.sizes['train'][0]))
    optimizer = OPTIMIZERS[args.optimizer](parameter_groups(model, args.learning_rate, args.ft_lr_ratio),
                                           lr=args.learning_rate, weight_decay=args.weight_decay)
    scheduler = StepLR(optimizer, lr_decay_step(args.epochs, args.lr_decay, args.overall_lr_decay), args.lr_decay)
    loss_fn = IQALoss(args.loss_type, args.alpha, args.beta, args.p, args.q, args.monotonicity_regularization,
                      args.gamma, args.detach)
    trainer = create_supervised_trainer(model, optimizer, loss_fn, args.device, args.accumulation_steps, args.opt_level)
    run = Run(args, data, model)
    if args.pbar:
        ProgressBar(desc='Training', persist=False).attach(trainer, output_transform=lambda out: {'loss': out['loss']})
    trainer.add_event_handler(Events.EPOCH_STARTED, run.begin_epoch)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, run.log_iteration)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, run.end_epoch)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: scheduler.step())
    trainer.run(data.training_loader(training_transform(args)), max_epochs=args.epochs)
    return run.finish()


def seed_everything(seed: int, randomness: bool) -> None:
    """Seed Python, numpy and torch and choose repeatable GPU kernels; with `randomness` neither, but the fastest."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = not randomness, randomness
    if not randomness:
        random.seed(seed)
        np.random.seed(seed % 2 ** 32)
        torch.manual_seed(seed)


def training_transform(args):
    """The random part of preprocessing: PIL image -> uint8 tensor."""
    if not args.augmentation:
        return pil_to_tensor
    return augmentation(args.angle, (args.crop_size_h, args.crop_size_w), args.hflip_p)


class Run:
    """What happens around the training steps: logs, validation, the best epoch's checkpoint, the test at the end."""

    def __init__(self, args, data: Data, model: nn.Module):
        self.args, self.data, self.model, self.name = args, data, model, run_name(args)
        self.checkpoint_file = Path(args.trained_model_file or Path(args.checkpoint_dir, f'{self.name}.pth'))
        self.log_dir, self.split_hash = Path(args.log_dir, self.name), split_hash(data.names)
        self.best, self.best_epoch, self.losses, self.bhats = None, 0, [], []
        # their own generators: what is evaluated besides must not change the random draws of training
        self.loaders = {'train': data.evaluation_loader('train', torch.Generator()),
                        'val': data.evaluation_loader('val'),
                        'test': data.evaluation_loader('test', torch.Generator())}
        self._start_log()
        self.writer = SummaryWriter(str(self.log_dir))

    def _start_log(self) -> None:
        for old in self.log_dir.glob('events.out.tfevents.*'):
            old.unlink()
        write_text(self.log_dir / 'options.json', json.dumps(
            {'run_name': self.name, 'split_hash': self.split_hash, **trained_options(self.args)}, indent=2) + '\n')
        write_split(self.log_dir / 'split.csv', self.data.names)
        print(f'Run {self.name}\n' + ', '.join(f'{len(names)} {part}' for part, names in self.data.names.items())
              + f' images of {self.data.name}, on {self.args.device}{self._precision()}\n'
              f'Split {self.args.split_file or self.args.split}, hash {self.split_hash}: {self.log_dir / "split.csv"}')

    def _precision(self) -> str:
        level, dtype = self.args.opt_level, autocast_dtype(self.args.opt_level, self.args.device)
        notes = {'O1': ' (-optl O1 is float16, which needs a GPU)', 'O2': ' (-optl O2 means O1 here)',
                 'O3': ' (-optl O3 means O1 here)'}
        note = notes.get(level, '') if level != 'O1' or dtype is None else ''
        return f', in {"float32" if dtype is None else f"{dtype} autocast".removeprefix("torch.")}{note}'

    def begin_epoch(self, engine: Engine) -> None:
        """Forget the losses of the last epoch and start its clock."""
        self.losses, self.epoch_started = [], time.perf_counter()

    def log_iteration(self, engine: Engine) -> None:
        """Record the loss, and b-hat where asked; stop at a loss that is no number."""
        loss, iteration = engine.state.output['loss'], engine.state.iteration
        if not math.isfinite(loss):
            kept = (f'{self.checkpoint_file} holds epoch {self.best_epoch}' if self.best_epoch
                    else 'no epoch was finished')
            raise UserError(f'the loss is {loss} at iteration {iteration} (epoch {engine.state.epoch}): training is '
                            f'stopped, {kept}; a smaller --learning_rate or -optl O0 may help')
        self.losses.append(loss)
        self.writer.add_scalar('train/loss', loss, iteration)
        if self.args.log_bhat:
            *levels, final = engine.state.output['outputs']
            values = [bhat(head.float(), self.args.q).item() for head in (final, *levels)]
            self.bhats.append((iteration, engine.state.epoch, *values))
            for suffix, value in zip(SUFFIXES, values, strict=True):
                self.writer.add_scalar(f'train/bhat{suffix}', value, iteration)

    def end_epoch(self, engine: Engine) -> None:
        """Validate, log, and keep this epoch's weights where it is the best so far."""
        epoch, results = engine.state.epoch, self._evaluate_epoch()
        for part, performance in results.items():
            for metric, value in criteria_of(performance).items():
                self.writer.add_scalar(f'{part}/{self.data.name}/{metric}', value, epoch)
        criterion = results['val'][self.args.val_criterion]
        if improves(self.args.val_criterion, criterion, self.best):
            self.best, self.best_epoch = criterion, epoch
            self._save(results['val']['k'], results['val']['b'], epoch, {'val': criteria_of(results['val'])})
        if self.bhats:
            with replacing(self.log_dir / 'bhat.csv') as temporary:
                pd.DataFrame(self.bhats, columns=['iteration', 'epoch', *(f'bhat{suffix}' for suffix in SUFFIXES)]
                             ).to_csv(temporary, index=False)
        self.writer.flush()
        print(f'Epoch {epoch}/{self.args.epochs}  loss {np.mean(self.losses):.4f}  '
              f'val {self.args.val_criterion} {criterion:.4f}  best {self.best:.4f} (epoch {self.best_epoch})  '
              f'{time.perf_counter() - self.epoch_started:.1f} s', flush=True)

    def _evaluate_epoch(self) -> dict[str, dict]:
        """Validation with a line fitted on its own images; with --test_during_training all parts with train's line."""
        if not self.args.test_during_training:
            return {'val': self._evaluate('val', 'train')}
        train = self._evaluate('train', 'train')
        return {'train': train, **{part: self._evaluate(part, 'test', train['k'], train['b'])
                                   for part in ('val', 'test')}}

    def _evaluate(self, part: str, *status) -> dict:
        return evaluate(self.model, self.loaders[part], self.args.device, *status, pbar=part if self.args.pbar else '')

    def _save(self, k: list[float], b: list[float], epoch: int, metrics: dict) -> None:
        mos = self.data.datasets['train'].mos.flatten().sort().values
        preprocess = self.data.datasets['train'].preprocess
        IQAcheckpoint.save(self.checkpoint_file, {
            'model': self.model.state_dict(), 'k': k, 'b': b, 'options': trained_options(self.args),
            'dataset': self.data.name, 'split': self.data.names, 'split_hash': self.split_hash,
            'preprocessing': {'resize': preprocess.resize, 'first_resize': preprocess.first_resize},
            'mos': {'values': mos, 'min': mos[0].item(), 'max': mos[-1].item(), 'higher_is_better': True},
            'epoch': epoch, 'metrics': metrics})

    def finish(self) -> dict:
        """Take the best epoch's weights, fit k, b on the training images, test, and write what came out."""
        best = IQAcheckpoint.load(self.checkpoint_file)
        self.model.load_state_dict(best['model'])
        line = self._evaluate('train', 'train')
        performance = self._evaluate('test', 'test', line['k'], line['b'])
        self._save(line['k'], line['b'], best['epoch'],
                   {**best['metrics'], 'train': criteria_of(line), 'test': criteria_of(performance)})
        written = write_results(self.args.result_dir, self.name, self.data.names['test'], performance, {
            'run_name': self.name, 'dataset': self.data.name, 'trained_on': self.data.name, 'part': 'test',
            'split_hash': self.split_hash, 'best_epoch': best['epoch'], 'checkpoint': str(self.checkpoint_file),
            'options': trained_options(self.args), 'versions': IQAcheckpoint.versions()})
        self.writer.close()
        print(f'Best epoch {best["epoch"]}. On the {len(self.data.names["test"])} test images of {self.data.name}:\n'
              f'{table(performance)}\nTensorBoard log: {self.log_dir}\nCheckpoint: {self.checkpoint_file}\n'
              f'Predictions and metrics: {", ".join(map(str, written))}')
        return performance


def improves(criterion: str, value: float, best: float | None) -> bool:
    """Whether `value` is better than the best so far: smaller for RMSE, larger in magnitude for a correlation."""
    if best is None or math.isnan(best):
        return best is None or not math.isnan(value)
    return value < best if criterion.startswith('RMSE') else abs(value) > abs(best)


if __name__ == '__main__':
    main()
