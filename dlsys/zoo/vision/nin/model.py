"""Network in Network (Lin et al. 2014, arXiv:1312.4400), as its authors defined it for CIFAR-10.

Behind each convolution stand two of 1 × 1: a small perceptron that moves over the maps as a filter does. The
last block has a map for each class, whose mean is the class's logit: there is no dense layer. Two things are
not the paper's: no ReLU stands behind the maps of the classes, where it would leave some without a gradient,
and the weights begin as He et al. 2015 draw them, with which any `width` trains.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.layers.he import he_normal
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.nin.card import CARD, NiNOptions


def _perceptron(inputs: int, filters: int, first: int, second: int, third: int) -> list[nn.Module]:
    """(rows, inputs, height, width) to (rows, third, height, width), by `filters` × `filters` and twice 1 × 1
    convolutions."""
    return [
        nn.Conv2d(inputs, first, filters, padding=filters // 2),
        nn.ReLU(),
        nn.Conv2d(first, second, 1),
        nn.ReLU(),
        nn.Conv2d(second, third, 1),
    ]


def _between(dropout: float) -> list[nn.Module]:
    """What stands between two blocks; sides are halved."""
    # Rounded up, as the authors' Caffe does: 16 pixels of 32, then 8; and images of any size have some left.
    return [nn.ReLU(), nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Dropout(dropout)]


class NiN(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = NiNOptions
    card = CARD

    def build(self) -> nn.Module:
        channels, dropout, classes = self.shape.row["image"][0], self.options.dropout, self.shape.classes
        a, b, c = (max(1, round(self.options.width * n)) for n in (192, 160, 96))
        model = nn.Sequential(
            OrderedDict(
                block1=nn.Sequential(*_perceptron(channels, 5, a, b, c), *_between(dropout)),
                block2=nn.Sequential(*_perceptron(c, 5, a, a, a), *_between(dropout)),
                block3=nn.Sequential(
                    *_perceptron(a, 3, a, a, classes), nn.AdaptiveAvgPool2d(1), nn.Flatten()
                ),
            )
        )
        return he_normal(model)
