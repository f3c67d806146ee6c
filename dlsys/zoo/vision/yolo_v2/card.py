"""The card of YOLOv2."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import DETECT


class YOLOv2Options(Section):
    """The size of a YOLOv2, and its anchors."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (16, 32, 64)
    """Of each stage, which halves the image's sides once more; the last one's places are the cells."""
    width: Count = 64
    """Channels of the head."""
    anchors: Annotated[
        tuple[Annotated[tuple[Positive, Positive], Field(strict=False)], ...],
        Field(strict=False, min_length=1),
    ] = ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.4, 0.2), (0.2, 0.4))
    """Width and height of a cell's anchors, as shares of the image's. `dlsys data anchors JOB` finds those
    that are most like the boxes of a job's training rows."""


CARD = Card(
    name="yolo-v2",
    title="YOLOv2: a grid of cells with anchors, found from the data",
    paper="Redmon and Farhadi 2016, arXiv:1612.08242",
    workload="dlsys.zoo.vision.yolo_v2.model:YOLOv2",
    options=YOLOv2Options,
    task=DETECT,
    tiny=(Tiny(options={"channels": [8, 8, 16], "width": 32}, learned=1.0),),
)
