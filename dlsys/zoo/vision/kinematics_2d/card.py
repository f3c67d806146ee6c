"""The card of kinematics in two dimensions."""

from __future__ import annotations

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Bool, Count, Section
from dlsys.spec.task import KINEMATICS


class KinematicsOptions(Section):
    """The size of a net that reads angles off clips."""

    width: Count = 16
    """Maps of the first layer; they double where height and width are halved."""
    temporal: Bool = True
    """Whether a frame's angles are read off its neighbours too."""


CARD = Card(
    name="kinematics-2d",
    title="Kinematics in two dimensions: the angles of limbs in each frame of a clip",
    paper="Toshev and Szegedy 2014, arXiv:1312.4659",
    workload="dlsys.zoo.vision.kinematics_2d.model:Kinematics",
    options=KinematicsOptions,
    task=KINEMATICS,
    blocks=("frames", "time"),
    tiny=(Tiny(options={"width": 8}), Tiny(options={"width": 8, "temporal": False})),
)
