"""Angles of limbs from a clip, over time.

Poses are regressed as a whole (Toshev and Szegedy 2014, arXiv:1312.4659), here as each limb's sine and
cosine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlsys.spec.task import KINEMATICS
from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.vision.kinematics_2d.card import CARD, KinematicsOptions
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, rows_of

# Sides of the maps from which a frame's features are taken.
_SIDE = 4


class Angles(nn.Module):
    """From clips (rows, frames, channels, height, width) to sines and cosines (rows, frames, angles, 2)."""

    def __init__(self, channels: int, side: int, angles: int, options: KinematicsOptions) -> None:
        super().__init__()
        width = options.width
        layers = [convolution(channels, width)]
        while side > _SIDE:
            side = -(-side // 2)
            layers.append(convolution(width, 2 * width, stride=2))
            width *= 2
        features = 8 * options.width
        self.frames = nn.Sequential(
            *layers,
            nn.AdaptiveAvgPool2d(_SIDE),
            nn.Flatten(),
            nn.Linear(width * _SIDE**2, features),
            nn.ReLU(),
        )
        reach = 3 if options.temporal else 1
        self.time = nn.Sequential(
            nn.Conv1d(features, features, reach, padding=reach // 2),
            nn.ReLU(),
            nn.Conv1d(features, 2 * angles, reach, padding=reach // 2),
        )

    def forward(self, clip: Tensor) -> Tensor:
        rows, frames = clip.shape[:2]
        seen = self.frames(clip.flatten(0, 1)).view(rows, frames, -1)
        said: Tensor = self.time(seen.transpose(1, 2)).transpose(1, 2)
        return said.reshape(rows, frames, -1, 2)


class Kinematics(Workload):
    """`angles` (rows, frames, limbs) in radians of `clip`."""

    Options = KinematicsOptions
    card = CARD
    task = KINEMATICS

    def build(self) -> nn.Module:
        _, channels, *sides = self.shape.row["clip"]
        return Angles(channels, max(sides), self.shape.row["angles"][1], self.options)

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["clip"]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        """Squared distances on the circle, where −π and π are the same; the mean over frames and limbs."""
        angles = batch["angles"]
        wanted = torch.stack([angles.sin(), angles.cos()], -1)
        return Loss(((outputs - wanted) ** 2).sum(-1).mean())

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        said = torch.atan2(outputs[..., 0], outputs[..., 1])
        away = (said - batch["angles"]).double()
        # The shorter way round.
        error = torch.atan2(away.sin(), away.cos()).abs().mean((1, 2)).sum()
        return {
            "loss": self.objective(outputs, batch).value * rows_of(batch),
            "angle_error": error * 180 / math.pi,
        }
