"""OpenPose (Cao et al. 2017, arXiv:1611.08050).

Its fields come before its maps (Cao et al. 2019, arXiv:1812.08008). Its first layers are a small net's, with
group norm, where the paper has those of VGG-19.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.tasks.pose import Pose
from dlsys.zoo.vision.openpose.card import CARD, OpenPoseOptions
from dlsys.zoo.vision.openpose.parts import fields_of, maps_of, people_of, unmarked
from dlsys.zoo.workload import Batch, Carry, Loss


class Said(NamedTuple):
    """What each stage says.

    Attributes:
        fields: of each stage, (rows, 2 · limbs, height, width).
        maps: of each stage, (rows, joints, height, width).
    """

    fields: list[Tensor]
    maps: list[Tensor]


class Stages(nn.ModuleList):
    """Stages that are each given features and what the one before said."""

    def __init__(self, inputs: int, width: int, outputs: int, count: int) -> None:
        super().__init__(
            nn.Sequential(
                convolution(inputs + (outputs if number else 0), width),
                convolution(width, width),
                convolution(width, width),
                nn.Conv2d(width, outputs, 1),
            )
            for number in range(count)
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        said: list[Tensor] = []
        for stage in self:
            said.append(stage(torch.cat([features, *said[-1:]], dim=1)))
        return said


class Net(nn.Module):
    """From images to what all stages say."""

    def __init__(self, channels: int, limbs: int, joints: int, options: OpenPoseOptions) -> None:
        super().__init__()
        width = options.width
        layers = [convolution(channels, width)]
        for _ in range(options.halvings):
            layers += [convolution(width, 2 * width, stride=2), convolution(2 * width, 2 * width)]
            width *= 2
        # So that a pixel sees a whole limb.
        layers += [convolution(width, width, dilation=2), convolution(width, width, dilation=4)]
        self.features = nn.Sequential(*layers)
        self.fields = Stages(width, width, 2 * limbs, options.field_stages)
        self.maps = Stages(width + 2 * limbs, width, joints, options.map_stages)

    def forward(self, image: Tensor) -> Said:
        features = self.features(image)
        fields = self.fields(features)
        return Said(fields, self.maps(torch.cat([features, fields[-1]], dim=1)))


class OpenPose(Pose):
    """
    Args:
        options: the checked `model:` section.
        shape: what the data source hands out.
    """

    Options = OpenPoseOptions
    card = CARD

    def build(self) -> nn.Module:
        channels = self.shape.row["image"][0]
        return Net(channels, len(self.shape.limbs), self.joints, self.options)

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Said, Carry]:
        return model(batch["image"]), carry

    def objective(self, outputs: Said, batch: Batch) -> Loss:
        """Squared differences summed over maps and pixels, of all stages: none is left to what comes after it
        (section 2.1). What nobody has marked counts for nothing."""
        size = (outputs.maps[0].shape[2], outputs.maps[0].shape[3])
        joints = self._scaled(batch["keypoints"], 1 / self.stride)
        limbs, spread = self.shape.limbs, self.options.spread
        maps = maps_of(joints, size, spread)
        fields = fields_of(joints, limbs, size, spread).flatten(1, 2)
        known = ~unmarked(joints, size, 2 * spread)
        of_limbs = torch.stack([known[:, a] & known[:, b] for a, b in limbs], 1).repeat_interleave(2, 1)
        of_fields = sum(((said - fields) ** 2 * of_limbs).sum((1, 2, 3)).mean() for said in outputs.fields)
        of_maps = sum(((said - maps) ** 2 * known).sum((1, 2, 3)).mean() for said in outputs.maps)
        assert isinstance(of_fields, Tensor)
        assert isinstance(of_maps, Tensor)
        metrics = {"fields": of_fields.detach(), "maps": of_maps.detach()}
        return Loss((of_fields + of_maps) / self.joints, metrics)

    @property
    def stride(self) -> int:
        """Pixels of an image for each of a map."""
        return int(2**self.options.halvings)

    def people(self, outputs: Said) -> list[Tensor]:
        maps = outputs.maps[-1].float().cpu()
        fields = outputs.fields[-1].float().cpu()
        fields = fields.view(len(fields), -1, 2, *fields.shape[2:])
        found = [
            people_of(of_joints, of_limbs, self.shape.limbs, self.options.peak)
            for of_joints, of_limbs in zip(maps, fields, strict=True)
        ]
        return [self._scaled(people, self.stride) for people in found]

    def _scaled(self, joints: Tensor, factor: float) -> Tensor:
        return torch.cat([joints[..., :2] * factor, joints[..., 2:]], -1)
