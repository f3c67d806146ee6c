"""The card of YOLOv3."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import DETECT


class YOLOv3Options(Section):
    """The size of a YOLOv3, and its anchors."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=3)] = (16, 32, 64, 64)
    """Of each stage, which halves the image's sides once more; the last three have cells."""
    blocks: Count = 1
    """Residual blocks of a stage."""
    anchors: Annotated[
        tuple[Annotated[tuple[Positive, Positive], Field(strict=False)], ...],
        Field(strict=False, min_length=3),
    ] = (
        (0.1, 0.1),
        (0.15, 0.15),
        (0.2, 0.2),
        (0.25, 0.25),
        (0.3, 0.3),
        (0.4, 0.4),
        (0.5, 0.5),
        (0.6, 0.6),
        (0.8, 0.8),
    )
    """Width and height of anchors, as shares of the image's, the smallest first: the first third of them for
    the first of the three maps. `dlsys data anchors JOB` finds those that are most like the boxes of a job's
    training rows."""


CARD = Card(
    name="yolo-v3",
    title="YOLOv3: cells of three sizes, and a score for each class",
    paper="Redmon and Farhadi 2018, arXiv:1804.02767",
    workload="dlsys.zoo.vision.yolo_v3.model:YOLOv3",
    options=YOLOv3Options,
    task=DETECT,
    tiny=(
        Tiny(
            options={"channels": [8, 8, 16, 16], "anchors": [[0.3, 0.3], [0.5, 0.5], [0.7, 0.7]]}, learned=3.0
        ),
    ),
)
