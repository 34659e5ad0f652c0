"""Run a training: validations, messages and states around the steps, and the test at the end."""
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from torch.utils.data import DataLoader

from iqa_networks.network import Network, scored_first
from iqa_results.write import results_table
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.distributed import any_process, broadcast_weights, gather, is_main
from iqa_runtime.errors import UserError
from iqa_training.evaluation import Evaluation, Performances, lines_of
from iqa_training.log import Log
from iqa_training.record import Record, name_printed, value_printed
from iqa_training.state import Skipping, remove_states, restore_run
from iqa_training.writer import RunParts, RunWriter
from IQAloss import NotFiniteError, bhat
from modified_ignite_engine import batch_of, limits_explained

MOST_SKIPPED = 10  # consecutive steps without a finite gradient


@dataclass(frozen=True)
class RunPlan:
    """How long a run trains, when it validates, and what it keeps.

    Attributes:
        epochs: largest number of epochs.
        val_every: iterations between validations; None: one after each epoch.
        val_criterion: name of the criterion of the best validation.
        everywhere: evaluate the training and test images at each validation too.
        bhat: exponent q of the norm of the centred predictions that is logged; None: none is.
        accumulation: batches in an optimizer step.
        keep: number of latest states to keep; None: one while the run trains, none when it is finished.
        loggers: where scalars are logged (see iqa_training/loggers.py).
        pbar: show progress bars.
    """

    epochs: int
    val_every: int | None = None
    val_criterion: str = 'SROCC'
    everywhere: bool = False
    bhat: float | None = None
    accumulation: int = 1
    keep: int | None = None
    loggers: tuple[str, ...] = ('tensorboard',)
    pbar: bool = False


