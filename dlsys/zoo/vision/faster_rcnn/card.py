"""The card of Faster R-CNN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Bool, Count, Positive, Section
from dlsys.spec.task import DETECT, PROPOSALS


class FasterRCNNOptions(Section):
    """The maps, the anchors over them, and how many regions are looked at."""

    channels: Annotated[tuple[Count, ...], Field(strict=False)] = (16, 32, 64)
    """Of each stage, which halves the image's sides once more."""
    pyramid: Bool = False
    """Whether the last stages' maps make a feature pyramid, one for each of `sizes`; otherwise the last
    stage's map is the only one."""
    width: Count = 32
    """Channels of the pyramid's maps."""
    sizes: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (0.2, 0.4)
    """Sides of anchors as shares of the image's shorter one, rising: all at every cell, or one on each map
    of a pyramid."""
    ratios: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)] = (1.0, 2.0, 0.5)
    """Width by height of the anchors of a cell."""
    anchors: Count = 128
    """How many anchors of a row the region proposals learn from."""
    proposals: Count = 50
    """How many regions an image is proposed."""
    samples: Annotated[int, Field(ge=4)] = 32
    """How many regions of a row the head learns from, at most a quarter of them with an object."""
    pool: Count = 5
    """Side of what RoIAlign makes of a region."""
    hidden: Count = 128
    """Units of the head's two layers."""

    @model_validator(mode="after")
    def _fits(self) -> FasterRCNNOptions:
        if self.pyramid and len(self.sizes) > len(self.channels):
            raise ValueError(
                f"sizes: a pyramid has a map for each of these {len(self.sizes)}, and there are "
                f"{len(self.channels)} stages: name fewer sizes, or more stages under channels"
            )
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes: {list(self.sizes)} do not rise: the smallest stands first")
        return self


TINY: Mapping[str, object] = {
    "channels": [16, 16, 32],
    "width": 16,
    "proposals": 12,
    "samples": 12,
    "pool": 3,
    "hidden": 32,
}
CARD = Card(
    name="faster-rcnn",
    title="Faster R-CNN: a net proposes regions, a head classifies and moves them",
    paper="Ren et al. 2015, arXiv:1506.01497",
    workload="dlsys.zoo.vision.faster_rcnn.model:FasterRCNN",
    options=FasterRCNNOptions,
    task=DETECT,
    extra=PROPOSALS,
    presets={
        "fpn": {
            "channels": [16, 32, 64, 64],
            "pyramid": True,
            "sizes": [0.1, 0.2, 0.4],
        }
    },
    papers={"fpn": "Lin et al. 2017, arXiv:1612.03144"},
    tiny=(
        Tiny(options=TINY, learned=1.0),
        Tiny(options={**TINY, "pyramid": True}, learned=1.0),
    ),
)
