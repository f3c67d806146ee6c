"""The region proposal network of Faster R-CNN (Ren et al. 2015, arXiv:1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.layers.boxes import best, clip, decode, encode
from dlsys.zoo.layers.regions import Proposals, Truth, sample

# How much an anchor overlaps an object that it answers for, and below how much it is ground. The paper's 0.7
# is for nine anchors a cell, of which one is nearly the object's size.
_HIGH, _LOW = 0.5, 0.3
# Of what is proposed, how much two may overlap.
_OVERLAP = 0.7
# At most so much of what a row learns from shows an object.
_SHARE = 0.5


@dataclass(frozen=True)
class Anchored:
    """What the net says of each anchor.

    Attributes:
        shows: logits (rows, anchors) of showing an object, of whatever class.
        offsets: (rows, anchors, 4), as `boxes.encode` makes them.
        anchors: (anchors, 4), in pixels.
    """

    shows: Tensor
    offsets: Tensor
    anchors: Tensor


class RegionProposals(nn.Module):
    """Says of the anchors at every cell of some maps whether they show an object, and how to move them.

    Args:
        width: channels of the maps; all share the same weights.
        shapes: of each map, widths and heights of a cell's anchors, as many for each map, as shares of an
            image's shorter side.
    """

    def __init__(self, width: int, shapes: Sequence[Sequence[tuple[float, float]]]) -> None:
        super().__init__()
        self.shapes = shapes
        self.shared = convolution(width, width)
        self.outputs = nn.Conv2d(width, 5 * len(shapes[0]), 1)

    def forward(self, maps: Sequence[Tensor], image: Tensor) -> Anchored:
        size = (image.shape[2], image.shape[3])
        said = [anchors.flat(self.outputs(self.shared(x)), len(self.shapes[0])) for x in maps]
        pixels = [[(w * min(size), h * min(size)) for w, h in shapes] for shapes in self.shapes]
        answers = torch.cat(said, 1)
        return Anchored(answers[..., 4], answers[..., :4], anchors.pyramid(maps, size, pixels))


@torch.no_grad()
def proposed(said: Anchored, height: int, width: int, *, candidates: int, most: int) -> Proposals:
    """The regions that an image is proposed; no gradient goes through them.

    Args:
        height, width: of the image.
        candidates: how many anchors are looked at, those with the highest scores.
        most: regions of an image.
    """
    boxes = clip(decode(said.offsets, said.anchors), height, width)
    scores = said.shows.sigmoid()[..., None]
    boxes, _, labels = best(boxes, scores, score=-1.0, overlap=_OVERLAP, candidates=candidates, most=most)
    # What lies outside of the image is nothing to look at.
    return Proposals(boxes, (labels >= 0) & (boxes[..., 2:] - boxes[..., :2] > 1).all(2))


def losses(said: Anchored, truth: Truth, *, count: int) -> tuple[Tensor, Tensor]:
    """The losses of a row: the mean of what shows an object, and of where those that do are: (rows,) twice.

    Args:
        truth: with a chance for each anchor.
        count: how many anchors a row learns from.
    """
    boxes, labels = truth.boxes, truth.labels
    taken = anchors.match(boxes, labels, said.anchors, high=_HIGH, low=_LOW)
    index, drawn = sample(taken >= 0, taken == anchors.BACKGROUND, truth.chance, count, _SHARE)
    number = taken.gather(1, index)
    shows = drawn & (number >= 0)
    entropy = F.binary_cross_entropy_with_logits(
        said.shows.gather(1, index), shows.to(said.shows.dtype), reduction="none"
    )
    wide = index[..., None].expand(-1, -1, 4)
    wanted = encode(boxes.gather(1, number.clamp(min=0)[..., None].expand(-1, -1, 4)), said.anchors[index])
    missed = F.smooth_l1_loss(said.offsets.gather(1, wide), wanted, reduction="none").sum(2)
    kind = (entropy * drawn).sum(1) / drawn.sum(1).clamp(min=1)
    return kind, (missed * shows).sum(1) / shows.sum(1).clamp(min=1)
