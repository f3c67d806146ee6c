"""The card of SqueezeSegV2."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import SCANS_WITH_MASKS
from dlsys.spec.section import Bool, Count, Section
from dlsys.spec.task import SEGMENT


class SqueezeSegV2Options(Section):
    """The levels of a SqueezeSegV2."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (16, 32, 64)
    """Of each level's map; each next one has half the columns, and all lines. The paper's are 64, 128, 256,
    384 and 512."""
    context: Bool = True
    """Whether maps are weighed by what is around each place (context aggregation), which lost returns then
    harm less."""


CARD = Card(
    name="squeezeseg-v2",
    title="SqueezeSegV2: laser scans as images, by fire modules and context aggregation",
    paper="Wu et al. 2018, arXiv:1809.08495",
    workload="dlsys.zoo.vision.squeezeseg.model:SqueezeSegV2",
    options=SqueezeSegV2Options,
    task=SEGMENT,
    takes=(SCANS_WITH_MASKS,),
    tiny=(Tiny(options={"channels": [16, 16]}, learned=0.3),),
)
