"""The card of FCN."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import IMAGES_WITH_MASKS
from dlsys.spec.section import Count, NonNegativeInt, Section
from dlsys.spec.task import SEGMENT


class FCNOptions(Section):
    """The stages of an FCN, and how many of their maps it answers from."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (16, 32, 64, 128)
    """Of each stage, which halves the image's sides once more."""
    dense: Count = 128
    """Channels of the two layers that take the place of a classifier's dense ones."""
    skips: NonNegativeInt = 2
    """How many stages before the last one also say what they see, and add it."""

    @model_validator(mode="after")
    def _stages_before(self) -> FCNOptions:
        if self.skips >= len(self.channels):
            raise ValueError(
                f"skips: {len(self.channels)} stages have {len(self.channels) - 1} before the last one, "
                f"got {self.skips}"
            )
        return self


CARD = Card(
    name="fcn",
    title="FCN: a classifier's net as convolutions, its coarse answers sharpened by earlier maps",
    paper="Long, Shelhamer and Darrell 2015, arXiv:1411.4038",
    workload="dlsys.zoo.vision.fcn.model:FCN",
    options=FCNOptions,
    task=SEGMENT,
    takes=(IMAGES_WITH_MASKS,),
    presets={
        name: {"channels": [16, 32, 64, 128, 128], "skips": skips}
        for skips, name in enumerate(("32s", "16s", "8s"))
    },
    # Pixels of noise, of which its maps are too coarse to learn most.
    tiny=(
        Tiny(options={"channels": [16, 32, 32], "dense": 32}, learned=1.3),
        Tiny(options={"channels": [16, 32, 32], "dense": 32}, learned=0.65),
    ),
)
