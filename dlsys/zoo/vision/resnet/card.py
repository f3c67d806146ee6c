"""The card of ResNet for small images."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.spec.section import Bool, Count, Section
from dlsys.spec.task import CLASSIFY


class ResNetOptions(Section):
    """The size of a residual net and its normalization."""

    depth: Count = 8
    """Layers with weights, 6n + 2: 8, 14, 20, 32, …"""
    width: Count = 16
    """Maps of the first stage; each of the next two has twice as many."""
    residual: Bool = True
    """Whether each block adds what it was given; without it this is the paper's plain net, which gets harder
    to train with every layer."""
    norm: Literal["batch", "group"] = "batch"
    """`group` computes the same under any number of workers; `batch` does not."""

    @field_validator("depth")
    @classmethod
    def _six_n_plus_two(cls, depth: int) -> int:
        if depth < 8 or depth % 6 != 2:
            near = max(8, 6 * round((depth - 2) / 6) + 2)
            raise ValueError(f"must be 6n + 2 with n ≥ 1, got {depth}: try {near}")
        return depth


def _inexact(options: ResNetOptions) -> str:
    batch = "batch norm sees only its own worker's rows; with model.norm: group it is exact"
    return batch if options.norm == "batch" else ""


CARD = Card(
    name="resnet",
    title="ResNet for small images",
    paper="He et al. 2015, arXiv:1512.03385, section 4.2",
    workload="dlsys.zoo.vision.resnet.model:ResNet",
    options=ResNetOptions,
    task=CLASSIFY,
    takes=(IMAGES_WITH_CLASSES,),
    presets={str(depth): {"depth": depth} for depth in (20, 32, 44, 56, 110)},
    # The paper's table 6 rounds to 0.27, 0.46, 0.66, 0.85 and 1.7 million.
    published={"20": 269_722, "32": 464_154, "44": 658_586, "56": 853_018, "110": 1_727_962},
    at=Shape(row={"image": (3, 32, 32), "label": ()}, classes=10),
    traits=("running-statistics", "sequential"),
    inexact=_inexact,
    blocks=("stem", "stage1", "stage2", "stage3", "head"),
    tiny=(
        Tiny(options={"depth": 8, "width": 4, "norm": "batch"}),
        Tiny(options={"depth": 14, "width": 6, "norm": "group"}),
    ),
)
