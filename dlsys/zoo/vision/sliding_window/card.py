"""The card of the sliding-window detector."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import DETECT, Metric


class SlidingWindowOptions(Section):
    """The window and the net that looks through it."""

    form: Literal["convolution", "crops"] = "convolution"
    """`crops`: the net is given each window by itself. `convolution`: it is given the whole image, and its
    dense layers are convolutions of the same weights, which says the same of all windows at once."""
    window: Annotated[int, Field(ge=10)] = 22
    """Side of a window in pixels, 4n + 6: the size of the objects that it finds."""
    channels: Annotated[tuple[Count, Count], Field(strict=False)] = (16, 32)
    """Of the net's two convolutions, each of which halves a window's sides: windows stand 4 pixels apart."""
    hidden: Count = 64
    """Outputs of the first of the two dense layers."""
    negatives: Positive = 3.0
    """How many windows without an object learn for each one with an object: the worst ones."""

    @field_validator("window")
    @classmethod
    def _four_n_plus_six(cls, window: int) -> int:
        if window % 4 != 2:
            below = (window - 2) // 4 * 4 + 2
            raise ValueError(f"must be 4n + 6, got {window}: try {below} or {below + 4}")
        return window


CARD = Card(
    name="sliding-window-detector",
    title="Sliding windows: a classifier at every place, one by one or as a convolution",
    paper="Sermanet et al. 2013, arXiv:1312.6229",
    workload="dlsys.zoo.vision.sliding_window.model:SlidingWindow",
    options=SlidingWindowOptions,
    task=DETECT,
    extra={
        "windows_each": Metric(
            best="max", words="windows of an object's class that half overlap it, by the objects found"
        ),
        "kept_each": Metric(best="min", words="those of them that non-maximum suppression leaves, likewise"),
    },
    tiny=(Tiny(options={"window": 30, "channels": [8, 16], "hidden": 32}, learned=1.2),),
)
