"""Several processes as one: each batch is shared out, and the tensors that a loss or a metric needs whole are gathered.

Started by torchrun, through ignite.distributed. Without it there is one process, and everything here does nothing.
"""
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from iqa_runtime.errors import UserError, one_line
from iqa_runtime.labels import Labels


def device_of(name: str | None) -> str:
    """Return the device that --device names, or by default a GPU if there is one."""
    return name or ('cuda' if torch.cuda.is_available() else 'cpu')


@contextmanager
def processes(device: str, **options) -> Iterator[str]:
    """Join the other processes if torchrun started this one; yield the device of this process.

    Only rank 0 writes to stdout. An error on any rank is shown, and torchrun ends the others. `options` are those of
    torch.distributed.init_process_group, as `timeout`: how long one process waits for another.
    """
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        yield device
        return
    cuda = device.startswith('cuda')
    idist.initialize('nccl' if cuda else 'gloo', **options)
    stdout = sys.stdout
    if not is_main():
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (as long as the process)
    try:
        yield f'cuda:{idist.get_local_rank()}' if cuda else device
    except UserError:
        raise
    except Exception as error:
        reason = one_line(str(error))
        print(f'Process {idist.get_rank()}: {type(error).__name__}: {reason}', file=sys.stderr, flush=True)
        raise
    finally:
        sys.stdout = stdout
    idist.finalize()


def is_main() -> bool:
    """Return whether this process is the one that writes."""
    return idist.get_rank() == 0


def fewest_images(batch_size: int, sync_bn: bool, model: nn.Module) -> int:
    """Return the fewest images that a training batch may have: a BatchNorm1d needs 2 in each process, or 2 in all.

    Raises UserError if even a full batch has fewer.
    """
    world = idist.get_world_size()
    in_each = 2 if any(isinstance(module, nn.BatchNorm1d) for module in model.modules()) else 1
    fewest = max(in_each, world) if sync_bn else in_each * world
    if batch_size < fewest:
        share = f' is the whole batch, over {world} processes' if world > 1 else ''
        sync = f', or {max(in_each, world)} with --sync_bn' if world > 1 and not sync_bn and in_each > 1 else ''
        raise UserError(f'--batch_size {batch_size}{share}: at least {fewest} is needed for batch normalisation{sync}')
    return fewest


def gather(tensor: Tensor) -> Tensor:
    """Gather the rows (n_rank, ...) of all processes, in order of rank; this process's with their gradient."""
    if idist.get_world_size() == 1:
        return tensor
    counts = idist.all_gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[:len(tensor)] = tensor.detach()
    pieces = list(idist.all_gather(padded).split(max(counts)))
    pieces = [piece[:count] for piece, count in zip(pieces, counts, strict=True)]
    pieces[idist.get_rank()] = tensor
    return torch.cat(pieces)


def gather_shares(tensor: Tensor) -> Tensor:
    """Gather the rows of a batch that was shared out in turns (see samplers.Share), in the order of one process."""
    whole, world = gather(tensor), idist.get_world_size()
    places = torch.cat([torch.arange(rank, len(whole), world, device=whole.device) for rank in range(world)])
    return whole[places.argsort()]


def gather_objects(value) -> list:
    """Return the values of all processes, by rank, in all of them; waits for all."""
    if idist.get_world_size() == 1:
        return [value]
    return [given for (given,) in idist.all_gather((value,))]


class WholeBatchLoss(nn.Module):
    """`loss` of the whole batch in its own order, computed alike by every process, times the number of processes.

    The gradient of each process goes through its own predictions; DistributedDataParallel averages them, and the
    factor makes that average the sum: the gradient of one process with the whole batch.
    """

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Sequence[Tensor], scores: Labels | tuple[Tensor, Tensor]) -> Tensor:
        if idist.get_world_size() == 1:
            return self.loss(outputs, scores)
        labels = Labels.of(scores)
        tensors = [*outputs, labels.mos, labels.std, *labels.more.values()]
        whole = gather_shares(torch.cat([tensor.float() for tensor in tensors], 1))
        of_all = whole.split([tensor.shape[1] for tensor in tensors], 1)
        heads, (mos, std, *more) = of_all[:len(outputs)], of_all[len(outputs):]
        labels = Labels(mos, std, dict(zip(labels.more, more, strict=True)))
        return self.loss(heads, labels) * idist.get_world_size()


def shared_gradient(value: Tensor) -> Tensor:
    """Return a value that every process computes alike, with this process's share of its gradient.

    Added to a loss inside WholeBatchLoss, it has the gradient that it has in a process alone.
    """
    share = value / idist.get_world_size()
    return share + (value - share).detach()


def parallel(model: nn.Module, some_unused: bool) -> nn.Module:
    """Return the model as the training step calls it: itself, or wrapped so that the processes average their gradients.

    `some_unused`: some parameters have no part in the loss. Nothing may be frozen or replaced afterwards.
    """
    if idist.get_world_size() == 1:
        return model
    cuda = next(model.parameters()).is_cuda
    return DistributedDataParallel(model, device_ids=[idist.get_local_rank()] if cuda else None,
                                   find_unused_parameters=some_unused)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, with its gradient: the sum of their gradients.

    torch.distributed.nn.functional.all_reduce does this too, but it is deprecated, and fails in a process alone.
    """

    @staticmethod
    def forward(_, tensor: Tensor) -> Tensor:
        return idist.all_reduce(tensor.clone())

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return idist.all_reduce(gradient.clone())


class BatchNormOverProcesses(_BatchNorm):
    """Batch normalisation over the images of all processes, for the CPU, where torch's SyncBatchNorm does not run."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) as nn.BatchNorm1d and nn.BatchNorm2d do, with the statistics of all processes."""
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = idist.all_reduce(x.numel() / x.shape[1])
        mean = _Sum.apply(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return centred * scale.view(shape) + self.bias.view(shape)


def synchronise(module: nn.Module) -> None:
    """Replace every batch normalisation of `module` by one over the images of all processes, in place."""
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            synchronise(child)
        elif next(module.parameters()).is_cuda:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            synced = BatchNormOverProcesses(child.num_features, child.eps, child.momentum).to(child.weight)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced)


def broadcast_weights(model: nn.Module) -> None:
    """Give every process the weights and buffers of rank 0."""
    if idist.get_world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process; all get the same answer."""
    return flag if idist.get_world_size() == 1 else bool(idist.all_reduce(float(flag), 'MAX'))
