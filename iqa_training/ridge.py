"""Fit a linear probe by ridge regression: each epoch tries one penalty, and validation chooses the best."""
import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from torch.utils.data import DataLoader

from iqa_data.loaders import Data
from iqa_runtime.errors import UserError
from iqa_training.features import OnFeatures

LEAST, MOST = -5, 4  # powers of ten of the penalties
CHUNK = 256          # items that are read at once


class Ridge:
    """Ridge regression of y on the standardised columns z of x, from one decomposition for all penalties.

    The weights v and the intercept c minimise (1 / N) sum_i (y_i - c - z_i v)^2 + penalty |v|^2. Constant
    columns have the weight 0.

    Args:
        x: features, (N, D) float64.
        y: targets, (N,) float64.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.mean, self.std, self.y_mean = x.mean(0), x.std(0), y.mean()
        varies = self.std > 1e-12 * np.abs(self.mean)
        self.std = np.where(varies, self.std, np.inf)
        left, self.singular, self.right = np.linalg.svd((x - self.mean) / self.std, full_matrices=False)
        self.along, self.count = left.T @ (y - self.y_mean), len(x)

    def at(self, penalty: float) -> tuple[np.ndarray, float]:
        """Return the weights (D,) of the unstandardised columns of x, and the intercept, for a penalty above 0."""
        shrunk = self.singular / (self.singular ** 2 + self.count * penalty)
        weight = self.right.T @ (shrunk * self.along) / self.std
        return weight, float(self.y_mean - weight @ self.mean)


def penalties(count: int) -> np.ndarray:
    """Return `count` penalties from 1e-5 to 1e4 in equal ratios, for features of variance 1."""
    return np.logspace(LEAST, MOST, count)


def described(model: OnFeatures, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (N, D) of all training images and variants as a probe reads them, and their targets (N,)."""
    dataset = data.datasets['train'].repeated(1)
    dataset.augment = data.fixed
    rows, x, y = range(len(dataset) * (data.fixed.variants if data.fixed else 1)), [], []
    for start in range(0, len(rows), CHUNK):
        pooled, (mos, _) = dataset.batch(list(rows[start:start + CHUNK]))
        with torch.no_grad():
            x.append(model.network.described(*pooled).double().numpy())
        y.append(data.target(mos.double())[:, 0].numpy())
    return np.concatenate(x), np.concatenate(y)


def create_ridge_trainer(model: OnFeatures, data: Data, optimizer: torch.optim.Optimizer, epochs: int) -> Engine:
    """Return an engine that sets the probe in epoch i to the solution for penalty i.

    Its output has the form of `create_supervised_trainer`, with the mean squared error as the loss. The optimizer has
    no gradients: its steps only advance the schedule, which counts them.
    """
    if idist.get_world_size() > 1:
        raise UserError('--probe ridge is solved by one process: start it without torchrun')
    x, y = described(model, data)
    print(f'Ridge regression on {x.shape[1]} features of {len(x)} images: epoch 1 to {epochs} try the penalties '
          f'1e{LEAST} to 1e{MOST} in equal ratios', flush=True)
    ridge, tried = Ridge(x, y), penalties(epochs)
    probe = model.network.probe

    def step(engine: Engine, batch) -> dict:
        weight, bias = ridge.at(tried[engine.state.epoch - 1])
        with torch.no_grad():
            probe.weight.copy_(torch.from_numpy(weight)[None])
            probe.bias.fill_(bias)
        optimizer.step()
        predicted = x @ weight + bias
        outputs = [torch.from_numpy(predicted)[:, None]]
        return {'loss': float(np.mean((predicted - y) ** 2)), 'parts': {}, 'outputs': outputs}

    engine = Engine(step)
    engine.scaler = None
    return engine


def one_batch() -> DataLoader:
    """Return a loader whose epochs consist of one batch, without images."""
    return DataLoader([0], generator=torch.Generator())
