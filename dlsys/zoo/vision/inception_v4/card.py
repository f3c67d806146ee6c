"""The card of Inception-v4 and Inception-ResNet-v2."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Bool, Count, Number, Positive, Section
from dlsys.spec.task import CLASSIFY


class InceptionV4Options(Section):
    """The size of an Inception-v4."""

    residual: Bool = False
    """Whether each module's result is brought to the maps that came in, and added to them:
    Inception-ResNet-v2."""
    width: Positive = 0.25
    """Maps of every layer, as a multiple of the paper's."""
    stem: Literal["small", "large"] = "small"
    """`large`: the paper's, which needs images of 75 pixels a side or more, and divides them by 8.
    `small`: one convolution, for small images."""
    modules: tuple[Count, Count, Count] = (1, 1, 1)
    """Modules of each of the three kinds; the paper has 4, 7 and 3, and of residual ones 10, 20 and 10."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """The rate before the last layer."""


_LARGE = {"width": 1.0, "stem": "large", "dropout": 0.2}
CARD = Card(
    name="inception-v4",
    title="Inception-v4, and with residual modules Inception-ResNet-v2",
    paper="Szegedy et al. 2017, arXiv:1602.07261",
    workload="dlsys.zoo.vision.inception_v4.model:InceptionV4",
    options=InceptionV4Options,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={
        "299": {**_LARGE, "modules": [4, 7, 3]},
        "resnet-v2": {**_LARGE, "modules": [10, 20, 10], "residual": True},
    },
    published={"299": 42_679_816, "resnet-v2": 55_843_464},
    at=Shape(row={"image": (3, 299, 299), "label": ()}, classes=1000),
    traits=("running-statistics", "dropout", "sequential"),
    inexact=lambda options: "batch norm sees only its own worker's rows",
    blocks=("stem", "large", "medium", "small", "head"),
    tiny=(Tiny(options={"width": 0.1}), Tiny(options={"width": 0.1, "residual": True})),
)
