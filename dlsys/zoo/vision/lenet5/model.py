"""LeNet-5 (LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf).

As it is built today: max pooling for trained sub-sampling, all maps connected, an affine layer
for the radial basis functions; tanh is the paper's. Images smaller than the paper's are padded,
see `_padding`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.lenet5.card import CARD, LeNet5Options, widths


def _padding(size: tuple[int, ...], paper: int) -> tuple[int, int]:
    """Padding of a 5 × 5 convolution: 2 where the input is smaller than the paper's.

    The paper's convolutions see 32 × 32 and 14 × 14 and lose 4 pixels a side; smaller images
    cannot afford that. So 28 × 28 becomes the well-known MNIST version, and 8 × 8 works.
    """
    return 2 * (size[0] < paper), 2 * (size[1] < paper)


def _size(size: tuple[int, ...], paper: int) -> tuple[int, int]:
    """Height and width behind a 5 × 5 convolution; pooling then halves them, rounding down."""
    vertical, horizontal = _padding(size, paper)
    return size[0] - 4 + 2 * vertical, size[1] - 4 + 2 * horizontal


class LeNet5(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width), 4 pixels or more a side."""

    Options = LeNet5Options
    card = CARD

    def build(self) -> nn.Module:
        channels, *size = self.shape.row["image"]
        maps1, maps2, units1, units2 = widths(self.options)
        height, width = _size(tuple(size), 32)
        half = (height // 2, width // 2)
        height, width = _size(half, 14)
        pixels = (height // 2) * (width // 2)
        dropout = self.options.dropout
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(
                    nn.Conv2d(channels, maps1, 5, padding=_padding(tuple(size), 32)),
                    nn.Tanh(),
                    nn.MaxPool2d(2),
                ),
                conv2=nn.Sequential(
                    nn.Conv2d(maps1, maps2, 5, padding=_padding(half, 14)),
                    nn.Tanh(),
                    nn.MaxPool2d(2),
                    nn.Flatten(),
                ),
                dense1=nn.Sequential(nn.Linear(maps2 * pixels, units1), nn.Tanh(), nn.Dropout(dropout)),
                dense2=nn.Sequential(nn.Linear(units1, units2), nn.Tanh(), nn.Dropout(dropout)),
                output=nn.Linear(units2, self.shape.classes),
            )
        )
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # Glorot and Bengio 2010, meant for tanh: variance is kept both ways.
                nn.init.xavier_uniform_(module.weight)
        return model
