"""The card of action recognition."""

from __future__ import annotations

from typing import Literal

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import CLIPS_WITH_CLASSES, Shape
from dlsys.spec.section import Count, Section
from dlsys.spec.task import CLASSIFY


class ActionRecognitionOptions(Section):
    """The size of a residual net of clips, and how it sees time."""

    temporal: Literal["3d", "2+1d", "none"] = "2+1d"
    """Convolutions of space and time at once, of space and then of time, or of each frame by itself."""
    width: Count = 8
    """Maps of the first stage; each of the next three has twice as many. The paper's is 64."""
    blocks: Count = 1
    """Residual blocks of a stage; the paper's 18-layer nets have 2."""
    norm: Literal["batch", "group"] = "group"
    """`group` computes the same under any number of workers; `batch` does not."""


def _inexact(options: ActionRecognitionOptions) -> str:
    batch = "batch norm sees only its own worker's rows; with model.norm: group it is exact"
    return batch if options.norm == "batch" else ""


_PAPERS = {"width": 64, "blocks": 2, "norm": "batch"}

CARD = Card(
    name="action-recognition",
    title="R(2+1)D and R3D: residual nets of clips",
    paper="Tran et al. 2018, arXiv:1711.11248",
    workload="dlsys.zoo.vision.action_recognition.model:ActionRecognition",
    options=ActionRecognitionOptions,
    task=CLASSIFY,
    takes=(CLIPS_WITH_CLASSES,),
    presets={
        "r3d-18": {**_PAPERS, "temporal": "3d"},
        "r2plus1d-18": {**_PAPERS, "temporal": "2+1d"},
    },
    # As torchvision's documentation counts them; the paper rounds to 33.4 and 33.3 million.
    published={"r3d-18": 33_371_472, "r2plus1d-18": 31_505_325},
    at=Shape(row={"clip": (16, 3, 112, 112), "label": ()}, classes=400),
    traits=("running-statistics", "sequential"),
    inexact=_inexact,
    blocks=("stem", "stage1", "stage2", "stage3", "stage4", "head"),
    tiny=(
        Tiny(options={"width": 4}),
        Tiny(options={"width": 4, "temporal": "3d", "norm": "batch"}),
        Tiny(options={"width": 4, "temporal": "none"}),
    ),
)
