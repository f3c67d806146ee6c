"""The card of AlexNet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Fraction, Int, Positive, Section
from dlsys.spec.task import CLASSIFY


class AlexNetOptions(Section):
    """The size of AlexNet, its groups and its dropout."""

    width: Positive = 1.0
    """Scales the maps (96, 256, 384, 384, 256) and the units (4096, 4096)."""
    groups: Literal[1, 2] = 2
    """2: each half of the maps of convolutions 2, 4 and 5 sees half of the maps before it, as on the paper's
    two GPUs. 1: each sees all."""
    dropout: Fraction = 0.5
    """The probability of switching off a unit of the two hidden dense layers."""
    size: Annotated[Int, Field(ge=63)] = 63
    """Pixels a side to which smaller images are enlarged first; the paper's have 224. Of fewer than 63 the
    last pooling would leave nothing."""


def widths(options: AlexNetOptions) -> tuple[int, ...]:
    """Maps of the five convolutions and units of the two hidden dense layers, multiples of the groups."""
    paper, groups = (96, 256, 384, 384, 256, 4096, 4096), options.groups
    return tuple(groups * max(1, round(options.width * n / groups)) for n in paper)


def _plan(options: AlexNetOptions) -> dict[str, Cut]:
    layers = ("conv2.0", "conv4.0", "conv5.0") if options.groups > 1 else ()
    units = widths(options)[5]
    return {
        **{name: Cut("groups", options.groups) for name in layers},
        "dense6.0": Cut("column", units),
        "dense7.0": Cut("row", units),
    }


CARD = Card(
    name="alexnet",
    title="AlexNet: five convolutions, three dense layers",
    paper="Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks",
    workload="dlsys.zoo.vision.alexnet.model:AlexNet",
    options=AlexNetOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={"two-groups": {"groups": 2}, "one-group": {"groups": 1}},
    # The paper rounds to 60 million.
    published={"two-groups": 60_965_224, "one-group": 62_378_344},
    at=Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000),
    traits=("dropout", "sequential"),
    blocks=("conv1", "conv2", "conv3", "conv4", "conv5", "dense6", "dense7", "output"),
    tensor_plan=_plan,
    tiny=(
        Tiny(options={"width": 0.05, "dropout": 0.0}),
        Tiny(options={"width": 0.04, "groups": 1, "dropout": 0.0}),
    ),
)
