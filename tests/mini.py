"""A network that is small enough for dozens of training runs, and a way to stop them."""
from functools import partial

from torch import nn

from iqa_networks.backbone import Backbone
from iqa_training.run import Run
from IQAmodel import BACKBONES, NETWORKS, Entry, LinearityIQA

MINI = ['-arch', 'mini']


class Mini(nn.Module):
    """A backbone of two levels."""

    def __init__(self, weights=None):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2),
                                      nn.ReLU())


BACKBONES['mini'] = Backbone(Mini, (2, 4), (8, 8))
NETWORKS['mini'] = Entry(partial(LinearityIQA, 'mini'), 'LinearityIQA')


def stop_at(monkeypatch, *iterations: int) -> None:
    """Let the next runs be asked to stop, each at its iteration."""
    log_loss, waiting = Run.log_loss, list(iterations)

    def log_and_stop(self, engine):
        log_loss(self, engine)
        if waiting and engine.state.iteration == waiting[0]:
            self.stop.signal = waiting.pop(0)
    monkeypatch.setattr(Run, 'log_loss', log_and_stop)
