"""The card of an SVM on bags of SURF's features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Cut, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES
from dlsys.spec.section import Count, Int, NonNegative, Section
from dlsys.spec.task import CLASSIFY


class SURFOptions(Section):
    """What the machine sees of an image: how often each word stands at its most striking places."""

    features: Literal["surf", "raw"] = "surf"
    """Words, or the baseline: the pixels themselves, less the image's mean and by its deviation."""
    size: Annotated[Int, Field(ge=27)] = 32
    """Smaller images are first enlarged to so many pixels a side: the first octave's filters have 27."""
    keypoints: Count = 32
    """The most places of an image that are described: those of the strongest response."""
    octaves: Annotated[Int, Field(ge=1, le=4)] = 2
    """How large blobs may be: of scales up to 3, 6, 12 or 23 pixels."""
    threshold: NonNegative = 1e-5
    """The least response of a place, the determinant of the Hessian, of images in 0…1."""
    words: Count = 64
    """Words of the codebook."""


CARD = Card(
    name="surf-svm",
    title="SURF: a linear SVM on a bag of speeded-up robust features",
    paper="Bay et al. 2008, doi:10.1016/j.cviu.2007.09.014",
    workload="dlsys.zoo.vision.surf_svm.model:SURFSVM",
    options=SURFOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    tensor_plan=lambda _: {"svm": Cut("gather")},
    tiny=(Tiny(options={"keypoints": 8, "octaves": 1, "words": 32}, learned=0.9),),
)
