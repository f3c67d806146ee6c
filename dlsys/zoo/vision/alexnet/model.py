"""AlexNet (Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks).

As in the paper: the two GPUs' halves are two groups of a convolution, and responses are normalized behind
the first two ReLUs. Padding of 2 gives the first maps the paper's 55 pixels a side of 224. The weights begin
as He et al. 2015 draw them, with which any `width` trains; the paper's suit its own widths.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.layers.enlarge import Enlarge
from dlsys.zoo.layers.he import he_normal
from dlsys.zoo.layers.response_norm import response_norm
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.alexnet.card import CARD, AlexNetOptions, widths


def _pool() -> nn.MaxPool2d:
    """Windows of 3 × 3, 2 apart: they overlap (section 3.4)."""
    return nn.MaxPool2d(3, stride=2)


def _side(pixels: int) -> int:
    """Pixels a side behind the last pooling: 6 of 224."""
    pixels = (pixels + 2 * 2 - 11) // 4 + 1
    for _ in range(3):
        pixels = (pixels - 3) // 2 + 1
    return pixels


class AlexNet(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = AlexNetOptions
    card = CARD

    def build(self) -> nn.Module:
        channels, *sides = self.shape.row["image"]
        groups, dropout, size = self.options.groups, self.options.dropout, self.options.size
        maps1, maps2, maps3, maps4, maps5, units6, units7 = widths(self.options)
        height, width = (_side(max(side, size)) for side in sides)
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(
                    Enlarge(size),
                    nn.Conv2d(channels, maps1, 11, stride=4, padding=2),
                    nn.ReLU(),
                    response_norm(),
                    _pool(),
                ),
                conv2=nn.Sequential(
                    nn.Conv2d(maps1, maps2, 5, padding=2, groups=groups), nn.ReLU(), response_norm(), _pool()
                ),
                conv3=nn.Sequential(nn.Conv2d(maps2, maps3, 3, padding=1), nn.ReLU()),
                conv4=nn.Sequential(nn.Conv2d(maps3, maps4, 3, padding=1, groups=groups), nn.ReLU()),
                conv5=nn.Sequential(
                    nn.Conv2d(maps4, maps5, 3, padding=1, groups=groups), nn.ReLU(), _pool(), nn.Flatten()
                ),
                dense6=nn.Sequential(
                    nn.Linear(maps5 * height * width, units6), nn.ReLU(), nn.Dropout(dropout)
                ),
                dense7=nn.Sequential(nn.Linear(units6, units7), nn.ReLU(), nn.Dropout(dropout)),
                output=nn.Linear(units7, self.shape.classes),
            )
        )
        return he_normal(model)
