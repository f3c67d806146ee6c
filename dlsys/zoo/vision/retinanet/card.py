"""The card of RetinaNet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, NonNegative, Positive, Section
from dlsys.spec.task import DETECT


class RetinaNetOptions(Section):
    """The maps of a RetinaNet, its heads, and what its classes learn by."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (16, 32, 64, 64)
    """Of each stage, which halves the image's sides once more."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """How many of the last stages' maps have anchors."""
    width: Count = 32
    """Channels of the pyramid's maps and of the heads."""
    depth: Count = 2
    """Convolutions of each head before its last one."""
    size: Positive = 3.0
    """Side of a place's smallest anchors, in places of its map; the paper's are 4 of 8 pixels and more."""
    loss: Literal["focal", "cross-entropy"] = "focal"
    """What classes learn by: what is right already counts less, or every anchor counts alike."""
    gamma: NonNegative = 2.0
    """How much less it counts under `focal`."""


CARD = Card(
    name="retinanet",
    title="RetinaNet: a pyramid with anchors everywhere, and the focal loss",
    paper="Lin et al. 2017, arXiv:1708.02002",
    workload="dlsys.zoo.vision.retinanet.model:RetinaNet",
    options=RetinaNetOptions,
    task=DETECT,
    tiny=(Tiny(options={"channels": [8, 16, 16, 16], "levels": 2, "width": 16, "depth": 1}, learned=0.6),),
)
