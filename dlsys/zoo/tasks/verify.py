"""What all models that compare images share: points on a sphere, whose distances tell classes apart.

A row brings all that it is compared with, so the losses are means over rows that do not see each other, and
any number of workers computes the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.spec.task import VERIFY
from dlsys.zoo import metrics
from dlsys.zoo.workload import Batch, Carry, Workload, rows_of

# Below it the square root's slope, which grows without bound, is taken for 0.
_TINY = 1e-12


class Verify(Workload):
    """A model from images (n, channels, height, width) to points (n, dimensions) of length 1.

    Outputs are the points of a row's images, (rows, 1 + others, dimensions), the first one's first; `same`,
    float32 (rows, others), is 1 for others of its class.
    """

    task = VERIFY

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        images = batch["images"]
        points: Tensor = model(images.flatten(0, 1))
        return points.reshape(*images.shape[:2], -1), carry

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        same, squares = batch["same"].bool(), squared_distances(outputs)
        both = same.any(1) & ~same.all(1)
        # A model that puts all into one point must be right of none: nearer is less.
        nearest = squares.masked_fill(~same, torch.inf).amin(1)
        right = nearest < squares.masked_fill(same, torch.inf).amin(1)
        return {
            "loss": self.objective(outputs, batch).value * rows_of(batch),
            "scores": metrics.auc_histogram(-squares.flatten(), same.flatten()),
            "right": (right & both).sum().to(torch.float64),
            "asked": both.sum().to(torch.float64),
        }

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """`one_shot` only where rows have images of both kinds; pairs alone ask no such question."""
        scores, asked = sums["scores"], float(sums["asked"])
        return {
            "loss": float(sums["loss"]) / float(sums["rows"]),
            "auc": metrics.auc(scores),
            "equal_error_rate": metrics.equal_error_rate(scores),
            "tar_at_far_0.01": metrics.accepted_at(scores, 0.01),
            **({"one_shot": float(sums["right"]) / asked} if asked else {}),
        }


def squared_distances(points: Tensor) -> Tensor:
    """Those of each row's first point to its others: (rows, others), from points (rows, 1 + others, D)."""
    points = points.float() if points.dtype != torch.float64 else points
    return (points[:, :1] - points[:, 1:]).square().sum(-1)


def contrastive(points: Tensor, same: Tensor, margin: float) -> Tensor:
    """Half of the squared distance within a class, and of the square of what one between classes lacks to the
    margin; the mean over pairs (Hadsell, Chopra and LeCun 2006, equation 4).

    Args:
        points: (rows, 1 + others, D).
        same: 1 for others of the first one's class, (rows, others).
        margin: of distances.
    """
    squares = squared_distances(points)
    lacking = F.relu(margin - squares.clamp(min=_TINY).sqrt()).square()
    return torch.where(same.bool(), squares, lacking).mean() / 2


def triplet(points: Tensor, same: Tensor, margin: float) -> Tensor:
    """What a squared distance within a class lacks to be smaller by the margin than one to another class; the
    mean over rows (Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832, equation 2).

    Of a row's others, the farthest of its class is taken, and of those of other classes the nearest that is
    farther away than that (the paper's semi-hard one); where none is, the farthest, as nearer ones may pull
    all points into one. A row without both kinds loses nothing.

    Args:
        points, same: as `contrastive` has them.
        margin: of squared distances.
    """
    alike = same.bool()
    with torch.no_grad():
        squares = squared_distances(points)
        within = squares.masked_fill(~alike, -torch.inf)
        positive = within.argmax(1)
        harder = ~alike & (squares > within.amax(1, keepdim=True))
        nearest = squares.masked_fill(~harder, torch.inf).argmin(1)
        farthest = squares.masked_fill(alike, -torch.inf).argmax(1)
        negative = torch.where(harder.any(1), nearest, farthest)
    row = torch.arange(len(points), device=points.device)
    losses = F.triplet_margin_with_distance_loss(
        points[:, 0],
        points[row, 1 + positive],
        points[row, 1 + negative],
        distance_function=lambda a, b: (a - b).square().sum(-1),
        margin=margin,
        reduction="none",
    )
    return torch.where(alike.any(1) & ~alike.all(1), losses, 0).mean()
