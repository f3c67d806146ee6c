"""The card of YOLO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Section
from dlsys.spec.task import DETECT


class YOLOOptions(Section):
    """The size of a YOLO."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (16, 32, 64)
    """Of each stage, which halves the image's sides once more."""
    hidden: Count = 256
    """Outputs of the first of the two dense layers."""
    grid: Count = 7
    """Cells of the image each way; an object belongs to the cell of its centre."""
    boxes: Count = 2
    """That each cell says, one of which answers for its object."""


CARD = Card(
    name="yolo",
    title="YOLO: a grid of cells, each of which says a few boxes and one class",
    paper="Redmon et al. 2015, arXiv:1506.02640",
    workload="dlsys.zoo.vision.yolo.model:YOLO",
    options=YOLOOptions,
    task=DETECT,
    tiny=(Tiny(options={"channels": [8, 8, 16], "hidden": 64}, learned=1.0),),
)