class Run:
    """One training run: the handlers around the steps, and the test at the end.

    Args:
        model: the network that trains.
        trainer: the engine, `trainer.scaler` its gradient scaler or None.
        parts: the optimizer, its schedule, the gradient scaler and the average of the weights.
        evaluation: evaluates on the images. `evaluation.model`, which is tested and saved, is the network or its
            average.
        record: the best validation so far.
        writer: writes the files.
        plan: see RunPlan.
        stop: `stop.signal` is the number of the signal that asks the run to stop, or None.
    """

    def __init__(self, model: Network, trainer: Engine, parts: RunParts, evaluation: Evaluation, record: Record,
                 writer: RunWriter, plan: RunPlan, stop: SimpleNamespace):
        self.model, self.trainer, self.parts, self.evaluation = model, trainer, parts, evaluation
        self.record, self.writer, self.plan, self.stop = record, writer, plan, stop
        self.data, self.files, self.log = evaluation.data, writer.files, Log(writer.files.log, plan.loggers)
        self.iteration, self.skipped, self.scale = 0, 0, 1.
        self.clock: Clock | None = None               # of `train`
        self.order: torch.Generator | None = None     # of the images
        self.epoch_order, self.epoch_started = None, 0.  # the order's state and the time when the epoch began
        self._attach(trainer)

    def _attach(self, trainer: Engine) -> None:
        """Attach the handlers in this order: average the weights, validate, set the learning rate, write the state."""
        if self.plan.pbar and is_main():
            bar = ProgressBar(desc='Training', persist=False)
            bar.attach(trainer, output_transform=lambda output: {'loss': output['loss'], 'run ends in': self.left()})
        trainer.add_event_handler(Events.EPOCH_STARTED, self.begin_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.log_loss)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.watch_scale)
        if self.parts.ema is not None:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(every=self.plan.accumulation), self.average)
        if self.plan.val_every:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(every=self.plan.val_every), self.validate)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate_the_rest)
        else:
            trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        schedule = self.parts.scheduler
        event = Events.ITERATION_COMPLETED if schedule.unit == 'iteration' else Events.EPOCH_COMPLETED
        trainer.add_event_handler(event, lambda: schedule.step())
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.leave_if_asked)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.keep_state)

    # The whole run

    def train(self, loader: DataLoader, state: dict | None = None) -> Performances:
        """Train, from a state or from the beginning, and test; return the performances of the best weights."""
        total, self.order = self.plan.epochs * len(loader), loader.generator
        if total < self.plan.accumulation:
            raise UserError(f'--accumulation_steps {self.plan.accumulation}: the run has {total} iterations, too few '
                            'for one step')
        if state:
            if state['iteration'] > total:
                raise UserError(f'--resume {state["path"]}: iteration {state["iteration"]} of a run of {total}')
            print(f'Resuming {state["path"]}: {state["iteration"]} of {total} iterations are done')
            self.resume(state)
            self.trainer.load_state_dict({'epoch_length': len(loader), 'max_epochs': self.plan.epochs,
                                          'iteration': self.iteration})
            loader = Skipping(loader, self.iteration % len(loader))
        with self.log.open(self.writer.options(), self.data.names):
            if self.iteration < total and not self.record.exhausted:
                self.clock = Clock(total, self.iteration)
                self._run(loader)
            return self.finish()

    def _run(self, loader) -> None:
        try:
            with limits_explained(self.model, lambda: batch_of(self.trainer, self.model)):
                self.trainer.run(loader, max_epochs=self.plan.epochs)
        except NotFiniteError as error:
            self.iteration = self.trainer.state.iteration
            raise self._broken(str(error)) from None

    def resume(self, state: dict) -> None:
        """Restore the run from a state; raise UserError if the split of the images has changed."""
        if state['split_hash'] != self.writer.split_hash:
            raise UserError(f'--resume {state["path"]}: the run had another split (hash {state["split_hash"]}, now '
                            f'{self.writer.split_hash}): the info file or the split file was changed')
        restore_run(self.model, self.parts.named(), self.order, state)
        self.iteration, self.log.history = state['iteration'], state['history']
        self.record.restore(state['record'])

    # The handlers

    def begin_epoch(self, engine: Engine) -> None:
        """Keep the state of the order's generator and the scale of the loss; start timing the epoch."""
        self.epoch_order, self.epoch_started = self.order.get_state(), time.perf_counter()
        self.scale = engine.scaler.get_scale() if engine.scaler else 1

    def log_loss(self, engine: Engine) -> None:
        """Log the loss, each term of a sum, and b-hat if asked; raise UserError if the loss is not finite."""
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
        kept = f'{self.files.checkpoint} holds epoch {self.record.epoch}' if self.record.epoch else 'no epoch is done'
        return UserError(f'{what} at iteration {self.iteration} (epoch {self.trainer.state.epoch}): training is '
                         f'stopped, {kept}; a smaller --learning_rate or -optl O0 may help')

    def watch_scale(self, engine: Engine) -> None:
        """Count the steps in a row that were skipped for infinite gradients, each of which lowers the loss scale."""
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
        """Update the average of the weights after an optimizer step."""
        self.parts.ema.update_parameters(self.model)

    def validate(self, engine: Engine) -> None:
        """Validate, log, and save the weights if they are the best so far; end the run if its patience is exhausted."""
        step, epoch = (self.iteration if self.plan.val_every else engine.state.epoch), engine.state.epoch
        results = self.evaluation.all_parts() if self.plan.everywhere else self.evaluation.validate()
        for part, performances in results.items():
            for name, performance in performances.items():
                for metric, value in performance.criteria.items():
                    self.log.scalar(f'{part}/{name}/{metric}', value, step)
        val = results['val']
        for performance in val.values():
            warn_of_constant(performance.heads[0].raw, 'val')
        if self.record.update(val, self.iteration, epoch):
            self.writer.checkpoint(val, epoch)
        self._print_epoch(engine, val)
        if self.record.exhausted:
            print(f'No improvement in {self.record.since} validations (--patience): training ends', flush=True)
            engine.terminate()

    def validate_the_rest(self, engine: Engine) -> None:
        """Validate after the last epoch, if --val_every did not: a run that resumes from its state only tests."""
        ended = engine.state.epoch == engine.state.max_epochs and not self.record.exhausted
        if ended and self.iteration % self.plan.val_every:
            self.validate(engine)

    def _print_epoch(self, engine: Engine, val: Performances) -> None:
        epoch, length = engine.state.epoch, engine.state.epoch_length
        loss = np.mean(self.log.values('train/loss', min(length, self.iteration)))
        place = f'Epoch {epoch}/{self.plan.epochs}' + (f' iteration {self.iteration}' if self.plan.val_every else '')
        name = self.plan.val_criterion
        value, best = (value_printed(name, value) for value in (self.record.criterion(val), self.record.best))
        left = f', {self.left()} left' if self.iteration < self.clock.total else ''
        rate = max(one['lr'] for one in self.parts.optimizer.param_groups)
        print(f'{place}  lr {rate:.3g}  loss {loss:.4f}  val {name_printed(name)} {value}  best {best} '
              f'(epoch {self.record.epoch})  {time.perf_counter() - self.epoch_started:.1f} s{left}', flush=True)

    def left(self) -> str:
        """Return the remaining time of the run as text."""
        return duration_in_words(self.clock.left(self.trainer.state.iteration))

    def keep_state(self, engine: Engine) -> None:
        """Write the state after an epoch, once the learning rate is set for the next one; stop if a signal asks for it.

        The state comes last: an epoch that it includes is not run again, so its other files must be written before.
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
        """Print how to resume, and end the process with the status of the signal."""
        print(f'Stopped after iteration {self.iteration}; the same command with --resume auto continues from there',
              flush=True)
        raise SystemExit(128 + (self.stop.signal or 15))

    def save_state(self, order: torch.Tensor) -> None:
        """Write the state of this iteration; `order`: the state of the order's generator when the epoch began."""
        waiting = self.iteration % self.plan.accumulation > 0
        self.writer.state(self.parts, self.record, self.log, iteration=self.iteration, order=order,
                          waiting=waiting, keep=self.plan.keep or 1)

    # The end

    def finish(self) -> Performances:
        """Load the best weights, fit k, b on the training images, test, and write the results.

        Returns the performance on the tested part of each data set that has one.
        """
        best = load_checkpoint(self.files.checkpoint) if is_main() else {}
        if is_main():
            self.evaluation.model.load_state_dict(best['model'])
        broadcast_weights(self.evaluation.model)
        train = self.evaluation.of('train', self.evaluation.lines)
        tested = self.evaluation.tested(lines_of(train))
        for one in (one for one in self.data.sets if one.tested):
            warn_of_constant(tested[one.name].heads[0].raw, one.tested)
        if is_main():
            self.log.flush()
            self.writer.finish(train, tested, best)
            self._tell_the_end(best['epoch'], tested)
            if self.plan.keep is None:
                remove_states(self.files.checkpoint)
        return tested

    def _tell_the_end(self, epoch: int, tested: Performances) -> None:
        heads = scored_first(self.model.heads, self.evaluation.head)
        tables = [f'On the {len(tested[one.name])} {one.tested} images of {one.name}:\n'
                  f'{results_table(tested[one.name], heads)}' for one in self.data.sets if one.name in tested]
        print(f'Best epoch {epoch}. ' + ('\n'.join(tables) or 'There is no test part.')
              + f'\nCheckpoint: {self.files.checkpoint} (its model card beside it; {self.log.title} log in '
              f'{self.files.log_dir}' + (f', predictions and metrics in {self.files.result_dir})' if tables else ')'))


