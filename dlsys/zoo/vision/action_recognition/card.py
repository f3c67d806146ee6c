"""The card of action recognition."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import CLIPS_WITH_CLASSES, Shape
from dlsys.spec.section import Count, Section
from dlsys.spec.task import CLASSIFY


class ActionRecognitionOptions(Section):
    """The size of a residual net of clips, and how it looks at time."""

    temporal: Literal["2+1d", "3d", "none"] = "2+1d"
    """`3d`: windows of 3 × 3 × 3. `2+1d`: of 1 × 3 × 3 and behind them of 3 × 1 × 1, with about as many
    weights. `none`: of 1 × 3 × 3 alone; what frames give is averaged, whatever their order."""
    stages: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)] = (1, 1)
    """Blocks of each stage; each stage but the first halves time, height and width."""
    width: Count = 16
    """Maps of the first stage; they double from stage to stage."""
    stem: Literal["small", "large"] = "small"
    """`large`: 7 × 7 windows of stride 2, for clips of 112 pixels a side; `small`: 3 × 3."""


CARD = Card(
    name="action-recognition",
    title="Action recognition: residual nets of clips, whose windows are factorised into space and time",
    paper="Tran et al. 2018, arXiv:1711.11248",
    workload="dlsys.zoo.vision.action_recognition.model:ActionRecognition",
    options=ActionRecognitionOptions,
    task=CLASSIFY,
    takes=(CLIPS_WITH_CLASSES,),
    presets={
        "r2plus1d-18": {"stages": [2, 2, 2, 2], "width": 64, "stem": "large"},
        "r3d-18": {"temporal": "3d", "stages": [2, 2, 2, 2], "width": 64, "stem": "large"},
    },
    # torchvision's tables of weights.
    published={"r2plus1d-18": 31_505_325, "r3d-18": 33_371_472},
    at=Shape(row={"clip": (16, 3, 112, 112), "label": ()}, classes=400),
    traits=("running-statistics", "sequential"),
    inexact=lambda options: "batch norm sees only its own worker's rows",
    blocks=("order", "stem", "stages", "head"),
    tiny=(
        Tiny(options={"width": 4}),
        Tiny(options={"width": 4, "temporal": "3d", "stages": [1]}),
        Tiny(options={"width": 8, "temporal": "none"}),
    ),
)
