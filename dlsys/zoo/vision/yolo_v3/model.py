"""YOLOv3 (Redmon and Farhadi 2018, arXiv:1804.02767): cells on three maps of a residual net, the late ones of
which are enlarged and put beside the early ones, and a yes or no for each class.

The base is smaller than Darknet-53 and has group norms, and boxes begin as sure of nothing; the rest is the
paper's.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.layers.focal import begin_rare
from dlsys.zoo.tasks.detect_cells import Cells, DetectCells, cells_of
from dlsys.zoo.vision.yolo_v3.card import CARD, YOLOv3Options

# Maps that have cells.
_SCALES = 3


class YOLOv3(DetectCells):
    """Boxes in `image`; an anchor may show several classes."""

    Options = YOLOv3Options
    card = CARD
    near = 0.5

    def build(self) -> nn.Module:
        if len(self.options.anchors) % _SCALES:
            raise UsageError(
                f"model.anchors: {len(self.options.anchors)} cannot be dealt out to {_SCALES} maps equally: "
                f"say a multiple of {_SCALES}"
            )
        return YOLOv3Net(self.shape.row["image"][0], self.shape.classes, self.options)

    def sure_loss(self, logits: Tensor, answers: Tensor, overlap: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, answers.to(logits.dtype), reduction="none")

    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        wanted = F.one_hot(labels, logits.shape[2]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(2)

    def scores(self, classes: Tensor) -> Tensor:
        return classes.sigmoid()


class Residual(nn.Module):
    """Two convolutions, the first of half the channels, beside which their input passes: (rows, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.change = nn.Sequential(convolution(channels, half, 1), convolution(half, channels))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.change(x)
        return x + changed


class YOLOv3Net(nn.Module):
    """From images (rows, channels, height, width) to `Cells`."""

    def __init__(self, channels: int, classes: int, options: YOLOv3Options) -> None:
        super().__init__()
        each = len(options.anchors) // _SCALES
        self.anchors = [options.anchors[place * each : (place + 1) * each] for place in range(_SCALES)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                convolution(inputs, outputs, stride=2), *(Residual(outputs) for _ in range(options.blocks))
            )
            for inputs, outputs in pairwise((channels, *options.channels))
        )
        widths = options.channels[-_SCALES:]
        # A map and what is enlarged of the one behind it, which the last one has not.
        behind = [max(1, width // 2) for width in widths[1:]] + [0]
        self.join = nn.ModuleList(
            nn.Sequential(convolution(width + more, width, 1), convolution(width, width))
            for width, more in zip(widths, behind, strict=True)
        )
        self.shrink = nn.ModuleList(
            convolution(width, more, 1) for width, more in zip(widths[1:], behind, strict=False)
        )

        def head(width: int) -> nn.Sequential:
            last = nn.Conv2d(width, each * (5 + classes), 1)
            begin_rare(last, slice(4, 5), each=5 + classes)
            return nn.Sequential(convolution(width, width), last)

        self.heads = nn.ModuleList(map(head, widths))

    def forward(self, image: Tensor) -> Cells:
        maps, x = [], image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps = maps[-_SCALES:]
        x = self.join[-1](maps[-1])
        joined = [x]
        for map, join, shrink in zip(maps[-2::-1], self.join[-2::-1], self.shrink[::-1], strict=True):
            enlarged = F.interpolate(shrink(x), size=map.shape[-2:], mode="nearest")
            x = join(torch.cat([map, enlarged], 1))
            joined.append(x)
        said = [head(x) for head, x in zip(self.heads, reversed(joined), strict=True)]
        return cells_of(said, image, self.anchors)
