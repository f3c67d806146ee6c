"""The card of Fast R-CNN."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_PROPOSALS
from dlsys.spec.section import Bool, Count, Section
from dlsys.spec.task import DETECT, PROPOSALS


class FastRCNNOptions(Section):
    """The map, and what is made of a region of it."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (16, 32)
    """Of each stage, which halves the image's sides once more."""
    pool: Count = 5
    """Side of what a region's features are pooled to."""
    align: Bool = True
    """Whether a region's features are interpolated (RoIAlign, He et al. 2017); otherwise its edges are
    rounded to cells, as the paper has it, and boxes of a small image are placed less exactly."""
    samples: Annotated[int, Field(ge=4)] = 32
    """How many regions of a row it learns from, at most a quarter of them with an object."""
    hidden: Count = 128
    """Units of the head's two layers."""


_TINY = {"channels": [16, 16], "pool": 3, "samples": 12, "hidden": 32}
CARD = Card(
    name="fast-rcnn",
    title="Fast R-CNN: a net looks at the image once, and a head at each proposed region of its map",
    paper="Girshick 2015, arXiv:1504.08083",
    workload="dlsys.zoo.vision.fast_rcnn.model:FastRCNN",
    options=FastRCNNOptions,
    task=DETECT,
    takes=(IMAGES_WITH_PROPOSALS,),
    extra=PROPOSALS,
    tiny=(Tiny(options=_TINY, learned=0.5), Tiny(options={**_TINY, "align": False}, learned=0.5)),
)
