"""A network that is small enough for dozens of training runs."""
from functools import partial

from torch import nn

from iqa_networks.backbone import Backbone
from IQAmodel import BACKBONES, NETWORKS, Entry, LinearityIQA

MINI = ['-arch', 'mini']


class Mini(nn.Module):
    """A backbone of two levels."""

    def __init__(self, weights=None):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2),
                                      nn.ReLU())


BACKBONES['mini'] = Backbone(Mini, (2, 4), (8, 8))
NETWORKS['mini'] = Entry('LinearityIQA', partial(LinearityIQA, 'mini'))
