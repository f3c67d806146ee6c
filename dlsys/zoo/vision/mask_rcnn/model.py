"""Mask R-CNN (He et al. 2017, arXiv:1703.06870): Faster R-CNN, and beside its head a branch of convolutions
that draws a mask of a region for each class.

Classes do not compete for a pixel: the head alone says which of the masks is meant. Masks are learnt in
regions that show an object, and drawn in the boxes that were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.layers.regions import SHOWS, Proposals, Truth, answering, most_shown
from dlsys.zoo.layers.roi import pasted, roi_align
from dlsys.zoo.tasks.detect_instances import DetectInstances
from dlsys.zoo.vision.faster_rcnn.model import FasterOutputs, FasterRCNN, FasterRCNNNet
from dlsys.zoo.vision.mask_rcnn.card import CARD, MaskRCNNOptions
from dlsys.zoo.workload import Batch, Loss


@dataclass(frozen=True)
class MaskOutputs(FasterOutputs):
    """Those of Faster R-CNN, and `masks`: logits (rows, n, classes, side, side) of the first regions that
    rows learn from, among which are all that show an object; None where nothing is to be learnt."""

    masks: Tensor | None


class MaskRCNN(DetectInstances, FasterRCNN):
    """Boxes and masks in `image`."""

    Options = MaskRCNNOptions
    card = CARD

    def build(self) -> nn.Module:
        return MaskRCNNNet(self.shape.row["image"][0], self.shape.classes, self.options)

    def objective(self, outputs: MaskOutputs, batch: Batch) -> Loss:  # type: ignore[override]
        loss = super().objective(outputs, batch)
        boxes, labels = self.targets(batch)
        assert outputs.masks is not None
        assert outputs.learnt is not None
        rows, count, _, side, _ = outputs.masks.shape
        regions = outputs.learnt.boxes[:, :count]
        number, overlap = answering(regions, boxes, labels)
        shows = outputs.learnt.valid[:, :count] & (overlap >= SHOWS)
        label = labels.gather(1, number).clamp(min=0)
        said = of_class(outputs.masks, label)
        masks = batch["masks"][torch.arange(rows, device=number.device)[:, None], number].to(regions.dtype)
        # The object's mask as the region sees it, half of a bin's pixels being enough.
        wanted = roi_align(masks.flatten(0, 1)[:, None], regions.reshape(-1, 1, 4), side, 1.0)
        wanted = (wanted.view(rows, count, side, side) >= 0.5).to(said.dtype)
        wrong = F.binary_cross_entropy_with_logits(said, wanted, reduction="none").mean((2, 3))
        mask = (wrong * shows).sum(1) / shows.sum(1).clamp(min=1)
        return Loss(loss.value + mask.mean(), {**loss.metrics, "loss_mask": mask.mean()})


def of_class(masks: Tensor, labels: Tensor) -> Tensor:
    """Of masks (rows, n, classes, side, side), those of the labels (rows, n): (rows, n, side, side)."""
    index = labels[..., None, None, None].expand(-1, -1, 1, *masks.shape[-2:])
    return masks.gather(2, index).squeeze(2)


class MaskRCNNNet(FasterRCNNNet):
    """From images (rows, channels, height, width), and the truth if there is something to learn, to
    `MaskOutputs`."""

    def __init__(self, channels: int, classes: int, options: MaskRCNNOptions) -> None:
        super().__init__(channels, classes, options)
        width, self.side = options.mask_channels, options.mask_pool
        self.branch = nn.Sequential(
            convolution(self.width, width),
            convolution(width, width),
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, classes, 1),
        )

    def answers(self, maps: Sequence[Tensor], image: Tensor, truth: Truth | None) -> MaskOutputs:
        known = super().answers(maps, image, truth)
        masks = None
        if known.learnt is not None:
            boxes = known.learnt.boxes[:, : most_shown(self.options.samples)]
            masks = self.masks(maps, boxes, image)
        return MaskOutputs(**{field.name: getattr(known, field.name) for field in fields(known)}, masks=masks)

    def masks(self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """Logits of the masks of boxes (rows, n, 4): (rows, n, classes, side, side)."""
        features = self.features(maps, boxes, image, self.side)
        masks: Tensor = self.branch(features.flatten(0, 1))
        return masks.view(*boxes.shape[:2], *masks.shape[1:])

    def find(self, maps: Sequence[Tensor], proposed: Proposals, image: Tensor) -> Detections:
        found = super().find(maps, proposed, image)
        # Masks are costly: none is drawn for places behind the last detection of all rows.
        most = max(1, int((found.labels >= 0).sum(1).max()))
        boxes, scores, labels = found.boxes[:, :most], found.scores[:, :most], found.labels[:, :most]
        masks = of_class(self.masks(maps, boxes, image), labels.clamp(min=0)).sigmoid()
        return Detections(boxes, scores, labels, pasted(masks, boxes, *image.shape[-2:]) > 0.5)
