"""Run a training: validations, files and messages around the steps, and the test at the end."""
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from torch.utils.data import DataLoader

from iqa_data.splits import split_hash
from iqa_networks.network import Network, scored_first
from iqa_networks.svd_layers import count_parameters
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint, versions
from iqa_runtime.distributed import any_process, broadcast_weights, gather, gather_objects, is_main
from iqa_runtime.errors import UserError
from iqa_training.card import write_card
from iqa_training.clock import Clock, in_words
from iqa_training.evaluation import Evaluation
from iqa_training.log import Log
from iqa_training.naming import card_file
from iqa_training.record import Record, name_printed, value_printed
from iqa_training.state import Skipping, gradients_of, random_states, restore, write_state
from IQAdataset import Data
from IQAloss import NotFiniteError, bhat
from IQAperformance import Performance, intervals, results_table, write_results
from modified_ignite_engine import limits_explained

MOST_SKIPPED = 10  # steps in a row without a finite gradient


@dataclass(frozen=True)
class Plan:
    """How long a run trains, when it validates, and what it keeps.

    Attributes:
        epochs: how many at most.
        val_every: iterations between validations; None: one after each epoch.
        val_criterion: name of the criterion of the best validation.
        everywhere: evaluate the training and test images at each validation too.
        bhat: the exponent q of the norm of the centred predictions that is logged; None: not logged.
        accumulation: batches in an optimizer step.
        keep: how many of the last states are kept.
        loggers: where scalars are logged (see iqa_training/loggers.py).
        pbar: show progress bars.
    """

    epochs: int
    val_every: int | None = None
    val_criterion: str = 'SROCC'
    everywhere: bool = False
    bhat: float | None = None
    accumulation: int = 1
    keep: int = 1
    loggers: tuple[str, ...] = ('tensorboard',)
    pbar: bool = False


