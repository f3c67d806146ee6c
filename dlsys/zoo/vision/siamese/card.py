"""The card of the siamese net."""

from __future__ import annotations

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import VERIFY


class SiameseOptions(Section):
    """The size of the network that both images go through, and the margin."""

    width: Count = 32
    """Maps of the first block; each of the next has twice as many."""
    dimensions: Count = 64
    """Of the points that stand for images, on the unit sphere."""
    margin: Positive = 1.0
    """The distance to which images of different classes are pushed apart."""


CARD = Card(
    name="siamese",
    title="Siamese net: images of a class near each other, others apart",
    paper="Hadsell, Chopra and LeCun 2006, http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf",
    workload="dlsys.zoo.vision.siamese.model:Siamese",
    options=SiameseOptions,
    task=VERIFY,
    tiny=(Tiny(options={"width": 8, "dimensions": 16}), Tiny(options={"width": 6, "dimensions": 16})),
)
