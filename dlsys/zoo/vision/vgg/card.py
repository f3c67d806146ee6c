"""The card of VGG."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Fraction, Int, Positive, Section
from dlsys.spec.task import CLASSIFY


class VGGOptions(Section):
    """The size of a VGG net, its normalization and its dropout."""

    depth: Literal[11, 13, 16, 19] = 16
    """Layers with weights: the paper's configurations A, B, D and E."""
    width: Positive = 1.0
    """Scales the maps of the stages (64, 128, 256, 512, 512) and the units (4096, 4096)."""
    norm: Literal["none", "batch"] = "none"
    """`batch`: batch norm behind each convolution, with which deep ones train from any start."""
    dropout: Fraction = 0.5
    """The probability of switching off a unit of the two hidden dense layers."""
    size: Annotated[Int, Field(ge=32)] = 32
    """Pixels a side to which smaller images are enlarged first; the paper's have 224. Five poolings leave
    nothing of fewer than 32."""


def widths(options: VGGOptions) -> tuple[int, ...]:
    """Maps of the five stages and units of the two hidden dense layers."""
    return tuple(max(1, round(options.width * n)) for n in (64, 128, 256, 512, 512, 4096, 4096))


def _plan(options: VGGOptions) -> dict[str, Cut]:
    units = widths(options)[5]
    return {"dense1.0": Cut("column", units), "dense2.0": Cut("row", units)}


def _inexact(options: VGGOptions) -> str:
    batch = "batch norm sees only its own worker's rows; with model.norm: none it is exact"
    return batch if options.norm == "batch" else ""


CARD = Card(
    name="vgg",
    title="VGG: stages of 3 × 3 convolutions, three dense layers",
    paper="Simonyan and Zisserman 2015, arXiv:1409.1556",
    workload="dlsys.zoo.vision.vgg.model:VGG",
    options=VGGOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={str(depth): {"depth": depth} for depth in (11, 13, 16, 19)},
    # The paper's table 2 rounds to 133, 133, 138 and 144 million.
    published={"11": 132_863_336, "13": 133_047_848, "16": 138_357_544, "19": 143_667_240},
    at=Shape(row={"image": (3, 224, 224), "label": ()}, classes=1000),
    traits=("dropout", "running-statistics", "sequential"),
    inexact=_inexact,
    blocks=("stage1", "stage2", "stage3", "stage4", "stage5", "dense1", "dense2", "output"),
    tensor_plan=_plan,
    tiny=(
        Tiny(options={"depth": 11, "width": 0.05, "dropout": 0.0}),
        Tiny(options={"depth": 13, "width": 0.05, "norm": "batch", "dropout": 0.0}),
    ),
)
