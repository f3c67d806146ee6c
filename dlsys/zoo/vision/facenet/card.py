"""The card of FaceNet."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.libraries import architecture
from dlsys.spec.section import Count, Positive, Section, Text, show
from dlsys.spec.task import VERIFY


class FaceNetOptions(Section):
    """The network, of our own or a library's, and the margin."""

    architecture: Text = ""
    """`timm/…` or `torchvision/…`, such as `timm/inception_v3`; none is a small one for small images."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What the library's function is called with; channels (of timm) and outputs are said already."""
    width: Count = 32
    """Without an architecture: maps of the first block; each of the next has twice as many."""
    dimensions: Count = 128
    """Of the points that stand for images, on the unit sphere."""
    margin: Positive = 0.2
    """How much nearer, in squared distance, images of a class are to be than others."""

    @field_validator("architecture")
    @classmethod
    def _is_an_image_librarys(cls, name: str) -> str:
        of = architecture(name)
        if name and (of is None or of.library not in ("timm", "torchvision") or not of.name):
            raise ValueError(f"must be timm/… or torchvision/…, or empty, got {show(name)}")
        return name


def _inexact(options: FaceNetOptions) -> str:
    return "batch norm, which most architectures have, sees only its own worker's rows" * bool(
        options.architecture
    )


def _library(options: FaceNetOptions) -> str:
    return options.architecture.partition("/")[0]


CARD = Card(
    name="facenet",
    title="FaceNet: points for faces, learnt from triplets",
    paper="Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832",
    workload="dlsys.zoo.vision.facenet.model:FaceNet",
    options=FaceNetOptions,
    task=VERIFY,
    traits=("running-statistics",),
    inexact=_inexact,
    library=_library,
    tiny=(
        Tiny(options={"width": 8, "dimensions": 16}, learned=0.05),
        Tiny(
            options={
                "architecture": "timm/resnet18",
                "arguments": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
                "dimensions": 16,
            },
            learned=0.05,
        ),
    ),
)
