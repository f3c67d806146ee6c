"""RetinaNet (Lin et al. 2017, arXiv:1708.02002): anchors at every place of a pyramid, nearly all of which
show nothing, and a loss that the many easy ones cannot drown.

The base is a small convolutional net rather than a ResNet, with group norms; anchors, heads, their first
answers and the loss are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.blocks import Stages, convolution
from dlsys.zoo.layers.focal import begin_rare
from dlsys.zoo.layers.pyramid import FeaturePyramid
from dlsys.zoo.tasks.detect_anchors import Answers, DetectAnchors, focal_loss
from dlsys.zoo.vision.retinanet.card import CARD, RetinaNetOptions

# Sides of a place's anchors in those of the smallest, and widths by heights.
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_RATIOS = (1.0, 2.0, 0.5)
_ALPHA = 0.25


class RetinaNet(DetectAnchors):
    """Boxes in `image`; each class is a yes-or-no question."""

    Options = RetinaNetOptions
    card = CARD

    def build(self) -> nn.Module:
        options = self.options
        if options.levels > len(options.channels):
            raise UsageError(
                f"model.levels: {options.levels} of {len(options.channels)} stages: say one for each "
                "channels at most"
            )
        return RetinaNetNet(self.shape.row["image"][0], self.shape.classes, options)

    def class_loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        if self.options.loss == "focal":
            return focal_loss(logits, answers, gamma=self.options.gamma, alpha=_ALPHA)
        return focal_loss(logits, answers, gamma=0.0, alpha=None)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class RetinaNetNet(nn.Module):
    """From images (rows, channels, height, width) to `Answers`."""

    def __init__(self, channels: int, classes: int, options: RetinaNetOptions) -> None:
        super().__init__()
        self.levels, width = options.levels, options.width
        self.stages = Stages((channels, *options.channels))
        self.pyramid = FeaturePyramid(options.channels[-options.levels :], width, norm=False)
        self.shapes = [pair for scale in _SCALES for pair in anchors.shapes([options.size * scale], _RATIOS)]

        def head(outputs: int) -> nn.Sequential:
            hidden = [convolution(width, width) for _ in range(options.depth)]
            return nn.Sequential(*hidden, nn.Conv2d(width, len(self.shapes) * outputs, 3, padding=1))

        self.classes, self.offsets = head(classes), head(4)
        last = self.classes[-1]
        assert isinstance(last, nn.Conv2d)
        begin_rare(last, slice(None), each=classes)

    def forward(self, image: Tensor) -> Answers:
        size = (image.shape[2], image.shape[3])
        maps = self.pyramid(self.stages(image)[-self.levels :])
        classes, offsets = (
            torch.cat([anchors.flat(head(x), len(self.shapes)) for x in maps], 1)
            for head in (self.classes, self.offsets)
        )
        # A place of a map is as many pixels of the image.
        places = [size[0] / x.shape[2] for x in maps]
        pixels = [[(width * side, height * side) for width, height in self.shapes] for side in places]
        return Answers(classes, offsets, anchors.pyramid(maps, size, pixels))
