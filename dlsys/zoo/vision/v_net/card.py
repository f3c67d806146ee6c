"""The card of V-Net."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import VOLUMES_WITH_MASKS
from dlsys.spec.section import Count, Section
from dlsys.spec.task import SEGMENT


class VNetOptions(Section):
    """The stages of a V-Net."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (8, 16, 32)
    """Of each stage on the way down, which halves the sides; the paper's are 16, 32, 64, 128 and 256."""
    convolutions: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = (1, 2, 2)
    """Of each stage; later stages have as many as the last one named. The paper's are 1, 2, 3, 3 and 3."""
    side: Literal[3, 5] = 3
    """Of a convolution, in voxels; the paper's have 5."""


CARD = Card(
    name="v-net",
    title="V-Net: residual stages of volumes, learnt by Dice's coefficient",
    paper="Milletari, Navab and Ahmadi 2016, arXiv:1606.04797",
    workload="dlsys.zoo.vision.v_net.model:VNet",
    options=VNetOptions,
    task=SEGMENT,
    takes=(VOLUMES_WITH_MASKS,),
    tiny=(Tiny(options={"channels": [4, 8], "convolutions": [1]}, learned=0.2),),
)
