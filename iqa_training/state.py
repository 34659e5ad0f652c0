"""Write and read states, from which a stopped run resumes.

Beside the checkpoint NAME.pth, a run keeps NAME.pth.ITERATION.state: the state after the last finished epoch, or after
the iteration at which the run was asked to stop. It holds tensors and plain Python values only:

    options         every option of training, by name
    split_hash      hash of the split that it trains with
    iteration       number of iterations done
    model, optimizer, scheduler, scaler     their state dicts
    ema             the state dict of the average of the weights, with --ema
    gradients       parameter name -> gradient, if the current optimizer step needs more batches
    order           state of the generator that orders the images, at the beginning of the unfinished epoch
    random          states of all other random number generators, for each process
    record          the best validation so far (see iqa_training/record.py)
    history         tag -> (n, 3) float64: step, value, time of every scalar in the log
    checksum        CRC-32 of all of the above
"""
import random
import re
from collections.abc import Mapping
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from iqa_runtime.checkpoint import checksum, load_checkpoint, read_tensors, write_tensors
from iqa_runtime.checks import checked_value, dict_of, fields, list_of, number, optional, plain, tensors, text, whole
from iqa_runtime.errors import UserError
from iqa_runtime.files import remove_left_over
from iqa_runtime.option_values import shown
from iqa_runtime.options import Options


def state_file(checkpoint: Path, iteration: int) -> Path:
    """Return the file of the state of an iteration, beside the checkpoint's file."""
    return checkpoint.with_name(f'{checkpoint.name}.{iteration:08d}.state')


def states_of(checkpoint: Path) -> list[Path]:
    """Return the states of a run beside its checkpoint, the latest last; not those of runs with a similar name."""
    return sorted(path for path in checkpoint.parent.glob('*.state') if _is_state(path.name, checkpoint))


def _is_state(name: str, checkpoint: Path) -> bool:
    return re.fullmatch(re.escape(checkpoint.name) + r'\.\d{8,}\.state', name) is not None


def remove_unfinished(checkpoint: Path) -> None:
    """Remove half-written files of killed processes beside a run's checkpoint; the caller holds its lock."""
    remove_left_over(checkpoint.parent, lambda name: name == checkpoint.name or _is_state(name, checkpoint))


def write_state(checkpoint: Path, state: dict, keep: int) -> None:
    """Write a state; then remove all but the last `keep` of the run, and those of a former run that got further."""
    file = state_file(checkpoint, state['iteration'])
    write_tensors(file, {**state, 'checksum': checksum(state)})
    states = states_of(checkpoint)
    done = states.index(file) + 1
    for other in {*states[:max(0, done - keep)], *states[done:]}:
        other.unlink()


def remove_states(checkpoint: Path) -> None:
    """Remove the states of a run."""
    for state in states_of(checkpoint):
        state.unlink(missing_ok=True)


def find_state(checkpoint: Path, resume: str, options: Options) -> dict | None:
    """Return the state that --resume names, or with 'auto' the latest of the run, if any; {} if the run is finished.

    Raises UserError if the state is of a run with other options, which the message lists, or if the checkpoint with
    the best weights so far is missing.
    """
    path = resume
    if resume == 'auto':
        stored = load_checkpoint(checkpoint) if checkpoint.exists() else {}
        if stored.get('finished'):
            if options.trained_model_file:  # otherwise its name identifies the options
                known = options.of_training()
                _check_options(checkpoint, {key: stored['options'].get(key, known[key]) for key in known}, options)
            return {}
        states = states_of(checkpoint)
        if not states:
            return None
        path = states[-1]
    state = read_state(path)
    _check_options(path, state['options'], options)
    if state['record']['epoch'] and not checkpoint.exists():
        raise UserError(f'--resume {path}: {checkpoint} is gone, which holds the best weights so far, of epoch '
                        f'{state["record"]["epoch"]}: put it back, or start again without --resume')
    return {'path': str(path), **state}


def refuse_finished(checkpoint: Path) -> None:
    """Raise UserError if a checkpoint is that of a finished run, which a new run would replace."""
    if checkpoint.exists() and load_checkpoint(checkpoint).get('finished'):
        raise UserError(f'{checkpoint} is a finished run: --evaluate tests it, --resume auto leaves it as it is, and '
                        '--again trains it again')


def _check_options(path: str | Path, stored: Mapping, options: Options) -> None:
    """Raise UserError that lists the training options that differ from those stored in the file."""
    own, defaults = options.of_training(), options.command.defaults
    stored = {name: defaults.get(name) if stored.get(name) is None else stored[name] for name in {*own, *stored}}
    unused = {name for one in options.command.groups if one.table for name in one.table.unused(own)}
    others = [f'--{name} {shown(own.get(name))} (was {shown(stored[name])})' for name in sorted(set(stored) - unused)
              if own.get(name) != stored[name]]
    if others:
        raise UserError(f'--resume {path}: the run had other options: {", ".join(others)}')


