"""`average:` — the averages of weights over training. They are computed in `dlsys.train.average`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.section import Every, Interval, Number, Section


class EMA(Section):
    """The exponential moving average of the weights (Polyak and Juditsky 1992).

    It follows closely at first, by min(decay, (1 + n) / (10 + n)) after n updates.
    """

    name: Literal["ema"]
    decay: Annotated[Number, Field(gt=0, lt=1)] = 0.999
    """The share of the average that an update keeps."""


class SWA(Section):
    """The mean of the weights at several times (Izmailov et al. 2018, arXiv:1803.05407)."""

    name: Literal["swa"]
    after: Every
    """When it begins: `10 epochs`, `2000 steps`. Until then the weights themselves are measured."""
    every: Every = Interval(1, "epoch")
    """How often weights enter it."""


Average = Annotated[EMA | SWA, Field(discriminator="name")]
