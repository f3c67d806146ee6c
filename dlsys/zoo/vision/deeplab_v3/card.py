"""The card of DeepLab v3."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_MASKS
from dlsys.spec.section import Bool, Count, Section
from dlsys.spec.task import SEGMENT


class DeepLabV3Options(Section):
    """The stages of a DeepLab, and what looks at its last map."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (24, 48, 64, 64)
    """Of each stage. Each halves the sides once more until one place stands for `stride` pixels; from there
    on each looks twice as far instead."""
    stride: Literal[1, 2, 4, 8, 16, 32] = 4
    """The image's pixels, each way, of one place of the last map: the paper's output stride, there 16 or
    8."""
    aspp: Bool = True
    """Whether the last map is looked at at several rates (atrous spatial pyramid pooling); else by one
    convolution."""
    rates: Annotated[tuple[Count, ...], Field(strict=False)] = (2, 4, 6)
    """How far apart the places stand that each 3 × 3 convolution of the pyramid looks at; there is one of 1 ×
    1 besides. The paper's are 6, 12 and 18, for larger maps."""
    image_pooling: Bool = True
    """Whether the pyramid also has the mean of the whole map."""
    pyramid: Count = 48
    """Channels of each part of the pyramid."""


CARD = Card(
    name="deeplab-v3",
    title="DeepLab v3: atrous convolutions, which look far at full resolution, at several rates at once",
    paper="Chen et al. 2017, arXiv:1706.05587",
    workload="dlsys.zoo.vision.deeplab_v3.model:DeepLabV3",
    options=DeepLabV3Options,
    task=SEGMENT,
    takes=(IMAGES_WITH_MASKS,),
    tiny=(
        Tiny(options={"channels": [16, 16], "stride": 1, "rates": [1, 2], "pyramid": 16}, learned=0.7),
        Tiny(options={"channels": [16, 16], "stride": 1, "aspp": False, "pyramid": 16}, learned=0.7),
    ),
)
