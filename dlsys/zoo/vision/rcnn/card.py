"""The card of R-CNN."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_PROPOSALS
from dlsys.spec.section import Count, NonNegative, Section
from dlsys.spec.task import DETECT, PROPOSALS


class RCNNOptions(Section):
    """What a region is warped to, and the net that looks at it."""

    side: Count = 24
    """Pixels that a region is warped to, each way."""
    context: NonNegative = 0.15
    """How much of its surroundings is seen on each side of a region, as a share of its width and height."""
    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (16, 32, 64)
    """Of each stage, which halves the sides once more."""
    samples: Annotated[int, Field(ge=4)] = 32
    """How many regions of a row it learns from, at most a quarter of them with an object."""
    hidden: Count = 128
    """Units of the head's two layers."""


CARD = Card(
    name="rcnn",
    title="R-CNN: a net looks at each proposed region by itself",
    paper="Girshick et al. 2014, arXiv:1311.2524",
    workload="dlsys.zoo.vision.rcnn.model:RCNN",
    options=RCNNOptions,
    task=DETECT,
    takes=(IMAGES_WITH_PROPOSALS,),
    extra=PROPOSALS,
    tiny=(Tiny(options={"side": 12, "channels": [16, 16], "samples": 12, "hidden": 32}, learned=0.5),),
)
