"""The training and evaluation engines: ignite's own steps, with batches of 8-bit images and torch's autocast."""
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from ignite.engine import Engine, create_supervised_evaluator, supervised_training_step, supervised_training_step_amp
from ignite.handlers import ProgressBar
from ignite.metrics import Metric
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from IQAdataset import normalize
from IQAperformance import IQAPerformance

logging.getLogger('ignite').addHandler(logging.NullHandler())  # an exception is told once, by who catches it


def prepare_batch(batch, device: str | torch.device | None = None, non_blocking: bool = False):
    """Send (images uint8, (mos, std)) to the device and normalise there; what ignite's steps call `prepare_batch`."""
    images, scores = batch
    scores = tuple(score.to(device, non_blocking=non_blocking) for score in scores)
    return normalize(images.to(device, non_blocking=non_blocking)), scores


def autocast_dtype(opt_level: str, device: str) -> torch.dtype | None:
    """The type that the forward pass is autocast to: None is float32. float16 needs a GPU, where a scaler exists."""
    if opt_level == 'bf16':
        return torch.bfloat16
    return torch.float16 if opt_level != 'O0' and device.startswith('cuda') else None


def create_supervised_trainer(model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Callable,
                              device: str = 'cpu', accumulation_steps: int = 1, opt_level: str = 'O0') -> Engine:
    """An engine that trains one batch an iteration; its output is {'loss': float, 'outputs': detached heads}.

    The forward pass runs under autocast as `opt_level` says (see autocast_dtype); with float16, gradients are scaled
    by `engine.scaler`, which skips steps with infinite gradients.
    """
    dtype = autocast_dtype(opt_level, device)

    def forward(model: nn.Module, x: Tensor):
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            return model(x)

    def output(x: Tensor, y, y_pred, loss: Tensor) -> dict:
        return {'loss': loss.item(), 'outputs': [head.detach() for head in y_pred]}

    shared = {'device': device, 'non_blocking': True, 'prepare_batch': prepare_batch, 'output_transform': output,
              'gradient_accumulation_steps': accumulation_steps, 'model_fn': forward}
    scaler = GradScaler() if dtype == torch.float16 else None
    if scaler:
        step = supervised_training_step_amp(model, optimizer, loss_fn, scaler=scaler, **shared)
    else:
        step = supervised_training_step(model, optimizer, loss_fn, **shared)
    engine = Engine(step)
    engine.scaler = scaler
    return engine


def create_evaluator(model: nn.Module, metric: Metric, device: str = 'cpu') -> Engine:
    """An engine that puts images through the model in eval mode, in float32, and its result in metrics['IQA']."""
    return create_supervised_evaluator(model, {'IQA': metric}, device, non_blocking=True, prepare_batch=prepare_batch)


def evaluate(model: nn.Module, loader: DataLoader, device: str, status: str = 'train', k: Sequence[float] = (1, 1, 1),
             b: Sequence[float] = (0, 0, 0), pbar: str = '') -> dict:
    """The result of IQAPerformance(status, k, b) on a loader's images, its arrays in the data set's order.

    `pbar` is the title of a progress bar; none where it is empty.
    """
    engine = create_evaluator(model, IQAPerformance(status, k, b), device)
    if pbar:
        ProgressBar(desc=pbar, persist=False).attach(engine)
    performance = engine.run(loader).metrics['IQA']
    order = getattr(loader.batch_sampler, 'order', range(len(performance['sq'])))
    place = np.argsort(order)
    return {name: value[place] if isinstance(value, np.ndarray) else value for name, value in performance.items()}
