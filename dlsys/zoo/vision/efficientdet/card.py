"""The card of EfficientDet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import DETECT


class EfficientDetOptions(Section):
    """The compound size of an EfficientDet. Without a preset: one for images of 64 pixels."""

    base_width: Positive = 0.5
    """Channels of the base, in those of EfficientNet-B0."""
    base_depth: Positive = 0.3
    """Blocks of each of the base's stages, likewise, one at least."""
    levels: Annotated[int, Field(ge=2, le=7)] = 3
    """Maps of the pyramid, from the one of an 8th of the image's sides on."""
    width: Count = 32
    """Channels of the pyramid's maps and of the heads."""
    rounds: Count = 2
    """How often the pyramid is walked, down and up."""
    depth: Count = 1
    """Convolutions of each head before its last one."""
    size: Positive = 2.0
    """Side of a place's smallest anchors, in places of its map."""


def _compound(number: int, base_width: float, base_depth: float, width: int) -> dict[str, object]:
    """Equations 1 and 2 of the paper, whose rounding of widths is its table 1's."""
    return {
        "base_width": base_width,
        "base_depth": base_depth,
        "levels": 5,
        "width": width,
        "rounds": 3 + number,
        "depth": 3 + number // 3,
        "size": 4.0,
    }


CARD = Card(
    name="efficientdet",
    title="EfficientDet: a pyramid walked both ways, whose maps are weighed, in sizes that grow as one",
    paper="Tan, Pang and Le 2019, arXiv:1911.09070",
    workload="dlsys.zoo.vision.efficientdet.model:EfficientDet",
    options=EfficientDetOptions,
    task=DETECT,
    presets={"d0": _compound(0, 1.0, 1.0, 64), "d1": _compound(1, 1.0, 1.1, 88)},
    tiny=(Tiny(options={"base_width": 0.1, "base_depth": 0.1, "levels": 2, "width": 16, "rounds": 1}),),
)
