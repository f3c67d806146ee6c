"""The card of Viola and Jones's detector."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Number, Section
from dlsys.spec.task import DETECT, Metric

_Rate = Annotated[Number, Field(gt=0, lt=1)]


class ViolaJonesOptions(Section):
    """A cascade of boosted stumps, and the windows that it looks at."""

    stages: Count = 8
    """Classifiers one after another, each of which sees what those before let through."""
    stumps: Count = 20
    """Features of a stage, at most."""
    keep: _Rate = 0.99
    """The share of objects that a stage must let through."""
    refuse: _Rate = 0.5
    """The share of the other windows that it must refuse: then it is done."""
    features: Count = 200
    """Features to choose from, drawn at random from all that fit into a window of 24 × 24."""
    side: Annotated[int, Field(ge=8)] = 20
    """Pixels of the smallest window's sides."""
    growth: Annotated[Number, Field(gt=1, le=2)] = 1.2
    """How many times larger the next size is."""
    step: _Rate = 0.1
    """How far apart windows are, as a share of their side."""
    contrast: Literal["any", "signed"] = "any"
    """`any`: objects may be brighter than what is around them, or darker, so features have no sign. `signed`:
    as the paper has it, where all objects' bright parts are the same, as those of faces in daylight are."""
    negatives: Count = 16
    """Windows without an object that an image teaches in a step, drawn anew each time from those let
    through."""
    neighbours: Count = 3
    """Windows let through that must overlap for a detection, which is their mean."""


CARD = Card(
    name="viola-jones",
    title="Viola and Jones: a cascade of boosted Haar features",
    paper="Viola and Jones 2001, doi:10.1109/CVPR.2001.990517",
    workload="dlsys.zoo.vision.viola_jones.model:ViolaJones",
    options=ViolaJonesOptions,
    task=DETECT,
    extra={
        "precision": Metric(best="max", words="the share of detections that half overlap an object"),
        "recall": Metric(best="max", words="the share of objects that a detection half overlaps"),
        "depth": Metric(best="min", words="stages that a window goes through, as a share of all"),
    },
    learns={
        "stages": Metric(best="max", words="stages that are done"),
        "passed": Metric(best="min", words="the share of other windows that the last stage lets through"),
    },
    traits=("solved",),
    # Half of it is that nothing passes; of made-up images, few windows show what others do not.
    tiny=(
        Tiny(
            options={"stages": 2, "stumps": 6, "features": 100, "step": 0.25, "neighbours": 1}, learned=0.45
        ),
    ),
)
