"""VGG (Simonyan and Zisserman 2015, arXiv:1409.1556).

Five stages of 3 × 3 convolutions, each halved by pooling, and three dense layers. The weights begin as He et
al. 2015 draw them, with which the deep ones need no shallow one's weights to begin with. `norm: batch` is
Ioffe and Szegedy 2015 (arXiv:1502.03167), with the convolutions' biases kept, as torchvision has it.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from dlsys.zoo.layers.enlarge import Enlarge
from dlsys.zoo.layers.he import he_normal
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.vision.vgg.card import CARD, VGGOptions, widths

# Convolutions of each stage, by depth (the paper's table 1).
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _stage(inputs: int, maps: int, convolutions: int, norm: str) -> list[nn.Module]:
    """(rows, inputs, height, width) to (rows, maps, ⌊height/2⌋, ⌊width/2⌋)."""
    layers: list[nn.Module] = []
    for before in (inputs, *[maps] * (convolutions - 1)):
        layers.append(nn.Conv2d(before, maps, 3, padding=1))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(maps))
        layers.append(nn.ReLU())
    return [*layers, nn.MaxPool2d(2)]


class VGG(Classify):
    """Logits (rows, classes) from `image` (rows, channels, height, width)."""

    Options = VGGOptions
    card = CARD

    def build(self) -> nn.Module:
        channels, *sides = self.shape.row["image"]
        norm, dropout, size = self.options.norm, self.options.dropout, self.options.size
        maps1, maps2, maps3, maps4, maps5, units1, units2 = widths(self.options)
        count1, count2, count3, count4, count5 = _CONVOLUTIONS[self.options.depth]
        height, width = (max(side, size) // 32 for side in sides)
        model = nn.Sequential(
            OrderedDict(
                stage1=nn.Sequential(Enlarge(size), *_stage(channels, maps1, count1, norm)),
                stage2=nn.Sequential(*_stage(maps1, maps2, count2, norm)),
                stage3=nn.Sequential(*_stage(maps2, maps3, count3, norm)),
                stage4=nn.Sequential(*_stage(maps3, maps4, count4, norm)),
                stage5=nn.Sequential(*_stage(maps4, maps5, count5, norm), nn.Flatten()),
                dense1=nn.Sequential(
                    nn.Linear(maps5 * height * width, units1), nn.ReLU(), nn.Dropout(dropout)
                ),
                dense2=nn.Sequential(nn.Linear(units1, units2), nn.ReLU(), nn.Dropout(dropout)),
                output=nn.Linear(units2, self.shape.classes),
            )
        )
        return he_normal(model)
