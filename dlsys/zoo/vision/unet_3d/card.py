"""The card of 3D U-Net."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.rows import VOLUMES_WITH_MASKS
from dlsys.spec.section import Count, Section
from dlsys.spec.task import SEGMENT


class UNet3DOptions(Section):
    """The levels of a 3D U-Net."""

    channels: Annotated[tuple[Count, ...], Field(strict=False, min_length=2)] = (8, 16, 32)
    """Of each level's map, from the volume's own size down; each next one has half the sides. The paper's are
    64, 128, 256 and 512."""


CARD = Card(
    name="3d-unet",
    title="3D U-Net: a U-Net of volumes",
    paper="Çiçek et al. 2016, arXiv:1606.06650",
    workload="dlsys.zoo.vision.unet_3d.model:UNet3D",
    options=UNet3DOptions,
    task=SEGMENT,
    takes=(VOLUMES_WITH_MASKS,),
    tiny=(Tiny(options={"channels": [8, 8]}, learned=0.3),),
)
