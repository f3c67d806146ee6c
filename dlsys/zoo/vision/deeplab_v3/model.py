"""DeepLab v3 (Chen et al. 2017, arXiv:1706.05587): where a classifier would halve its map once more,
convolutions look at places further apart instead (à trous), so that the map stays fine; its end looks at
several rates at once.

The base is a small convolutional net rather than a ResNet, with group norms.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.vision.deeplab_v3.card import CARD, DeepLabV3Options


class DeepLabV3(Segment):
    """A class for each pixel of `image`."""

    Options = DeepLabV3Options
    card = CARD

    def build(self) -> nn.Module:
        return DeepLabV3Net(self.shape.row["image"][0], self.shape.classes, self.options)


class DeepLabV3Net(nn.Module):
    """From images (rows, channels, height, width) to logits (rows, classes, height, width).

    Strides, rates and dilations change no weights' shapes: what was learnt with some can be used with others.
    """

    def __init__(self, channels: int, classes: int, options: DeepLabV3Options) -> None:
        super().__init__()
        stages, reached, apart = [], 1, 1
        for inputs, outputs in pairwise((channels, *options.channels)):
            stride = 2 if reached < options.stride else 1
            first = convolution(inputs, outputs, stride=stride, dilation=apart)
            # The stride that is left out doubles how far apart the next places to look at are.
            apart *= 2 // stride
            stages.append(nn.Sequential(first, convolution(outputs, outputs, dilation=apart)))
            reached *= stride
        self.stages = nn.Sequential(*stages)
        last = options.channels[-1]
        if options.aspp:
            self.head: nn.Module = ASPP(last, options.pyramid, options.rates, pooling=options.image_pooling)
        else:
            self.head = convolution(last, options.pyramid)
        self.score = nn.Conv2d(options.pyramid, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        found = self.score(self.head(self.stages(image)))
        return F.interpolate(found, size=image.shape[-2:], mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: looks at a map (rows, inputs, height, width) at several rates and as a
    whole, and makes (rows, outputs, height, width) of what they see."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...], *, pooling: bool) -> None:
        super().__init__()
        self.looks = nn.ModuleList(
            [
                convolution(inputs, outputs, 1),
                *(convolution(inputs, outputs, dilation=rate) for rate in rates),
            ]
        )
        self.whole = convolution(inputs, outputs, 1) if pooling else None
        self.join = convolution(outputs * (len(self.looks) + pooling), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = [look(x) for look in self.looks]
        if self.whole is not None:
            seen.append(self.whole(x.mean((2, 3), keepdim=True)).expand_as(seen[0]))
        result: Tensor = self.join(torch.cat(seen, 1))
        return result
