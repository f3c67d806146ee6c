"""What all that find people's joints share: matching with the people there are, and pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.spec.rows import Shape
from dlsys.spec.task import POSE
from dlsys.zoo.drawing import joined
from dlsys.zoo.workload import Batch, Sample, Workload, rows_of

# A joint is found within this share of its person's longer side (Yang and Ramanan 2013, PCK).
_NEAR = 0.1


class Pose(Workload):
    """People's joints in `image`: `keypoints` (rows, people, joints, 3), which `shape.limbs` connects.

    Args:
        options: the checked `model:` section.
        shape: what the data source hands out.
    """

    task = POSE

    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__(options, shape)
        self.joints = shape.row["keypoints"][1]

    @abstractmethod
    def people(self, outputs: Any) -> list[Tensor]:
        """Who was found in each row: float32 (people, joints, 3) on the CPU, of each joint x, y and a score;
        0 where it was not found."""

    def measure(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        counts = torch.zeros(5, dtype=torch.float64)
        for found, true in zip(self.people(outputs), batch["keypoints"].cpu(), strict=True):
            counts += count(found, true[(true[..., 2] > 0).any(1)], self.shape.limbs)
        right, joints, limbs_right, limbs, extra = counts
        return {
            "loss": self.objective(outputs, batch).value * rows_of(batch),
            "joints": torch.stack([right, joints]),
            "limbs": torch.stack([limbs_right, limbs]),
            "extra_people": extra,
        }

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        rows = float(sums["rows"])
        right, joints = sums["joints"].tolist()
        limbs_right, limbs = sums["limbs"].tolist()
        return {
            "loss": float(sums["loss"]) / rows,
            "pck": right / max(joints, 1.0),
            "limbs": limbs_right / max(limbs, 1.0),
            "extra_people": float(sums["extra_people"]) / rows,
        }

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        """Images with the people found in them."""
        outputs, _ = self.forward(model, batch, None)
        return {"people": joined(images, self.people(outputs), self.shape.limbs)}


def count(found: Tensor, true: Tensor, limbs: Sequence[tuple[int, int]]) -> Tensor:
    """Joints found and there, limbs found and there, and people of whom there are none: float64 (5,).

    Those found are given to those there one by one, whoever shares the most joints first.

    Args:
        found: (people, joints, 3) of x, y and a score.
        true: (people, joints, 3) of x, y and whether it is marked.
    """
    marked = true[..., 2] > 0
    # Of the box around a person's marked joints.
    low = torch.where(marked[..., None], true[..., :2], torch.inf).amin(1)
    high = torch.where(marked[..., None], true[..., :2], -torch.inf).amax(1)
    near = _NEAR * (high - low).amax(-1)
    distance = (found[:, None, :, :2] - true[None, :, :, :2]).norm(dim=-1)
    right = (distance <= near[None, :, None]) & marked[None] & (found[:, None, :, 2] > 0)
    shared = right.sum(-1)
    joints = limbs_right = 0
    left_found, left_true = set(range(len(found))), set(range(len(true)))
    for flat in shared.flatten().argsort(descending=True, stable=True).tolist():
        one, other = divmod(flat, len(true))
        if one in left_found and other in left_true and shared[one, other]:
            left_found.discard(one)
            left_true.discard(other)
            joints += int(shared[one, other])
            limbs_right += sum(bool(right[one, other, a] & right[one, other, b]) for a, b in limbs)
    there = sum(int((marked[:, a] & marked[:, b]).sum()) for a, b in limbs)
    figures = [joints, int(marked.sum()), limbs_right, there, len(left_found)]
    return torch.tensor(figures, dtype=torch.float64)
