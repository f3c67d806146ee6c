"""The card of OpenPose."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Positive, Section
from dlsys.spec.task import POSE


class OpenPoseOptions(Section):
    """The size of an OpenPose, and what it takes for a joint and for a limb."""

    width: Count = 32
    """Maps of the first layers; those that come later have twice as many."""
    halvings: Annotated[int, Field(ge=1, le=3)] = 1
    """How often height and width are halved before joints are sought."""
    field_stages: Count = 2
    """Stages that say which way limbs go, each after the first given what the one before said."""
    map_stages: Count = 1
    """Stages that then say where joints are, likewise."""
    spread: Positive = 1.0
    """Deviation of the hill that marks a joint, in pixels of the maps; limbs are as broad to each side."""
    peak: Positive = 0.2
    """How high a hill is a joint."""


CARD = Card(
    name="openpose",
    title="OpenPose: maps of joints, and fields that tell whose they are",
    paper="Cao et al. 2017, arXiv:1611.08050",
    workload="dlsys.zoo.vision.openpose.model:OpenPose",
    options=OpenPoseOptions,
    task=POSE,
    blocks=("features", "fields", "maps"),
    tiny=(
        Tiny(options={"width": 16, "field_stages": 1}, learned=40.0),
        Tiny(options={"width": 16, "field_stages": 2, "map_stages": 2}, learned=150.0),
    ),
)
