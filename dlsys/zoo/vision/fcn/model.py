"""FCN (Long, Shelhamer and Darrell 2015, arXiv:1411.4038): a classifier whose dense layers are convolutions
says at each place of its last map what it sees there; earlier, finer maps add what they see.

The base is a small convolutional net rather than VGG-16, with group norms. Answers are enlarged by bilinear
interpolation, which the paper's transposed convolutions begin as.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import Stages, convolution
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.vision.fcn.card import CARD, FCNOptions


class FCN(Segment):
    """A class for each pixel of `image`."""

    Options = FCNOptions
    card = CARD

    def build(self) -> nn.Module:
        return FCNNet(self.shape.row["image"][0], self.shape.classes, self.options)


class FCNNet(nn.Module):
    """From images (rows, channels, height, width) to logits (rows, classes, height, width)."""

    def __init__(self, channels: int, classes: int, options: FCNOptions) -> None:
        super().__init__()
        self.stages = Stages((channels, *options.channels))
        # In place of dense layers: the same weights at each place of the map.
        self.dense = nn.Sequential(
            convolution(options.channels[-1], options.dense), convolution(options.dense, options.dense, 1)
        )
        widths = (*options.channels[-1 - options.skips : -1], options.dense)
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.stages(image)
        maps[-1] = self.dense(maps[-1])
        found = None
        for x, score in zip(reversed(maps), reversed(self.scores), strict=False):
            said = score(x)
            found = said if found is None else said + _enlarged(found, said.shape[-2:])
        assert found is not None, "the last stage always answers"
        return _enlarged(found, image.shape[-2:])


def _enlarged(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
