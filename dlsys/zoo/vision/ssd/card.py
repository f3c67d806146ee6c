"""The card of SSD."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import DETECT


class SSDOptions(Section):
    """The maps of an SSD, and the anchors over them."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (16, 32, 64, 64, 64)
    """Of each stage, which halves the image's sides once more."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    """How many of the last stages' maps have anchors."""
    sizes: Annotated[tuple[Positive, ...], Field(strict=False)] = (0.15, 0.3, 0.6)
    """Of each level, its anchors' side as a share of the image's shorter one; each level also has one between
    its own size and the next."""
    ratios: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (1.0, 2.0, 0.5)
    """Width by height of the anchors of a place."""
    negatives: Positive = 3.0
    """How many anchors without an object learn for each one with an object: the worst ones."""


CARD = Card(
    name="ssd",
    title="SSD: anchors on several maps, one pass, hard negatives",
    paper="Liu et al. 2016, arXiv:1512.02325",
    workload="dlsys.zoo.vision.ssd.model:SSD",
    options=SSDOptions,
    task=DETECT,
    tiny=(Tiny(options={"channels": [16, 16, 32, 32], "levels": 2, "sizes": [0.3, 0.6]}, learned=1.0),),
)
