"""Training and testing on several processes: join them, gather tensors, synchronise weights and batch normalisation.

torchrun starts the processes, and ignite.distributed connects them. Each batch is divided among them; a loss or a
metric gathers the tensors that it needs whole. In a single process, the functions do nothing.
"""
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from iqa_runtime.errors import UserError, one_line
from iqa_runtime.labels import Labels


def device_of(name: str | None) -> str:
    """Return the device that --device names, or the default: a GPU if available."""
    return name or ('cuda' if torch.cuda.is_available() else 'cpu')


@contextmanager
def processes(device: str, **options) -> Iterator[str]:
    """Join the other processes if torchrun started this one; yield the device of this process.

    Only rank 0 writes to stdout. An error in any process is printed, and torchrun ends the others. `options` are those
    of torch.distributed.init_process_group, such as `timeout`: how long a process waits for the others.
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


def check_synchronised(device: str) -> None:
    """Raise UserError if batch normalisation over several processes is not computed on this device."""
    if not device.startswith('cuda'):
        raise UserError(f'--sync_bn on {device}: expected a GPU, since torch synchronises batch normalisation on GPUs '
                        'alone; leave the option out')


def is_main() -> bool:
    """Return whether this process is rank 0, which writes files and prints."""
    return idist.get_rank() == 0


def fewest_images(batch_size: int, sync_bn: bool, model: nn.Module) -> int:
    """Return the fewest images that a training batch may have.

    A BatchNorm1d needs 2 images in each process, or 2 over all processes if it is synchronised. Raises UserError if
    even a full batch has fewer.
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
    """Gather the rows (n_rank, ...) of all processes, by rank; only this process's own rows keep their gradient."""
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
    """Gather the rows of a batch that samplers.Share divided among the processes, in the batch's original order."""
    whole, world = gather(tensor), idist.get_world_size()
    places = torch.cat([torch.arange(rank, len(whole), world, device=whole.device) for rank in range(world)])
    return whole[places.argsort()]


def gather_objects(value) -> list:
    """Gather a value of every process, by rank; every process returns the same list, after all have called this."""
    if idist.get_world_size() == 1:
        return [value]
    return [given for (given,) in idist.all_gather((value,))]


class WholeBatchLoss(nn.Module):
    """Compute `loss` of the whole batch in every process, multiplied by the number of processes.

    In each process, the gradient flows through its own predictions only. DistributedDataParallel averages the gradients
    of the processes; the factor turns this average into the sum, which is the gradient of a single process with the
    whole batch.
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
    """Return a value that all processes compute equally, with its gradient divided by their number.

    Added to a loss inside WholeBatchLoss, it then has the same gradient as in a single process.
    """
    share = value / idist.get_world_size()
    return share + (value - share).detach()


def parallel(model: nn.Module, some_unused: bool) -> nn.Module:
    """Return the model for the training step, with several processes wrapped so that they average their gradients.

    `some_unused`: the loss does not depend on some parameters. No parameter may be frozen or replaced afterwards.
    """
    if idist.get_world_size() == 1:
        return model
    cuda = next(model.parameters()).is_cuda
    return DistributedDataParallel(model, device_ids=[idist.get_local_rank()] if cuda else None,
                                   find_unused_parameters=some_unused)


def synchronise(model: nn.Module) -> None:
    """Replace every batch normalisation in `model`, in place, by one over the images of all processes, for GPUs."""
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    if 'timm' in sys.modules:  # its networks have batch normalisations with an activation, which torch would drop
        from timm.layers import convert_sync_batchnorm as convert
    convert(model)


def broadcast_weights(model: nn.Module) -> None:
    """Copy the weights and buffers of rank 0 to all processes."""
    if idist.get_world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process; all processes return the same."""
    return flag if idist.get_world_size() == 1 else bool(idist.all_reduce(float(flag), 'MAX'))
