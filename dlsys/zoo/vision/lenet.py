"""LeNet-5 (LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf).

As it is built today: max pooling for trained sub-sampling, all maps connected, an affine layer
for the radial basis functions; tanh is the paper's. Images smaller than the paper's are padded,
see `lenet_padding`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.classifier import Classifier
from dlsys.zoo.vision.cards import LENET_5, LeNet5Options, lenet_padding, lenet_size, lenet_widths


class LeNet5(Classifier):
    """Logits (rows, classes) from `image` (rows, channels, height, width), 4 pixels or more a side."""

    Options = LeNet5Options
    card = LENET_5

    def build(self) -> nn.Module:
        channels, *size = self.shape.row["image"]
        maps1, maps2, units1, units2 = lenet_widths(self.options)
        height, width = lenet_size(tuple(size), 32)
        half = (height // 2, width // 2)
        height, width = lenet_size(half, 14)
        pixels = (height // 2) * (width // 2)
        dropout = self.options.dropout
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(
                    nn.Conv2d(channels, maps1, 5, padding=lenet_padding(tuple(size), 32)),
                    nn.Tanh(),
                    nn.MaxPool2d(2),
                ),
                conv2=nn.Sequential(
                    nn.Conv2d(maps1, maps2, 5, padding=lenet_padding(half, 14)),
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