def warn_of_constant(raw: np.ndarray, part: str) -> None:
    """Print a warning if the predictions for all images of a part are equal up to rounding in float32."""
    if len(raw) > 1 and np.ptp(raw) <= 4 * np.finfo(np.float32).eps * np.abs(raw).max():
        print(f'WARNING: the network predicts {raw[0]:g} for all {len(raw)} {part} images: the output has collapsed '
              'to a constant; try a smaller --learning_rate', flush=True)


# The remaining time of a run

class Clock:
    """Estimates the remaining time of a run, validations included, from the iterations of this process alone.

    Args:
        total: iterations of the whole run.
        done: iterations completed by earlier processes that were stopped.
        now: returns the time in seconds.
    """

    def __init__(self, total: int, done: int = 0, now: Callable[[], float] = time.perf_counter):
        self.total, self.begun, self.now, self.start = total, done, now, now()

    def left(self, iteration: int) -> float:
        """Return the estimated seconds left after an iteration; nan if this process has completed none."""
        done = iteration - self.begun
        return (self.now() - self.start) / done * (self.total - iteration) if done else math.nan


def duration_in_words(seconds: float) -> str:
    """Return a duration as text: 45 s, 12 min, 3 h 05 min, 2 d 4 h; '' for nan.

    >>> duration_in_words(11100)
    '3 h 05 min'
    """
    if math.isnan(seconds):
        return ''
    if seconds < 59.5:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours = round(seconds / 3600)
    return f'{minutes // 60} h {minutes % 60:02} min' if hours < 48 else f'{hours // 24} d {hours % 24} h'
