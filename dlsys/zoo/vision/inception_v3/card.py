"""The card of Inception-v3."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Count, Number, Positive, Section
from dlsys.spec.task import CLASSIFY


class InceptionV3Options(Section):
    """The size of an Inception-v3."""

    width: Positive = 0.25
    """Maps of every layer, as a multiple of the paper's."""
    stem: Literal["small", "large"] = "small"
    """`large`: the paper's, which needs images of 75 pixels a side or more, and divides them by 8.
    `small`: one convolution, for small images."""
    modules: tuple[Count, Count, Count] = (1, 1, 1)
    """Modules of 5 × 5 and 3 × 3 windows, of factorised 7 × 7, and expanded ones; the paper has 3, 4, 2."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The rate before the last layer."""


CARD = Card(
    name="inception-v3",
    title="Inception-v3: windows of n × n factorised into 1 × n and n × 1",
    paper="Szegedy et al. 2016, arXiv:1512.00567",
    workload="dlsys.zoo.vision.inception_v3.model:InceptionV3",
    options=InceptionV3Options,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={"299": {"width": 1.0, "stem": "large", "modules": [3, 4, 2], "dropout": 0.5}},
    published={"299": 23_834_568},
    at=Shape(row={"image": (3, 299, 299), "label": ()}, classes=1000),
    traits=("running-statistics", "dropout", "sequential"),
    inexact=lambda options: "batch norm sees only its own worker's rows",
    blocks=("stem", "large", "medium", "small", "head"),
    tiny=(Tiny(options={"width": 0.1}),),
)
