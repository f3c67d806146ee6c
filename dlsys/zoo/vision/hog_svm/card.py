"""The card of a linear SVM on histograms of oriented gradients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES
from dlsys.spec.section import Bool, Count, Int, Positive, Section
from dlsys.spec.task import CLASSIFY


class HOGOptions(Section):
    """What the machine sees of an image; the sizes are those that Dalal and Triggs found to be the best."""

    features: Literal["hog", "raw"] = "hog"
    """Histograms, or the baseline: the pixels themselves, less the image's mean and by its deviation."""
    cell: Annotated[Int, Field(ge=2)] = 8
    """Pixels a side of a cell, which has a histogram; what is left at the right and below is not seen."""
    block: Count = 2
    """Cells a side of a block, whose histograms are normalized together; blocks overlap by all but a cell."""
    bins: Annotated[Int, Field(ge=2)] = 9
    """Directions of a histogram."""
    signed: Bool = False
    """Tells a gradient from its opposite: directions of 360 degrees, not of 180."""
    clip: Positive = 0.2
    """The most that a number of a normalized block may be, which is then normalized again."""


CARD = Card(
    name="hog-svm",
    title="HOG: a linear SVM on histograms of oriented gradients",
    paper="Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177",
    workload="dlsys.zoo.vision.hog_svm.model:HOGSVM",
    options=HOGOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    tensor_plan=lambda _: {"svm": Cut("gather")},
    # With 36 numbers of 8 × 8 pixels, 150 steps do not part 16 rows of noise by a whole margin.
    tiny=(Tiny(options={"cell": 4}, learned=0.9), Tiny(options={"cell": 2, "bins": 18, "signed": True})),
)
