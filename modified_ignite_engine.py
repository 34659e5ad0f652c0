"""The training and evaluation engines: ignite's own steps, with batches of 8-bit images and torch's autocast."""
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ignite.distributed as idist
import torch
from ignite.engine import (
    Engine,
    Events,
    supervised_evaluation_step,
    supervised_training_step,
    supervised_training_step_amp,
    supervised_training_step_apex,
)
from ignite.metrics import Metric
from torch import Tensor, nn
from torch.amp import GradScaler

from iqa_data.crops import Crops
from iqa_data.target import Target
from iqa_networks.network import Network
from iqa_networks.size import too_small
from iqa_runtime.distributed import WholeBatchLoss
from iqa_runtime.errors import UserError, first_line
from iqa_runtime.labels import Labels

logging.getLogger('ignite').addHandler(logging.NullHandler())  # an exception is told once, by who catches it


def preparing(network: Network, target: Target) -> Callable:
    """Return the function that ignite's steps call `prepare_batch`: it makes the network's input and target of a batch.

    Images become what `network.prepare` returns, on its device; labels come onto the target's scale, on the engine's.
    """
    def prepare_batch(batch, device: str | torch.device | None = None, non_blocking: bool = False):
        images, scores = batch
        labels = Labels.of(scores).map(lambda values: values.to(device, non_blocking=non_blocking))
        return network.prepare(images), labels.onto(target, target.scale)
    return prepare_batch


@contextmanager
def limits_explained(network: Network, images: Callable[[], Sequence[Tensor]]) -> Iterator[None]:
    """Turn an error for too little memory, or for images too small for the network, into a UserError.

    Tests whether the size of the `images`, those that the network got, is the cause; other errors are re-raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = first_line(error)[:200]
        if _of_memory(error):
            raise UserError(f'not enough memory ({reason}): a smaller --batch_size, --resize_size_h and '
                            '--resize_size_w need less') from error
        got = images()
        if not got or network.side or not too_small(network, got):
            raise
        raise UserError(f'the network cannot take images of this size ({reason}): see --resize_size_h and '
                        '--resize_size_w') from error


def batch_of(engine: Engine, network: Network) -> Sequence[Tensor]:
    """Return the images of an engine's batch that the network gets; none before the first batch."""
    return engine.state.batch[0][-network.inputs:] if engine.state.batch else ()


def _of_memory(error: Exception) -> bool:
    """Return whether memory was short: torch has an exception for a GPU's; for the CPU's, its allocator's name."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or 'DefaultCPUAllocator' in str(error)


def autocast_dtype(opt_level: str, device: str) -> torch.dtype | None:
    """Return the type that the forward pass is autocast to: None is float32. float16 needs a GPU, for its scaler."""
    if opt_level == 'bf16':
        return torch.bfloat16
    return torch.float16 if opt_level != 'O0' and device.startswith('cuda') else None


def compiled(model: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function that computes what the model does, compiled by torch.compile when it is first called.

    The model itself, its parameters and their names stay as they are. Each size of a batch is compiled for itself, so
    that a resumed run, which may meet them in another order, computes the same numbers. The function
    raises UserError if there is no compiler for the device, or if torch cannot compile the model.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import
    fast = torch.compile(model, dynamic=False)

    def run(*images: Tensor) -> tuple[Tensor, ...]:
        try:
            return fast(*images)
        except TorchDynamoException as error:
            reason = ' '.join(str(error).split('\n\n')[0].split())[:200]
            raise UserError(f'--compile: torch cannot compile the network on this machine ({reason}): it needs a C++ '
                            'compiler, and Triton on a GPU; leave the option out to train without') from error
    return run


def create_supervised_trainer(model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Callable, *,
                              prepare: Callable, device: str = 'cpu', accumulation_steps: int = 1,
                              opt_level: str = 'O0', amp_backend: str = 'torch', compile_model: bool = False) -> Engine:
    """Return an engine that trains one batch an iteration; its output is {'loss': float, 'parts': name -> float of
    the losses in a sum, 'outputs': detached heads}.

    `prepare`: see `preparing`. With amp_backend 'torch', the forward pass runs under autocast as `opt_level` says (see
    autocast_dtype); with float16, gradients are scaled by `engine.scaler`, which skips steps with infinite gradients.
    With 'apex', the model and the optimizer come from `initialize_apex`, and apex does both. `compile_model`: see
    `compiled`.
    """
    network = compiled(model) if compile_model else model
    dtype = autocast_dtype(opt_level, device) if amp_backend == 'torch' else None

    def forward(model: nn.Module, images: tuple[Tensor, ...]):
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            return network(*images)

    def output(x, y, y_pred, loss: Tensor) -> dict:
        parts = {name: value.item() for name, value in getattr(loss_fn, 'parts', {}).items()}
        return {'loss': loss.item() / idist.get_world_size(), 'parts': parts,
                'outputs': [head.detach() for head in y_pred]}

    options = {'device': device, 'non_blocking': True, 'prepare_batch': prepare, 'output_transform': output,
               'gradient_accumulation_steps': accumulation_steps, 'model_fn': forward}
    scaler = GradScaler(torch.device(device).type) if dtype == torch.float16 else None
    if scaler:
        options['scaler'] = scaler
    step = {'apex': supervised_training_step_apex,
            'torch': supervised_training_step_amp if scaler else supervised_training_step}[amp_backend]
    engine = Engine(step(model, optimizer, WholeBatchLoss(loss_fn), **options))
    engine.scaler = scaler
    return engine


def initialize_apex(model: nn.Module, optimizer: torch.optim.Optimizer, opt_level: str) -> tuple:
    """Return the model and the optimizer as apex.amp changes them, for --amp_backend apex; UserError without it."""
    try:
        from apex import amp
    except ImportError:
        raise UserError('--amp_backend apex needs an apex that still has apex.amp: it was removed from apex in 2025, '
                        'after torch.amp had replaced it; leave the option out to use torch.amp') from None
    if opt_level == 'bf16':
        raise UserError('--amp_backend apex knows -optl O0 to O3, not bf16')
    return amp.initialize(model, optimizer, opt_level=opt_level)


def create_supervised_evaluator(model: Network, metric: Metric, crops: Crops | None = None) -> Engine:
    """Return an engine that puts images through the model in eval mode, in float32, and updates the metric.

    With `crops`, the metric gets the mean over the crops of an image, and how they spread. It is not computed:
    IQAperformance.evaluate does, for all processes at once, also if this one has no images.
    """
    def scores(model: Network, images: Sequence[Tensor]) -> Sequence[Tensor]:
        def score(*images: Tensor) -> Sequence[Tensor]:
            return model(*model.prepare(images))
        return crops(score, *images[-model.inputs:]) if crops else score(*images)

    def output(images, scores, heads: Sequence[Tensor]) -> tuple:
        if not crops:
            return heads, scores
        heads = [head.cpu().double() for head in heads]
        return [head.mean(1) for head in heads], scores, heads[metric.scored].std(1, correction=0)
    step = supervised_evaluation_step(model, prepare_batch=lambda batch, **_: batch, model_fn=scores,
                                      output_transform=output)
    engine = Engine(step)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: metric.update(engine.state.output))
    return engine