class Run:
    """One training run.

    Args:
        name: of the run, and of its files.
        checkpoint, log_dir, result_dir: where its files lie.
        plan: see Plan.
        about: what the checkpoint says of the run: options, network, input, target, head ...
        model: the network that trains.
        data, evaluation, record: the images, their tests, and which test was the best. `evaluation.model`, which is
            tested and saved, is the network, or its average.
        trainer: the engine, `trainer.scaler` its gradient scaler or None.
        parts: what a state holds besides the model: {'optimizer', 'scheduler', 'scaler', 'ema'} with state dicts; 'ema'
            is the network's average (iqa_training/averaging.py).
        stop: `stop.signal` is the number of the signal that asks the run to stop, or None.
    """

    def __init__(self, name: str, checkpoint: Path, log_dir: Path, result_dir: Path, plan: Plan, about: dict,
                 model: Network, data: Data, evaluation: Evaluation, record: Record, trainer: Engine, parts: dict,
                 stop: SimpleNamespace):
        self.name, self.checkpoint, self.result_dir, self.plan = name, checkpoint, result_dir, plan
        self.about, self.data, self.evaluation, self.record = about, data, evaluation, record
        self.model, self.trainer, self.stop = model, trainer, stop
        self.parts = {part: value for part, value in parts.items() if value is not None}
        self.log, self.split_hash = Log(log_dir / name, plan.loggers), split_hash(data.names)
        self.iteration, self.skipped = 0, 0
        self._attach(trainer)

    def _attach(self, trainer: Engine) -> None:
        """Attach the handlers: weights are averaged before a validation, which is before the learning rate is set.

        The state is written last.
        """
        if self.plan.pbar and is_main():
            bar = ProgressBar(desc='Training', persist=False)
            bar.attach(trainer, output_transform=lambda output: {'loss': output['loss'], 'run ends in': self.left()})
        trainer.add_event_handler(Events.EPOCH_STARTED, self.begin_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.log_loss)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.watch_scale)
        if 'ema' in self.parts:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(every=self.plan.accumulation), self.average)
        if self.plan.val_every:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(every=self.plan.val_every), self.validate)
            trainer.add_event_handler(Events.COMPLETED, self.validate_the_rest)
        else:
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        schedule = self.parts['scheduler']
        event = Events.ITERATION_COMPLETED if schedule.unit == 'iteration' else Events.EPOCH_COMPLETED
        trainer.add_event_handler(event, lambda: schedule.step())
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.leave_if_asked)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.keep_state)

    # The whole run

    def train(self, loader: DataLoader, state: dict | None = None) -> Performance | None:
        """Train, from a state or from the beginning, and test; return the performance of the best weights."""
        total, self.order = self.plan.epochs * len(loader), loader.generator
        if total < self.plan.accumulation:
            raise UserError(f'--accumulation_steps {self.plan.accumulation}: the run has {total} iterations, so that '
                            'no step would be done')
        if state:
            if state['iteration'] > total:
                raise UserError(f'--resume {state["path"]}: iteration {state["iteration"]} of a run of {total}')
            print(f'Resuming {state["path"]}: {state["iteration"]} of {total} iterations are done')
            self.resume(state)
            self.trainer.load_state_dict({'epoch_length': len(loader), 'max_epochs': self.plan.epochs,
                                          'iteration': self.iteration})
            loader = Skipping(loader, self.iteration % len(loader))
        options = {'run_name': self.name, 'split_hash': self.split_hash, **self.about['options']}
        with self.log.open(options, self.data.names):
            if self.iteration < total and not self.record.exhausted:
                self.clock = Clock(total, self.iteration)
                self._run(loader)
            return self.finish()

    def _run(self, loader) -> None:
        try:
            with limits_explained(self.trainer, self.model):
                self.trainer.run(loader, max_epochs=self.plan.epochs)
        except NotFiniteError as error:
            self.iteration = self.trainer.state.iteration
            raise self._broken(str(error)) from None

    def resume(self, state: dict) -> None:
        """Restore the run from a state; UserError if the images are no longer split as they were."""
        if state['split_hash'] != self.split_hash:
            raise UserError(f'--resume {state["path"]}: the run had another split (hash {state["split_hash"]}, now '
                            f'{self.split_hash}): the info file or the split file was changed')
        restore(self.model, self.parts, self.order, state)
        self.iteration, self.log.history = state['iteration'], state['history']
        self.record.restore(state['record'])

    # The handlers

    def begin_epoch(self, engine: Engine) -> None:
        """Keep what the order of images comes from, and the loss's scale; start the clock."""
        self.epoch_order, self.epoch_started = self.order.get_state(), time.perf_counter()
        self.scale = engine.scaler.get_scale() if engine.scaler else 1

    def log_loss(self, engine: Engine) -> None:
        """Log the loss, each loss of a sum, and b-hat if asked; stop at a loss that is not finite."""
        loss, self.iteration = engine.state.output['loss'], engine.state.iteration
        if not math.isfinite(loss):
            raise self._broken(f'the loss is {loss}')
        self.log.scalar('train/loss', loss, self.iteration)
        for name, value in engine.state.output['parts'].items():
            self.log.scalar(f'train/loss/{name}', value, self.iteration)
        if self.plan.bhat is not None:
            heads = [gather(head.float()) for head in engine.state.output['outputs']]
            for i, head in enumerate(scored_first(heads)):
                self.log.scalar(f'train/bhat{i or ""}', bhat(head, self.plan.bhat).item(), self.iteration)

    def _broken(self, what: str) -> UserError:
        kept = f'{self.checkpoint} holds epoch {self.record.epoch}' if self.record.epoch else 'no epoch is done'
        return UserError(f'{what} at iteration {self.iteration} (epoch {self.trainer.state.epoch}): training is '
                         f'stopped, {kept}; a smaller --learning_rate or -optl O0 may help')

    def watch_scale(self, engine: Engine) -> None:
        """Count the steps that were skipped for infinite gradients, after which the scale of the loss is smaller."""
        if not engine.scaler or self.iteration % self.plan.accumulation:
            return
        scale = engine.scaler.get_scale()
        self.skipped = self.skipped + 1 if scale < self.scale else 0
        self.scale = scale
        if self.skipped:
            self.log.scalar('train/skipped', self.skipped, self.iteration)
            print(f'Iteration {self.iteration}: the gradient is infinite or NaN, its step is skipped', flush=True)
        if self.skipped >= MOST_SKIPPED:
            raise UserError(f'{MOST_SKIPPED} steps in a row were skipped for infinite gradients (iteration '
                            f'{self.iteration}): -optl bf16 or O0, or a smaller --learning_rate, may help')

    def average(self, engine: Engine) -> None:
        """Take the weights after an optimizer step into their average."""
        self.parts['ema'].update_parameters(self.model)

    def validate(self, engine: Engine) -> None:
        """Validate, log, and keep these weights if they are the best so far; end the run if its patience is over."""
        step, epoch = (self.iteration if self.plan.val_every else engine.state.epoch), engine.state.epoch
        results = self.evaluation.all_parts() if self.plan.everywhere else self.evaluation.validate()
        for part, performance in results.items():
            for metric, value in performance.criteria.items():
                self.log.scalar(f'{part}/{self.data.name}/{metric}', value, step)
        val = results['val']
        warn_of_constant(val.heads[0].raw, 'val')
        if self.record.update(val.criteria, self.iteration, epoch):
            self.save(val.k, val.b, epoch, {'val': val.criteria}, finished=False)
        self._tell(engine, val)
        if self.record.exhausted:
            print(f'No better validation in {self.record.since} (--patience): training ends', flush=True)
            engine.terminate()

    def validate_the_rest(self, engine: Engine) -> None:
        """Validate after the last iteration, if --val_every did not."""
        if self.iteration % self.plan.val_every and not self.record.exhausted:
            self.validate(engine)

    def _tell(self, engine: Engine, val: Performance) -> None:
        epoch, length = engine.state.epoch, engine.state.epoch_length
        loss = np.mean(self.log.values('train/loss', min(length, self.iteration)))
        place = f'Epoch {epoch}/{self.plan.epochs}' + (f' iteration {self.iteration}' if self.plan.val_every else '')
        name = self.plan.val_criterion
        value, best = (value_printed(name, value) for value in (self.record.criterion(val.criteria), self.record.best))
        left = f', {self.left()} left' if self.iteration < self.clock.total else ''
        print(f'{place}  loss {loss:.4f}  val {name_printed(name)} {value}  best {best} (epoch {self.record.epoch})  '
              f'{time.perf_counter() - self.epoch_started:.1f} s{left}', flush=True)

    def left(self) -> str:
        """Return the time that the run still takes, in words."""
        return in_words(self.clock.left(self.trainer.state.iteration))

    def keep_state(self, engine: Engine) -> None:
        """Write the state after an epoch, once the learning rate is set for the next one; leave if a signal asks.

        The state comes last: an epoch that it holds is not run again, and what the epoch leaves must be there by then.
        """
        self.log.flush()
        self.log.write_bhat(engine.state.epoch_length)
        self.save_state(self.order.get_state())
        if any_process(self.stop.signal is not None):
            self._leave()

    def leave_if_asked(self, engine: Engine) -> None:
        """Write the state in the middle of an epoch and end the process, if a signal asks for it."""
        last = self.iteration % engine.state.epoch_length == 0  # keep_state follows
        if not last and any_process(self.stop.signal is not None):
            self.save_state(self.epoch_order)
            self._leave()

    def _leave(self) -> None:
        """End the process as the signal asks, saying how to go on."""
        print(f'Stopped after iteration {self.iteration}; the same command with --resume auto goes on from there',
              flush=True)
        raise SystemExit(128 + (self.stop.signal or 15))

    # Files

    def save(self, k: list[float], b: list[float], epoch: int, metrics: dict, finished: bool) -> None:
        """Write the checkpoint with the weights of now, or their average."""
        if is_main():
            save_checkpoint(self.checkpoint, self.content(k, b, epoch, metrics, finished))

    def content(self, k: list[float], b: list[float], epoch: int, metrics: dict, finished: bool) -> dict:
        """Return what the checkpoint holds."""
        mos = self.data.datasets['train'].mos.flatten().sort().values
        return {
            **self.about, 'model': self.evaluation.model.state_dict(), 'k': k, 'b': b, 'dataset': self.data.name,
            'split': self.data.names, 'split_hash': self.split_hash, 'target': asdict(self.data.target),
            'mos': {'values': mos, 'min': mos[0].item(), 'max': mos[-1].item(),
                    'higher_is_better': self.data.higher_is_better},
            'epoch': epoch, 'metrics': metrics, 'finished': finished}

    def save_state(self, order: torch.Tensor) -> None:
        """Write the state of this iteration; `order` is that of the order's generator when its epoch began."""
        random = gather_objects(random_states())
        if not is_main():
            return
        waiting = self.iteration % self.plan.accumulation
        history = {tag: torch.tensor(rows, dtype=torch.float64) for tag, rows in self.log.history.items()}
        write_state(self.checkpoint, {
            'options': self.about['options'], 'split_hash': self.split_hash, 'iteration': self.iteration,
            'model': self.model.state_dict(), **{name: part.state_dict() for name, part in self.parts.items()},
            'gradients': gradients_of(self.model) if waiting else {}, 'order': order,
            'random': random, 'record': self.record.state(), 'history': history}, self.plan.keep)

    def finish(self) -> Performance | None:
        """Take the best weights, fit k, b on the training images, test, and write the results and the model card.

        The checkpoint is written last: it then says that the run is finished. Returns the performance on the tested
        part; None if there is none.
        """
        best = load_checkpoint(self.checkpoint) if is_main() else {}
        if is_main():
            self.evaluation.model.load_state_dict(best['model'])
        broadcast_weights(self.evaluation.model)
        line = self.evaluation.of('train', self.evaluation.line)
        part = self.data.tested
        performance = self.evaluation.of(part, (line.k, line.b)) if part else None
        if part:
            warn_of_constant(performance.heads[0].raw, part)
        if is_main():
            written = self._write_results(performance, best) if part else []
            self.log.flush()
            metrics = {**best['metrics'], 'train': line.criteria}
            if part:
                metrics[part] = performance.criteria
            content = self.content(line.k, line.b, best['epoch'], metrics, finished=True)
            if part:
                content['intervals'] = {part: intervals(performance.pq, performance.sq)}
            write_card(self.checkpoint, content)
            save_checkpoint(self.checkpoint, content)
            self._tell_the_end(best['epoch'], performance, written)
        return performance

    def _write_results(self, performance: Performance, best: dict) -> list[Path]:
        return write_results(self.result_dir, self.name, self.data.names[self.data.tested], performance, {
            'run_name': self.name, 'dataset': self.data.name, 'trained_on': self.data.name, 'part': self.data.tested,
            'split_hash': self.split_hash, 'best_epoch': best['epoch'], 'checkpoint': str(self.checkpoint),
            'options': self.about['options'], 'parameters': count_parameters(self.model), 'versions': versions()})

    def _tell_the_end(self, epoch: int, performance: Performance | None, written: list[Path]) -> None:
        heads = scored_first(self.model.heads, self.evaluation.head)
        tested = 'There is no test part.'
        if performance:
            tested = (f'On the {len(performance)} {self.data.tested} images of {self.data.name}:\n'
                      f'{results_table(performance, heads)}')
        print(f'Best epoch {epoch}. {tested}\n{self.log.title} log: {self.log.folder}\nCheckpoint: {self.checkpoint}\n'
              f'Model card: {card_file(self.checkpoint)}'
              + (f'\nPredictions and metrics: {", ".join(map(str, written))}' if written else ''))


def warn_of_constant(raw: np.ndarray, part: str) -> None:
    """Warn on the screen if the network predicts the same for all images of a part, but for rounding in float32."""
    if len(raw) > 1 and np.ptp(raw) <= 4 * np.finfo(np.float32).eps * np.abs(raw).max():
        print(f'WARNING: the network predicts {raw[0]:g} for all {len(raw)} {part} images: it tells them apart no '
              'longer, as after too large steps; a smaller --learning_rate may help', flush=True)
