"""What happens around the training steps: logs, validation, the best epoch's checkpoint, resuming, the test at the end.

Beside the checkpoint NAME.pth, a run keeps NAME.ITERATION.state, from which it goes on when it was stopped: the last
finished epoch's, or the iteration's at which it was asked to stop. It holds tensors and plain Python values only:

    options                     every option of training, by name
    split_hash                  of the split that it trains with
    iteration                   how many are done
    model, optimizer, scheduler, scaler     their state dicts
    random                      the states of all random number generators, when the unfinished epoch began
    best, best_epoch            the criterion of the best epoch so far
    history                     tag -> (n, 3) float64: step, value, time of every scalar in the TensorBoard log
"""
import glob
import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from iqa_data.splits import split_hash, write_split
from iqa_runtime.checkpoint import load_checkpoint, read_tensors, save_checkpoint, versions, write_tensors
from iqa_runtime.distributed import any_process, broadcast_weights, gather, is_main
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing, write_text
from IQAdataset import Data
from IQAloss import bhat
from IQAoptions import run_name, trained_options
from IQAperformance import SUFFIXES, criteria_of, table, write_results
from modified_ignite_engine import evaluate

MOST_SKIPPED = 10  # steps in a row without a finite gradient


class Run:
    """The handlers of one training run, and what they keep."""

    def __init__(self, args, data: Data, model: nn.Module, parts: dict, stop):
        """`parts`: what a state holds besides the model: {'optimizer', 'scheduler', 'scaler'} with state dicts.

        `stop.signal` is the number of the signal that asks the run to stop, or None.
        """
        self.args, self.data, self.model, self.name, self.stop = args, data, model, run_name(args), stop
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.checkpoint_file = checkpoint_file(args)
        self.log_dir, self.split_hash = Path(args.log_dir, self.name), split_hash(data.names)
        self.best, self.best_epoch, self.iteration, self.states = None, 0, 0, []
        self.skipped = 0
        self.history: dict[str, list] = {}
        self.writer: SummaryWriter | None = None
        # their own generators: what is evaluated besides must not change the random draws of training
        self.loaders = {'train': data.evaluation_loader('train', torch.Generator()),
                        'val': data.evaluation_loader('val'),
                        'test': data.evaluation_loader('test', torch.Generator())}

    # Before the first step

    def resume(self, state: dict) -> None:
        """Take everything back from a state; UserError where the images are no longer split as they were."""
        if state['split_hash'] != self.split_hash:
            raise UserError(f'--resume {state["path"]}: the run had another split (hash {state["split_hash"]}, now '
                            f'{self.split_hash}): the info file or the split file was changed')
        self.model.load_state_dict(state['model'])
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.best, self.best_epoch, self.iteration = state['best'], state['best_epoch'], state['iteration']
        self.history = {tag: rows.tolist() for tag, rows in state['history'].items()}
        set_random_states(state['random'])

    @contextmanager
    def log(self) -> Iterator[None]:
        """Within, the TensorBoard log is open; a resumed run's is written anew from its state: no step is doubled."""
        if is_main():
            self._open_log()
        try:
            yield
        finally:
            if self.writer:
                self.writer.close()

    def _open_log(self) -> None:
        for old in self.log_dir.glob('events.out.tfevents.*'):
            old.unlink()
        options = {'run_name': self.name, 'split_hash': self.split_hash, **trained_options(self.args)}
        write_text(self.log_dir / 'options.json', json.dumps(options, indent=2) + '\n')
        write_split(self.log_dir / 'split.csv', self.data.names)
        self.writer = SummaryWriter(str(self.log_dir))
        for tag, rows in self.history.items():
            for step, value, seconds in rows:
                self.writer.add_scalar(tag, value, int(step), seconds)

    def record(self, tag: str, value: float, step: int) -> None:
        """Log a scalar, and keep it for the state."""
        now = time.time()
        self.history.setdefault(tag, []).append([step, value, now])
        if self.writer:
            self.writer.add_scalar(tag, value, step, now)

    # The handlers

    def begin_epoch(self, engine: Engine) -> None:
        """Keep the random states that this epoch's order of images comes from and the loss's scale; start the clock."""
        self.random, self.epoch_started = random_states(), time.perf_counter()
        self.scale = engine.scaler.get_scale() if engine.scaler else 1

    def end_iteration(self, engine: Engine) -> None:
        """Record the loss, and b-hat where asked; stop at a loss that is no number, or where a signal asks for it."""
        loss, self.iteration = engine.state.output['loss'], engine.state.iteration
        if not math.isfinite(loss):
            kept = f'{self.checkpoint_file} holds epoch {self.best_epoch}' if self.best_epoch else 'no epoch is done'
            raise UserError(f'the loss is {loss} at iteration {self.iteration} (epoch {engine.state.epoch}): '
                            f'training is stopped, {kept}; a smaller --learning_rate or -optl O0 may help')
        self.record('train/loss', loss, self.iteration)
        if self.args.log_bhat:
            *levels, final = (gather(head.float()) for head in engine.state.output['outputs'])
            for suffix, head in zip(SUFFIXES, (final, *levels), strict=True):
                self.record(f'train/bhat{suffix}', bhat(head, self.args.q).item(), self.iteration)
        if self.iteration % self.args.accumulation_steps:
            return  # the gradient is not whole
        if engine.scaler:
            self._watch_scale(engine.scaler.get_scale())
        if self.iteration % engine.state.epoch_length and any_process(self.stop.signal is not None):
            self._save_state(self.random)
            self._leave()

    def _watch_scale(self, scale: float) -> None:
        """Count the steps that were skipped for infinite gradients, after which the scale of the loss is smaller."""
        self.skipped = self.skipped + 1 if scale < self.scale else 0
        self.scale = scale
        if self.skipped:
            self.record('train/skipped', self.skipped, self.iteration)
            print(f'Iteration {self.iteration}: the gradient is infinite or no number, its step is skipped', flush=True)
        if self.skipped >= MOST_SKIPPED:
            raise UserError(f'{MOST_SKIPPED} steps in a row were skipped for infinite gradients (iteration '
                            f'{self.iteration}): -optl bf16 or O0, or a smaller --learning_rate, may help')

    def end_epoch(self, engine: Engine) -> None:
        """Validate, log, keep this epoch's weights where it is the best so far, and the state to go on from."""
        epoch, results = engine.state.epoch, self._evaluate_epoch()
        for part, performance in results.items():
            for metric, value in criteria_of(performance).items():
                self.record(f'{part}/{self.data.name}/{metric}', value, epoch)
        criterion = results['val'][self.args.val_criterion]
        if improves(self.args.val_criterion, criterion, self.best):
            self.best, self.best_epoch = criterion, epoch
            self._save(results['val']['k'], results['val']['b'], epoch, {'val': criteria_of(results['val'])})
        losses = [value for _, value, _ in self.history['train/loss'][-engine.state.epoch_length:]]
        print(f'Epoch {epoch}/{self.args.epochs}  loss {np.mean(losses):.4f}  '
              f'val {self.args.val_criterion} {criterion:.4f}  best {self.best:.4f} (epoch {self.best_epoch})  '
              f'{time.perf_counter() - self.epoch_started:.1f} s', flush=True)

    def keep_state(self, engine: Engine) -> None:
        """Write the state after an epoch, once the learning rate is set for the next one; leave if a signal asks."""
        if self.writer:
            self.writer.flush()
        self._write_bhat(engine.state.epoch_length)
        self._save_state(random_states())
        if any_process(self.stop.signal is not None):
            self._leave()

    # What they do

    def _evaluate_epoch(self) -> dict[str, dict]:
        """Validation with a line fitted on its own images; with --test_during_training all parts with train's line."""
        broadcast_weights(self.model)  # of the processes' own running statistics, rank 0's count
        if not self.args.test_during_training:
            return {'val': self._evaluate('val', 'train')}
        train = self._evaluate('train', 'train')
        return {'train': train, **{part: self._evaluate(part, 'test', train['k'], train['b'])
                                   for part in ('val', 'test')}}

    def _evaluate(self, part: str, *status) -> dict:
        pbar = part if self.args.pbar and is_main() else ''
        return evaluate(self.model, self.loaders[part], self.args.device, *status, pbar=pbar)

    def _save(self, k: list[float], b: list[float], epoch: int, metrics: dict) -> None:
        if not is_main():
            return
        mos = self.data.datasets['train'].mos.flatten().sort().values
        save_checkpoint(self.checkpoint_file, {
            'model': self.model.state_dict(), 'k': k, 'b': b, 'options': trained_options(self.args),
            'dataset': self.data.name, 'split': self.data.names, 'split_hash': self.split_hash,
            'preprocessing': asdict(self.data.preprocess),
            'mos': {'values': mos, 'min': mos[0].item(), 'max': mos[-1].item(),
                    'higher_is_better': self.data.higher_is_better},
            'epoch': epoch, 'metrics': metrics})

    def _save_state(self, random_: dict) -> None:
        """Write the state of this iteration; then remove all but the last --keep of this run, and a former run's."""
        if not is_main():
            return
        file = self.checkpoint_file.with_name(f'{self.checkpoint_file.stem}.{self.iteration:08d}.state')
        write_tensors(file, {
            'options': trained_options(self.args), 'split_hash': self.split_hash, 'iteration': self.iteration,
            'model': self.model.state_dict(),
            **{name: part.state_dict() for name, part in self.parts.items()}, 'random': random_,
            'best': self.best, 'best_epoch': self.best_epoch,
            'history': {tag: torch.tensor(rows, dtype=torch.float64) for tag, rows in self.history.items()}})
        self.states.append(file)
        for other in set(states_of(self.checkpoint_file)) - set(self.states[-self.args.keep:]):
            other.unlink()

    def _write_bhat(self, epoch_length: int) -> None:
        if not self.args.log_bhat or not is_main():
            return
        heads = {f'bhat{suffix}': self.history[f'train/bhat{suffix}'] for suffix in SUFFIXES}
        bhats = pd.DataFrame({'iteration': [int(step) for step, _, _ in heads['bhat']],
                              **{name: [value for _, value, _ in rows] for name, rows in heads.items()}})
        bhats.insert(1, 'epoch', (bhats['iteration'] - 1) // epoch_length + 1)
        with replacing(self.log_dir / 'bhat.csv') as temporary:
            bhats.to_csv(temporary, index=False)

    def _leave(self) -> None:
        """End the process as the signal asks, saying how to go on."""
        print(f'Stopped after iteration {self.iteration}; the same command with --resume auto goes on from there',
              flush=True)
        raise SystemExit(128 + (self.stop.signal or 15))

    def finish(self) -> dict:
        """Take the best epoch's weights, fit k, b on the training images, test, and write what came out.

        The checkpoint is written last: where it holds the test's metrics, the run is finished.
        """
        best = load_checkpoint(self.checkpoint_file) if is_main() else {}
        if is_main():
            self.model.load_state_dict(best['model'])
        broadcast_weights(self.model)
        line = self._evaluate('train', 'train')
        performance = self._evaluate('test', 'test', line['k'], line['b'])
        if is_main():
            written = write_results(self.args.result_dir, self.name, self.data.names['test'], performance, {
                'run_name': self.name, 'dataset': self.data.name, 'trained_on': self.data.name, 'part': 'test',
                'split_hash': self.split_hash, 'best_epoch': best['epoch'], 'checkpoint': str(self.checkpoint_file),
                'options': trained_options(self.args), 'versions': versions()})
            self.writer.flush()
            self._save(line['k'], line['b'], best['epoch'], {
                **best['metrics'], 'train': criteria_of(line), 'test': criteria_of(performance)})
            print(f'Best epoch {best["epoch"]}. On the {len(self.data.names["test"])} test images of {self.data.name}:'
                  f'\n{table(performance)}\nTensorBoard log: {self.log_dir}\nCheckpoint: {self.checkpoint_file}\n'
                  f'Predictions and metrics: {", ".join(map(str, written))}')
        return performance


def improves(criterion: str, value: float, best: float | None) -> bool:
    """Whether `value` is better than the best so far: smaller for RMSE, larger in magnitude for a correlation."""
    if best is None or math.isnan(best):
        return best is None or not math.isnan(value)
    return value < best if criterion.startswith('RMSE') else abs(value) > abs(best)


def checkpoint_file(args) -> Path:
    """Where the run's checkpoint lies."""
    return Path(args.trained_model_file or Path(args.checkpoint_dir, f'{run_name(args)}.pth'))


def states_of(file: Path) -> list[Path]:
    """The states beside a checkpoint file, the latest last."""
    return sorted(file.parent.glob(f'{glob.escape(file.stem)}.*.state'))


def find_state(args) -> dict | None:
    """The state that --resume names, or with 'auto' the latest of this run, if any; {} where the run is finished.

    Raises UserError where the state is of a run with other options, which it lists.
    """
    file, path = checkpoint_file(args), args.resume
    if path == 'auto':
        if file.exists() and 'test' in load_checkpoint(file).get('metrics', {}):
            return {}
        states = states_of(file)
        if not states:
            return None
        path = states[-1]
    state = read_tensors(path)
    if not isinstance(state, dict) or 'iteration' not in state:
        raise UserError(f'--resume {path}: not the state of a run (checkpoints/NAME.ITERATION.state)')
    options = trained_options(args)
    others = [f'--{name} {options.get(name)} (was {state["options"].get(name)})'
              for name in sorted({*options, *state['options']}) if options.get(name) != state['options'].get(name)]
    if others:
        raise UserError(f'--resume {path}: the run had other options: {", ".join(others)}')
    return {'path': str(path), **state}


class Skipping:
    """A loader whose first epoch begins after `count` batches, which are drawn and thrown away."""

    def __init__(self, loader: DataLoader, count: int):
        self.loader, self.count = loader, count

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):
        batches = iter(self.loader)
        for _ in range(self.count):
            next(batches)
        self.count = 0
        return batches


def random_states() -> dict:
    """The states of Python's, numpy's and torch's generators, as tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {'python': [version, list(internal), gauss], 'numpy': [name, keys.tolist(), *rest],
            'torch': torch.get_rng_state(), 'cuda': torch.cuda.get_rng_state_all()}


def set_random_states(states: dict) -> None:
    """Put all generators back to what `random_states` returned; a GPU that is not there any more is left out."""
    version, internal, gauss = states['python']
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states['numpy']))
    torch.set_rng_state(states['torch'])
    for i, state in enumerate(states['cuda'][:torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, i)
