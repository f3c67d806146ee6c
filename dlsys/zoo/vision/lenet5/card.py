"""The card of LeNet-5."""

from __future__ import annotations

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES
from dlsys.spec.section import Fraction, Positive, Section
from dlsys.spec.task import CLASSIFY


class LeNet5Options(Section):
    """The size of LeNet-5 and its dropout."""

    width: Positive = 1.0
    """Scales the maps (6, 16) and the units (120, 84)."""
    dropout: Fraction = 0.0
    """The probability of switching a unit off before each of the last two layers."""


def widths(options: LeNet5Options) -> tuple[int, int, int, int]:
    """Maps of the two convolutions and units of the two hidden dense layers."""
    first, second, third, fourth = (max(1, round(options.width * n)) for n in (6, 16, 120, 84))
    return first, second, third, fourth


def _plan(options: LeNet5Options) -> dict[str, Cut]:
    units = widths(options)[2]
    return {"dense1.0": Cut("column", units), "dense2.0": Cut("row", units)}


CARD = Card(
    name="lenet-5",
    title="LeNet-5: two convolutions, three dense layers",
    paper="LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
    workload="dlsys.zoo.vision.lenet5.model:LeNet5",
    options=LeNet5Options,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    traits=("dropout", "sequential"),
    blocks=("conv1", "conv2", "dense1", "dense2", "output"),
    tensor_plan=_plan,
    tiny=(Tiny(), Tiny(options={"width": 0.5, "dropout": 0.0}), Tiny(options={"width": 1.7})),
)
