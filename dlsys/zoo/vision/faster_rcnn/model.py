"""Faster R-CNN (Ren et al. 2015, arXiv:1506.01497): a small net on a map proposes regions, and a head says of
the same map's features of each region what it shows and where exactly it is.

With `pyramid` there are several maps (Lin et al. 2017, arXiv:1612.03144), each for regions of another size.
The base is a small convolutional net rather than VGG-16, with group norms; regions' features are RoIAlign's
(He et al. 2017), and both stages learn at once, as most do it since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlsys.data import rowwise
from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers import anchors, rpn
from dlsys.zoo.layers.blocks import Stages
from dlsys.zoo.layers.pyramid import FeaturePyramid, level_of
from dlsys.zoo.layers.regions import Head, Proposals, Regions, Truth, learnt_from, told
from dlsys.zoo.layers.roi import roi_align
from dlsys.zoo.tasks.detect_regions import ANCHORS, DetectRegions, Outputs
from dlsys.zoo.vision.faster_rcnn.card import CARD, FasterRCNNOptions
from dlsys.zoo.workload import Batch, Loss

# Anchors that are looked at for each region that is proposed.
_CANDIDATES = 4


@dataclass(frozen=True)
class FasterOutputs(Outputs):
    """Those of Faster R-CNN, with what its first stage says of each anchor."""

    anchored: rpn.Anchored


class FasterRCNN(DetectRegions):
    """Boxes in `image`."""

    Options = FasterRCNNOptions
    card = CARD

    @property
    def most(self) -> int:
        return int(self.options.proposals)

    def build(self) -> nn.Module:
        return FasterRCNNNet(self.shape.row["image"][0], self.shape.classes, self.options)

    def objective(self, outputs: FasterOutputs, batch: Batch) -> Loss:  # type: ignore[override]
        loss = super().objective(outputs, batch)
        said = outputs.anchored
        boxes, labels = self.targets(batch)
        chance = rowwise.uniform(batch["key"], said.shows.shape[1], stream=ANCHORS)
        shows, place = rpn.losses(said, Truth(boxes, labels, chance), count=self.options.anchors)
        metrics = {"loss_anchor": shows.mean(), "loss_anchor_place": place.mean()}
        return Loss(loss.value + (shows + place).mean(), {**loss.metrics, **metrics})


class FasterRCNNNet(nn.Module):
    """From images (rows, channels, height, width), and the truth if there is something to learn, to
    `FasterOutputs`."""

    def __init__(self, channels: int, classes: int, options: FasterRCNNOptions) -> None:
        super().__init__()
        self.options = options
        self.stages = Stages((channels, *options.channels))
        if options.pyramid:
            self.levels, self.width = len(options.sizes), options.width
            self.pyramid = FeaturePyramid(options.channels[-self.levels :], options.width)
            shapes = [anchors.shapes([size], options.ratios) for size in options.sizes]
        else:
            self.levels, self.width = 1, options.channels[-1]
            shapes = [anchors.shapes(options.sizes, options.ratios)]
        self.first = rpn.RegionProposals(self.width, shapes)
        self.head = Head(self.width * options.pool**2, options.hidden, classes)

    def forward(self, image: Tensor, truth: Truth | None = None) -> FasterOutputs:
        return self.answers(self.maps(image), image, truth)

    def answers(self, maps: Sequence[Tensor], image: Tensor, truth: Truth | None) -> FasterOutputs:
        """What is said of the maps of images."""
        height, width = image.shape[-2:]
        anchored = self.first(maps, image)
        most = self.options.proposals
        proposed = rpn.proposed(anchored, height, width, candidates=_CANDIDATES * most, most=most)
        learnt = None
        if truth is not None:
            chosen = learnt_from(proposed, truth, count=self.options.samples)
            learnt = self.regions(maps, chosen, image)
        found = None if self.training else self.find(maps, proposed, image)
        return FasterOutputs(proposed, learnt, found, anchored)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Those that regions are looked at in, the largest first."""
        last: list[Tensor] = self.stages(image)[-self.levels :]
        return self.pyramid(last) if self.options.pyramid else last

    def features(self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor, side: int) -> Tensor:
        """Of regions (rows, n, 4), each from the map for its size: (rows, n, channels, side, side)."""
        height, width = image.shape[-2:]
        sizes = [size * min(height, width) for size in self.options.sizes]
        level = level_of(boxes, sizes)[..., None, None, None]
        # Every region from every map, and then its own: so shapes are the same whatever the boxes are.
        first = 2 ** (len(self.stages) - self.levels + 1)
        every = [roi_align(x, boxes, side, first * 2**number) for number, x in enumerate(maps)]
        if len(every) == 1:
            return every[0]
        return torch.stack([x * (level == number) for number, x in enumerate(every)]).sum(0)

    def regions(self, maps: Sequence[Tensor], proposed: Proposals, image: Tensor) -> Regions:
        """What the head says."""
        classes, offsets = self.head(self.features(maps, proposed.boxes, image, self.options.pool))
        return Regions(proposed.boxes, proposed.valid, classes, offsets)

    def find(self, maps: Sequence[Tensor], proposed: Proposals, image: Tensor) -> Detections:
        """What there is to be found."""
        return told(self.regions(maps, proposed, image), *image.shape[-2:])
