"""ZF Net (Zeiler and Fergus 2014, arXiv:1311.2901, figure 3): AlexNet seen through, and mended.

The first filters are 7 × 7 at stride 2 instead of 11 × 11 at stride 4, the second ones also have a stride,
and no layer is in two groups. The figure's sides of maps (110, 55, 26, 13, 6 of 224) tell the padding.
Its contrast normalization across maps stands behind the pooling, and is AlexNet's formula. The weights begin
as He et al. 2015 draw them, with which any `width` trains.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.layers.enlarge import Enlarge
from dlsys.zoo.layers.he import he_normal
from dlsys.zoo.layers.response_norm import response_norm
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.zf_net.card import CARD, ZFNetOptions, widths


def _side(pixels: int) -> int:
    """Pixels a side behind the last pooling: 6 of 224."""
    for filters, padding in ((7, 1), (3, 1), (5, 0), (3, 1), (3, 0)):  # the layers of stride 2
        pixels = (pixels + 2 * padding - filters) // 2 + 1
    return pixels


class ZFNet(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = ZFNetOptions
    card = CARD

    def build(self) -> nn.Module:
        channels, *sides = self.shape.row["image"]
        dropout, size = self.options.dropout, self.options.size
        maps1, maps2, maps3, maps4, maps5, units6, units7 = widths(self.options)
        height, width = (_side(max(side, size)) for side in sides)
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(
                    Enlarge(size),
                    nn.Conv2d(channels, maps1, 7, stride=2, padding=1),
                    nn.ReLU(),
                    nn.MaxPool2d(3, stride=2, padding=1),
                    response_norm(),
                ),
                conv2=nn.Sequential(
                    nn.Conv2d(maps1, maps2, 5, stride=2),
                    nn.ReLU(),
                    nn.MaxPool2d(3, stride=2, padding=1),
                    response_norm(),
                ),
                conv3=nn.Sequential(nn.Conv2d(maps2, maps3, 3, padding=1), nn.ReLU()),
                conv4=nn.Sequential(nn.Conv2d(maps3, maps4, 3, padding=1), nn.ReLU()),
                conv5=nn.Sequential(
                    nn.Conv2d(maps4, maps5, 3, padding=1),
                    nn.ReLU(),
                    nn.MaxPool2d(3, stride=2),
                    nn.Flatten(),
                ),
                dense6=nn.Sequential(
                    nn.Linear(maps5 * height * width, units6), nn.ReLU(), nn.Dropout(dropout)
                ),
                dense7=nn.Sequential(nn.Linear(units6, units7), nn.ReLU(), nn.Dropout(dropout)),
                output=nn.Linear(units7, self.shape.classes),
            )
        )
        return he_normal(model)
