"""SSD (Liu et al. 2016, arXiv:1512.02325): every cell of several maps of one net says of a few anchors what
they show and how they are to be moved.

The base is a small convolutional net rather than VGG-16, with group norms; anchors, matching, both losses and
hard negative mining are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.blocks import Stages
from dlsys.zoo.tasks.detect_anchors import Answers, DetectAnchors, hard_negatives
from dlsys.zoo.vision.ssd.card import CARD, SSDOptions


class SSD(DetectAnchors):
    """Boxes in `image`; class 0 of the logits is the ground."""

    Options = SSDOptions
    card = CARD
    low = DetectAnchors.high  # no anchor is between: the paper's

    def build(self) -> nn.Module:
        options = self.options
        if not len(options.sizes) == options.levels <= len(options.channels):
            raise UsageError(
                f"model.sizes: there are {options.levels} levels and {len(options.channels)} stages: "
                "say a size for each level, and no more levels than stages"
            )
        return SSDNet(self.shape.row["image"][0], self.shape.classes, options)

    def class_loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.mT, answers.clamp(min=-1) + 1, reduction="none")
        return torch.where(hard_negatives(losses, answers >= 0, self.options.negatives), losses, 0.0)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(2)[..., 1:]


class SSDNet(nn.Module):
    """From images (rows, channels, height, width) to `Answers`."""

    def __init__(self, channels: int, classes: int, options: SSDOptions) -> None:
        super().__init__()
        widths = (channels, *options.channels)
        self.stages = Stages(widths)
        # Of each level, the sizes of its anchors as shares of the image's shorter side.
        between = [(a * b) ** 0.5 for a, b in zip(options.sizes, [*options.sizes[1:], 1.0], strict=True)]
        self.shapes = [
            anchors.shapes(pair, options.ratios) for pair in zip(options.sizes, between, strict=True)
        ]
        outputs = classes + 1 + 4
        self.heads = nn.ModuleList(
            nn.Conv2d(width, len(shapes) * outputs, 3, padding=1)
            for width, shapes in zip(widths[-options.levels :], self.shapes, strict=True)
        )

    def forward(self, image: Tensor) -> Answers:
        size = (image.shape[2], image.shape[3])
        maps = self.stages(image)[-len(self.heads) :]
        heads = zip(maps, self.heads, self.shapes, strict=True)
        answers = torch.cat([anchors.flat(head(x), len(shapes)) for x, head, shapes in heads], 1)
        pixels = [
            [(width * min(size), height * min(size)) for width, height in level] for level in self.shapes
        ]
        return Answers(answers[..., 4:], answers[..., :4], anchors.pyramid(maps, size, pixels))
