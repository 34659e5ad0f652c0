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

logging.getLogger('ignite').addHandler(logging.NullHandler())  # only the code that catches an exception reports it


def preparing(network: Network, target: Target) -> Callable:
    """Return the function `prepare_batch` of ignite's steps: it turns a batch into the network's input and target.

    Images are converted by `network.prepare`, on the network's device; labels are converted to the target's scale, on
    the engine's device.
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
    """Return whether an error is for lack of memory; torch has an exception for GPUs only, and a message for CPUs."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or 'DefaultCPUAllocator' in str(error)


def autocast_dtype(opt_level: str, device: str) -> torch.dtype | None:
    """Return the type to which the forward pass is autocast; None: float32. float16 is used only on a GPU."""
    if opt_level == 'bf16':
        return torch.bfloat16
    return torch.float16 if opt_level != 'O0' and device.startswith('cuda') else None


def compiled(model: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function that computes the model's outputs, compiled by torch.compile at its first call.

    The model, its parameters and their names are not changed. Each batch size is compiled separately, so that a resumed
    run, which may meet the sizes in another order, computes the same numbers. The function raises UserError if no
    compiler is installed for the device, or if torch cannot compile the model.
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
    """Return an engine that trains one batch in each iteration.

    The engine's output is {'loss': float, 'parts': name -> float of the losses in a sum, 'outputs': detached heads}.

    Args:
        model: the network, or its parallel wrapper.
        optimizer: the optimizer of its parameters.
        loss_fn: function (heads, (target, std)) -> scalar.
        prepare: see `preparing`.
        device: device of the model.
        accumulation_steps: batches whose gradients are added up before a step of the optimizer.
        opt_level: type of the forward pass under autocast (see autocast_dtype). With float16, gradients are scaled by
            `engine.scaler`, which skips steps with infinite gradients.
        amp_backend: 'torch', or 'apex' for a model and an optimizer from `initialize_apex`, where apex does autocast
            and scaling.
        compile_model: see `compiled`.
    """
    network = compiled(model) if compile_model else model
    dtype = autocast_dtype(opt_level, device) if amp_backend == 'torch' else None

    def forward(model: nn.Module, images: tuple[Tensor, ...]):
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            if 'flipped' not in getattr(loss_fn, 'needs', ()):
                return network(*images)
            heads = network(*(torch.cat([image, image.flip(3)]) for image in images))
            return [half for halves in zip(*(head.chunk(2) for head in heads), strict=True) for half in halves]

    def output(x, y, y_pred, loss: Tensor) -> dict:
        parts = {name: value.item() for name, value in getattr(loss_fn, 'parts', {}).items()}
        return {'loss': loss.item() / idist.get_world_size(), 'parts': parts,
                'outputs': [head.detach() for head in getattr(loss_fn, 'means', list)(y_pred)]}

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
    """Return the model and the optimizer initialised by apex.amp, for --amp_backend apex; UserError without apex."""
    try:
        from apex import amp
    except ImportError:
        raise UserError('--amp_backend apex needs an apex that still has apex.amp: it was removed from apex in 2025, '
                        'after torch.amp had replaced it; leave the option out to use torch.amp') from None
    if opt_level == 'bf16':
        raise UserError('--amp_backend apex with -optl bf16: expected O0 to O3')
    return amp.initialize(model, optimizer, opt_level=opt_level)


def create_supervised_evaluator(model: Network, metric: Metric, crops: Crops | None = None) -> Engine:
    """Return an engine that computes the model's outputs in eval mode, in float32, and updates the metric.

    With `crops`, the metric gets the mean over the crops of an image, and their standard deviation; if the network
    predicts distributions, their standard deviation (the root of the mean variance of the crops), too. It does not
    compute the metric's result: IQAperformance.evaluate does, for all processes at once, even if this process has no
    images.
    """
    def scores(model: Network, images: Sequence[Tensor]) -> Sequence[Tensor]:
        def score(*images: Tensor) -> Sequence[Tensor]:
            return model.measure(*model.prepare(images))
        return crops(score, *images[-model.inputs:]) if crops else score(*images)

    def output(images, scores, outputs: Sequence[Tensor]) -> tuple:
        outputs = [output.cpu().double() for output in outputs]
        heads, deviations = outputs[:len(model.heads)], outputs[len(model.heads):]
        more = {'spread': heads[metric.scored].std(1, correction=0)} if crops else {}
        if deviations:
            more['uncertainty'] = deviations[metric.scored].square().mean(1).sqrt()
        return [head.mean(1) for head in heads], scores, more
    step = supervised_evaluation_step(model, prepare_batch=lambda batch, **_: batch, model_fn=scores,
                                      output_transform=output)
    engine = Engine(step)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: metric.update(engine.state.output))
    return engine
