"""Write the files of a run: checkpoint, model card, results, and the state that a stopped run resumes from."""
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import nn

from iqa_data.loaders import Data
from iqa_networks.adapted_layers import count_parameters
from iqa_results.write import write_results
from iqa_runtime.checkpoint import of_set, save_checkpoint, versions
from iqa_runtime.distributed import gather_objects, is_main
from iqa_runtime.split_file import split_hash
from iqa_training.card import write_card
from iqa_training.evaluation import Performances
from iqa_training.log import Log
from iqa_training.naming import RunFiles
from iqa_training.record import Record
from iqa_training.state import gradients_of, random_states, write_state
from IQAperformance import Performance, intervals


@dataclass(frozen=True)
class About:
    """The description of a run, with the keys of its checkpoint (see iqa_runtime/checkpoint.py).

    Attributes:
        options: every option of training.
        head: position of the scored head among the network's outputs.
        network: {'name', 'options'}.
        input: {'preprocessing', 'normalise'}.
        crops: the crops that images are scored by; None: whole images.
    """

    options: dict
    head: int
    network: dict
    input: dict
    crops: dict | None = None

    def stored(self) -> dict:
        """Return the values for a checkpoint, without those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class RunParts:
    """The objects with state dicts that a state holds in addition to the network.

    Attributes:
        optimizer, scheduler: of the run.
        scaler: the gradient scaler of float16; None otherwise.
        ema: the average of the weights (updates.averaged), with --ema.
    """

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler | None = None
    ema: nn.Module | None = None

    def named(self) -> dict[str, object]:
        """Return the parts that the run has, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


class RunWriter:
    """Writes the files of a run; only the first of several processes writes.

    Args:
        files: their paths.
        about: how the run trains.
        data: the images.
        model: the network that trains.
        saved: the network whose weights are saved: the same, or its average.
    """

    def __init__(self, files: RunFiles, about: About, data: Data, model: nn.Module, saved: nn.Module):
        self.files, self.about, self.data, self.model, self.saved = files, about, data, model, saved
        self.split_hash = split_hash(data.names)

    def options(self) -> dict:
        """Return the options of the run as its log holds them."""
        return {'run_name': self.files.name, 'split_hash': self.split_hash, **self.about.options}

    def checkpoint(self, val: Performances, epoch: int) -> None:
        """Write the checkpoint of an epoch: the current weights, with the lines k, b and the criteria of val."""
        if is_main():
            found = {name: {'metrics': {'val': performance.criteria}} for name, performance in val.items()}
            save_checkpoint(self.files.checkpoint, self.content(val, epoch, found, finished=False))

    def content(self, lines: Performances, epoch: int, found: Mapping[str, dict], finished: bool) -> dict:
        """Return what the checkpoint holds: of several data sets, the first one's, and each one's in 'sets'.

        Args:
            lines: the performances whose lines k, b scores get.
            epoch: that of the weights.
            found: name of a data set -> 'metrics' and perhaps 'intervals', as the checkpoint holds them.
            finished: whether training has ended.
        """
        sets = {one.name: {**facts_of(one), 'k': lines[one.name].k, 'b': lines[one.name].b, **found[one.name]}
                for one in self.data.sets}
        return {**self.about.stored(), 'model': self.saved.state_dict(), **next(iter(sets.values())),
                'dataset': self.data.name, 'split_hash': self.split_hash, 'epoch': epoch, 'finished': finished,
                **({'sets': sets} if len(sets) > 1 else {})}

    def finish(self, train: Performances, tested: Performances, best: dict) -> None:
        """Write the results, the model card, and last the finished checkpoint.

        Args:
            train: the performances on the training images, with the lines from outputs to MOS.
            tested: those on the tested parts, of the data sets that have one.
            best: the checkpoint of the best epoch.
        """
        found = {}
        for one in self.data.sets:
            metrics = {**of_set(best, one.name)['metrics'], 'train': train[one.name].criteria}
            found[one.name] = {'metrics': metrics}
            if performance := tested.get(one.name):
                self.results(one, performance, best['epoch'], metrics['val'])
                metrics[one.tested] = performance.criteria
                found[one.name]['intervals'] = {one.tested: intervals(performance.pq, performance.sq)}
        content = self.content(train, best['epoch'], found, finished=True)
        write_card(self.files.checkpoint, content)
        save_checkpoint(self.files.checkpoint, content)

    def results(self, data: Data, performance: Performance, epoch: int, val: Mapping[str, float]) -> None:
        """Write the results on the tested part of a data set, with the best epoch's criteria."""
        name = self.files.result(data.name, data.tested)
        write_results(self.files.result_dir, name, data.names[data.tested], performance, {
            'run_name': self.files.name, 'dataset': data.name, 'trained_on': self.data.name,
            'part': data.tested, 'split_hash': self.split_hash, 'best_epoch': epoch, 'val': val,
            'checkpoint': str(self.files.checkpoint), 'options': self.about.options,
            'parameters': count_parameters(self.model), 'versions': versions()}, data.votes.get(data.tested))

    def state(self, parts: RunParts, record: Record, log: Log, *, iteration: int, order: torch.Tensor, waiting: bool,
              keep: int) -> None:
        """Write the state of an iteration.

        `order` is the state of the order's generator when the epoch began, `waiting` whether the gradients need more
        batches, `keep` the number of states to keep.
        """
        random = gather_objects(random_states())
        if not is_main():
            return
        history = {tag: torch.tensor(rows, dtype=torch.float64) for tag, rows in log.history.items()}
        write_state(self.files.checkpoint, {
            'options': self.about.options, 'split_hash': self.split_hash, 'iteration': iteration,
            'model': self.model.state_dict(), **{name: part.state_dict() for name, part in parts.named().items()},
            'gradients': gradients_of(self.model) if waiting else {}, 'order': order,
            'random': random, 'record': record.state(), 'history': history}, keep)


def facts_of(data: Data) -> dict:
    """Return what a checkpoint holds of a data set whatever the network is: its split, its target and its MOS."""
    mos = data.datasets['train'].mos.flatten().sort().values
    return {'split': data.names, 'target': asdict(data.target),
            'mos': {'values': mos, 'min': mos[0].item(), 'max': mos[-1].item(),
                    'higher_is_better': data.higher_is_better}}
