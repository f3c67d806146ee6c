"""YOLOv2 (Redmon and Farhadi 2016, arXiv:1612.08242): a convolutional net says of each anchor of its cells
how its box differs, how sure it is, and which class it shows.

The base is a small convolutional net rather than Darknet-19, with group norms; anchors found by k-means,
places bound to their cells, the early map beside the late one and the softmax of classes are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import Stages, convolution
from dlsys.zoo.tasks.detect_cells import Cells, DetectCells, cells_of
from dlsys.zoo.vision.yolo_v2.card import CARD, YOLOv2Options


class YOLOv2(DetectCells):
    """Boxes in `image`; an anchor shows one class."""

    Options = YOLOv2Options
    card = CARD

    def build(self) -> nn.Module:
        return YOLOv2Net(self.shape.row["image"][0], self.shape.classes, self.options)

    def sure_loss(self, logits: Tensor, answers: Tensor, overlap: Tensor) -> Tensor:
        return (logits.sigmoid() - overlap).square()

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.mT, labels, reduction="none")

    def scores(self, classes: Tensor) -> Tensor:
        return classes.softmax(2)


class YOLOv2Net(nn.Module):
    """From images (rows, channels, height, width) to `Cells`."""

    def __init__(self, channels: int, classes: int, options: YOLOv2Options) -> None:
        super().__init__()
        self.anchors = options.anchors
        self.stages = Stages((channels, *options.channels))
        early, late = options.channels[-2:]
        self.sideways = convolution(early, late // 4 or 1, 1)
        self.head = nn.Sequential(
            convolution(late + 4 * (late // 4 or 1), options.width),
            convolution(options.width, options.width),
            nn.Conv2d(options.width, len(options.anchors) * (5 + classes), 1),
        )

    def forward(self, image: Tensor) -> Cells:
        *_, early, late = self.stages(image)
        # Four places of the early map are one of the late one: they stand there as channels.
        early = self.sideways(early)
        early = F.pad(early, (0, early.shape[3] % 2, 0, early.shape[2] % 2))
        x = torch.cat([late, F.pixel_unshuffle(early, 2)], 1)
        return cells_of([self.head(x)], image, [self.anchors])
