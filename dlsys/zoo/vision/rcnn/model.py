"""R-CNN (Girshick et al. 2014, arXiv:1311.2524): each region that is proposed is warped to one size, and a
net says what it shows and where exactly it is.

Regions are selective search's, and come with the rows. The net is small and learns classes and boxes at once,
as Fast R-CNN's; the paper's learns classes first, and then support vector machines and regressions learn from
its features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlsys.zoo.layers.blocks import Stages
from dlsys.zoo.layers.regions import Head, Proposals, Regions, Truth, learnt_from, told
from dlsys.zoo.layers.roi import roi_align
from dlsys.zoo.tasks.detect_regions import DetectProposed, Outputs
from dlsys.zoo.vision.rcnn.card import CARD, RCNNOptions


class RCNN(DetectProposed):
    """Boxes in `image`, of the regions `proposals`."""

    Options = RCNNOptions
    card = CARD

    def build(self) -> nn.Module:
        return RCNNNet(self.shape.row["image"][0], self.shape.classes, self.options)


class RCNNNet(nn.Module):
    """From images (rows, channels, height, width) and their regions to `Outputs`."""

    def __init__(self, channels: int, classes: int, options: RCNNOptions) -> None:
        super().__init__()
        self.options = options
        self.stages = Stages((channels, *options.channels))
        side = options.side
        for _ in options.channels:
            side = -(-side // 2)
        self.head = Head(options.channels[-1] * side**2, options.hidden, classes)

    def forward(self, image: Tensor, proposed: Proposals, truth: Truth | None = None) -> Outputs:
        learnt = None
        if truth is not None:
            learnt = self.regions(image, learnt_from(proposed, truth, count=self.options.samples))
        found = None if self.training else told(self.regions(image, proposed), *image.shape[-2:])
        return Outputs(proposed, learnt, found)

    def regions(self, image: Tensor, proposed: Proposals) -> Regions:
        """What the net says of each region, on its own."""
        boxes = proposed.boxes
        around = (boxes[..., 2:] - boxes[..., :2]) * self.options.context
        # What lies outside of the image is its edge, over again.
        seen = torch.cat([boxes[..., :2] - around, boxes[..., 2:] + around], -1)
        crops = roi_align(image, seen, self.options.side, 1.0)
        features = self.stages(crops.flatten(0, 1))[-1].unflatten(0, boxes.shape[:2])
        return Regions(boxes, proposed.valid, *self.head(features))
