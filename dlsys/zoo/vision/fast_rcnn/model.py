"""Fast R-CNN (Girshick 2015, arXiv:1504.08083): a net makes a map of the image once, each region that is
proposed is pooled from it to one size, and a head says what it shows and where exactly it is.

Regions are selective search's, and come with the rows. The base is a small convolutional net rather than
VGG-16, with group norms.
"""

from __future__ import annotations

from torch import Tensor, nn

from dlsys.zoo.layers.blocks import Stages
from dlsys.zoo.layers.regions import Head, Proposals, Regions, Truth, learnt_from, told
from dlsys.zoo.layers.roi import roi_align, roi_pool
from dlsys.zoo.tasks.detect_regions import DetectProposed, Outputs
from dlsys.zoo.vision.fast_rcnn.card import CARD, FastRCNNOptions


class FastRCNN(DetectProposed):
    """Boxes in `image`, of the regions `proposals`."""

    Options = FastRCNNOptions
    card = CARD

    def build(self) -> nn.Module:
        return FastRCNNNet(self.shape.row["image"][0], self.shape.classes, self.options)


class FastRCNNNet(nn.Module):
    """From images (rows, channels, height, width) and their regions to `Outputs`."""

    def __init__(self, channels: int, classes: int, options: FastRCNNOptions) -> None:
        super().__init__()
        self.options = options
        self.stages = Stages((channels, *options.channels))
        self.stride = 2 ** len(options.channels)
        self.features = roi_align if options.align else roi_pool
        self.head = Head(options.channels[-1] * options.pool**2, options.hidden, classes)

    def forward(self, image: Tensor, proposed: Proposals, truth: Truth | None = None) -> Outputs:
        x, learnt = self.stages(image)[-1], None
        if truth is not None:
            chosen = learnt_from(proposed, truth, count=self.options.samples)
            learnt = self.regions(x, chosen)
        found = None if self.training else told(self.regions(x, proposed), *image.shape[-2:])
        return Outputs(proposed, learnt, found)

    def regions(self, x: Tensor, proposed: Proposals) -> Regions:
        """What the head says of regions of a map."""
        features = self.features(x, proposed.boxes, self.options.pool, self.stride)
        return Regions(proposed.boxes, proposed.valid, *self.head(features))
