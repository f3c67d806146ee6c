"""The card of Network in Network."""

from __future__ import annotations

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Fraction, Positive, Section
from dlsys.spec.task import CLASSIFY


class NiNOptions(Section):
    """The size of Network in Network and its dropout."""

    width: Positive = 1.0
    """Scales the maps: 192, 160 and 96 of the first block, 192 of all others but the last, which has one for
    each class."""
    dropout: Fraction = 0.5
    """The probability of switching off a number between two blocks."""


CARD = Card(
    name="nin",
    title="Network in Network: 1 × 1 convolutions, global average pooling",
    paper="Lin et al. 2014, arXiv:1312.4400",
    workload="dlsys.zoo.vision.nin.model:NiN",
    options=NiNOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={"cifar-10": {}},
    # Of the authors' definition, https://gist.github.com/mavenlin/e56253735ef32c3c296d.
    published={"cifar-10": 966_986},
    at=Shape(row={"image": (3, 32, 32), "label": ()}, classes=10),
    traits=("dropout", "sequential"),
    blocks=("block1", "block2", "block3"),
    tiny=(Tiny(options={"width": 0.07, "dropout": 0.0}),),
)
