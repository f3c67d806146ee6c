"""The card of U-Net."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_MASKS
from dlsys.spec.section import Bool, Count, Section
from dlsys.spec.task import SEGMENT


class UNetOptions(Section):
    """The levels of a U-Net."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (16, 32, 64, 64)
    """Of each level, from the image's own size down; each next one has half the sides. The paper's are 64,
    128, 256, 512 and 1,024."""
    skips: Bool = True
    """Whether each level's map on the way down is set beside the one on the way up."""


CARD = Card(
    name="unet",
    title="U-Net: down and up again, each level's map set beside its own on the way up",
    paper="Ronneberger, Fischer and Brox 2015, arXiv:1505.04597",
    workload="dlsys.zoo.vision.unet.model:UNet",
    options=UNetOptions,
    task=SEGMENT,
    takes=(IMAGES_WITH_MASKS,),
    tiny=(Tiny(options={"channels": [16, 32]}, learned=0.4),),
)
