"""Set the learning rates of an optimizer by a schedule, as the batches or epochs of a run are counted."""
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class Schedule(LambdaLR):
    """Sets the learning rate of each group of parameters: its first one times a factor of the steps done.

    A step is a batch or an epoch. torch's own `step` expects a step of the optimizer before it, and warns if there is
    none: but the gradients of several batches may be added up, and a step that overflows is left out.

    Args:
        optimizer: the optimizer, with the learning rates of step 0.
        factors: a function of the steps done for each of its groups.
        unit: 'iteration' or 'epoch', after each of which `step` is called.
    """

    def __init__(self, optimizer: Optimizer, factors: Sequence[Callable[[int], float]], unit: str):
        super().__init__(optimizer, list(factors))
        self.unit = unit
        self._get_lr_called_within_step = False  # torch's step sets it: states of earlier versions have it

    def step(self) -> None:
        """Count a step, and set the learning rates."""
        self.last_epoch += 1
        for group, rate, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group['lr'] = rate * factor(self.last_epoch)
        self._last_lr = [group['lr'] for group in self.optimizer.param_groups]
