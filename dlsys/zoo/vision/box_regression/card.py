"""The card of box regression."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Section
from dlsys.spec.task import LOCATE


class BoxRegressionOptions(Section):
    """The size of a net that says one box."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (16, 32, 32)
    """Of each stage, which halves the image's sides once more."""
    hidden: Count = 128
    """Outputs of the dense layer before the last."""


CARD = Card(
    name="box-regression",
    title="Box regression: one object's centre and size as four numbers",
    paper="Szegedy, Toshev and Erhan 2013, Deep Neural Networks for Object Detection (NIPS)",
    workload="dlsys.zoo.vision.box_regression.model:BoxRegression",
    options=BoxRegressionOptions,
    task=LOCATE,
    tiny=(Tiny(options={"channels": [8, 8, 16], "hidden": 32}, learned=0.01),),
)
