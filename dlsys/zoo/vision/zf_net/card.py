"""The card of ZF Net."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Fraction, Int, Positive, Section
from dlsys.spec.task import CLASSIFY


class ZFNetOptions(Section):
    """The size of ZF Net and its dropout."""

    width: Positive = 1.0
    """Scales the maps (96, 256, 384, 384, 256) and the units (4096, 4096)."""
    dropout: Fraction = 0.5
    """The probability of switching off a unit of the two hidden dense layers."""
    size: Annotated[Int, Field(ge=53)] = 53
    """Pixels a side to which smaller images are enlarged first; the paper's have 224. Of fewer than 53 the
    last pooling would leave nothing."""


def widths(options: ZFNetOptions) -> tuple[int, ...]:
    """Maps of the five convolutions and units of the two hidden dense layers."""
    return tuple(max(1, round(options.width * n)) for n in (96, 256, 384, 384, 256, 4096, 4096))


def _plan(options: ZFNetOptions) -> dict[str, Cut]:
    units = widths(options)[5]
    return {"dense6.0": Cut("column", units), "dense7.0": Cut("row", units)}


CARD = Card(
    name="zf-net",
    title="ZF Net: AlexNet with smaller first filters and strides",
    paper="Zeiler and Fergus 2014, arXiv:1311.2901",
    workload="dlsys.zoo.vision.zf_net.model:ZFNet",
    options=ZFNetOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={"paper": {}},
    # The sum over the layers of the paper's figure 3, which gives none itself.
    published={"paper": 62_357_608},
    at=Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000),
    traits=("dropout", "sequential"),
    blocks=("conv1", "conv2", "conv3", "conv4", "conv5", "dense6", "dense7", "output"),
    tensor_plan=_plan,
    tiny=(Tiny(options={"width": 0.04, "dropout": 0.0}),),
)