def read_state(path: str | Path) -> dict:
    """Read a state and check its values and checksum; raise UserError that names the file and the key."""
    state = read_tensors(path)
    if not isinstance(state, dict) or not {'iteration', 'random'} <= set(state):
        raise UserError(f'--resume {path}: not the state of a run (checkpoints/NAME.pth.ITERATION.state)')
    if 'gradients' not in state:
        raise UserError(f'--resume {path}: the state of an older version, which this version cannot resume')
    content = {key: value for key, value in state.items() if key != 'checksum'}
    lacks = sorted({*CHECKS, 'checksum'} - set(state))
    if lacks:
        raise UserError(f'--resume {path}: the state lacks {", ".join(lacks)}')
    if checksum(content) != state['checksum']:
        raise UserError(f'--resume {path}: the state is damaged (its checksum does not match)')
    return {key: checked_value(f'--resume {path}', key, check, content[key]) if key in content else None
            for key, check in {**CHECKS, **OPTIONAL}.items()}


def _rows(value) -> list:
    if not isinstance(value, torch.Tensor) or value.ndim != 2 or value.shape[1] != 3:
        raise ValueError('rows of step, value, time')
    if not torch.isfinite(value[:, [0, 2]]).all():
        raise ValueError('steps and times that are finite numbers')
    return value.tolist()


def _random(value) -> list[dict]:
    """Return `random_states` of each process; older states hold those of one process."""
    states = fields(python=list, numpy=list, torch=lambda x: x, cuda=list)
    return list_of(states)([value] if isinstance(value, Mapping) else value)


STATE_DICT = dict_of(lambda value: value)
CHECKS = {
    'options': dict_of(plain), 'split_hash': text, 'iteration': whole, 'model': tensors, 'optimizer': STATE_DICT,
    'scheduler': STATE_DICT, 'gradients': tensors, 'random': _random,
    'record': fields(best=optional(number), at=whole, epoch=whole, since=whole), 'history': dict_of(_rows),
}
OPTIONAL = {'scaler': optional(STATE_DICT), 'ema': optional(tensors), 'order': lambda value: value}


class Skipping:
    """A loader whose first epoch begins after `count` batches, which are drawn and discarded.

    Their augmentation was drawn before the run stopped, so torch's global generator is not changed.
    """

    def __init__(self, loader: DataLoader, count: int):
        self.loader, self.count = loader, count

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):
        batches, before = iter(self.loader), torch.get_rng_state()
        for _ in range(self.count):
            next(batches)
        if self.count:
            torch.set_rng_state(before)
        self.count = 0
        return batches


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return {parameter name: gradient} of the parameters that have a gradient."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def restore_gradients(model: nn.Module, gradients: Mapping[str, torch.Tensor]) -> None:
    """Restore the gradients that `gradients_of` returned; all other parameters have none."""
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].to(parameter.device) if name in gradients else None


def random_states() -> dict:
    """Return the states of Python's, numpy's and torch's generators, as tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {'python': [version, list(internal), gauss], 'numpy': [name, keys.tolist(), *rest],
            'torch': torch.get_rng_state(), 'cuda': torch.cuda.get_rng_state_all()}


def set_random_states(states: dict) -> None:
    """Restore all generators from a value of `random_states`; states of GPUs that no longer exist are ignored."""
    version, internal, gauss = states['python']
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states['numpy']))
    torch.set_rng_state(states['torch'])
    for i, state in enumerate(states['cuda'][:torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, i)


def restore_run(model: nn.Module, parts: Mapping, order: torch.Generator, state: dict) -> None:
    """Restore the network, the optimizer, the schedule, the scaler, and the random generators from a state.

    `order` is the generator of the order of images; in older states it was torch's global one.
    Raises UserError if the state does not fit them.
    """
    try:
        model.load_state_dict(state['model'])
        for name, part in parts.items():
            _check_alike(_settings(part.state_dict()), _settings(state[name]), name)
            part.load_state_dict(state[name])
        _check_moments(parts['optimizer'])
        restore_gradients(model, state['gradients'])
        random = state['random'][idist.get_rank() % len(state['random'])]
        set_random_states(random)
        order.set_state(random['torch'] if state['order'] is None else state['order'])
    except Exception as error:  # torch, numpy and Python raise many kinds on values that do not fit
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise UserError(f'--resume {state["path"]}: the state does not fit this run ({reason[:200]})') from None


def _settings(state_dict: dict):
    """Return the part of a state dict that always has the same form: for an optimizer, its groups."""
    return state_dict.get('param_groups', state_dict)


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if a tensor of the optimizer's state, such as a moment, has another shape than its parameter."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if not isinstance(value, torch.Tensor) and not (value is None and name == 'momentum_buffer'):
                raise ValueError(f'{name} is {type(value).__name__}, expected a tensor')
            if value is not None and value.ndim and value.shape != parameter.shape:
                raise ValueError(f'{name} of shape {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}')


def _check_alike(own, stored, name: str) -> None:
    """Raise ValueError if a stored state dict has other keys or types than that of the object that loads it."""
    if isinstance(own, dict) and isinstance(stored, dict) and set(own) == set(stored):
        for key, value in own.items():
            _check_alike(value, stored[key], f'{key}')
    elif isinstance(own, list) and isinstance(stored, list) and len(own) == len(stored):
        for mine, its in zip(own, stored, strict=True):
            _check_alike(mine, its, name)
    elif not (type(own) is type(stored) or {type(own), type(stored)} <= {int, float}):
        raise ValueError(f'{name} is {type(stored).__name__}, expected {type(own).__name__}')
