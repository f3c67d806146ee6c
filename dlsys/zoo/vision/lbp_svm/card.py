"""The card of a linear SVM on local binary patterns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES
from dlsys.spec.section import Bool, Count, Int, Positive, Section
from dlsys.spec.task import CLASSIFY


class LBPOptions(Section):
    """What the machine sees of an image: how often each pattern of brighter and darker neighbours occurs."""

    features: Literal["lbp", "raw"] = "lbp"
    """Histograms of patterns, or the baseline: the pixels themselves, less the image's mean and by its
    deviation."""
    points: Annotated[Int, Field(ge=4, le=16)] = 8
    """Neighbours, evenly around a pixel."""
    radii: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0)
    """Their distances in pixels: each gives a histogram of its own."""
    rotation_invariant: Bool = False
    """Patterns count as one that a turn of the image brings into each other."""
    cells: Count = 1
    """Histograms are of parts of the image, so many a side (Ahonen et al. 2006): of all of it by default."""


CARD = Card(
    name="lbp-svm",
    title="LBP: a linear SVM on histograms of uniform local binary patterns",
    paper="Ojala et al. 2002, doi:10.1109/TPAMI.2002.1017623",
    workload="dlsys.zoo.vision.lbp_svm.model:LBPSVM",
    options=LBPOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    tensor_plan=lambda _: {"svm": Cut("gather")},
    # 150 steps do not part 16 rows of noise by a whole margin.
    tiny=(
        Tiny(learned=0.9),
        Tiny(options={"cells": 2, "radii": [1.0]}, learned=0.9),
        Tiny(options={"cells": 2, "rotation_invariant": True}, learned=0.9),
    ),
)
