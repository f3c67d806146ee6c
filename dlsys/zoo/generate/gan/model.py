"""Generative adversarial nets (Goodfellow et al. 2014, arXiv:1406.2661) on points of the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.zoo.generate.gan.card import CARD, GANOptions
from dlsys.zoo.tasks.adversarial import Adversarial
from dlsys.zoo.workload import Batch, rows_of


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers = [part for i, o in pairwise(widths) for part in (nn.Linear(i, o), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers[:-1])


class GANModel(nn.Module):
    """A generator from noise (rows, noise) to points (rows, 2), a discriminator to logits (rows, 1)."""

    def __init__(self, options: GANOptions, shape: Shape) -> None:
        super().__init__()
        hidden, dims = (options.hidden,) * options.layers, shape.row["point"][0]
        self.generator = _perceptron((options.noise, *hidden, dims))
        self.discriminator = _perceptron((dims, *hidden, 1))


class GAN(Adversarial):
    """Learns to draw `point`, float32 (rows, 2), from equal Gaussians on a circle.

    Measured are `loss`, the discriminator's; `within_3_sigma`, the share of samples no farther than
    3 sigma from a Gaussian's centre; and `modes`, the number of Gaussians with at least a quarter of an
    equal share of ALL samples within 3 sigma of their centre.

    Args:
        options: the checked `model:` section.
        shape: what the data source hands out.

    Raises:
        UsageError: the source has planted no such circle.
    """

    Options = GANOptions
    card = CARD
    task = CARD.task
    field = "point"

    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__(options, shape)
        if missing := {"modes", "radius", "sigma"} - shape.planted.keys():
            raise UsageError(
                f"data: gan measures which Gaussians of a ring it finds, and this source says no "
                f"{', '.join(sorted(missing))}",
                hint="use data: {source: gaussian-ring}",
            )
        self._modes = int(shape.planted["modes"])

    def build(self) -> nn.Module:
        return GANModel(self.options, self.shape)

    def measure(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {
            "loss": self.objective(outputs, batch).value * rows_of(batch),
            "hits": self._hits(outputs["samples"]),
        }

    def _hits(self, points: Tensor) -> Tensor:
        """How many points (rows, 2) lie within 3 sigma of each centre: float64, shape (modes,)."""
        angle = torch.arange(self._modes, device=points.device) * (2 * math.pi / self._modes)
        centres = self.shape.planted["radius"] * torch.stack([angle.cos(), angle.sin()], dim=1)
        distance, mode = torch.cdist(points.float(), centres).min(dim=1)
        near = mode[distance <= 3 * self.shape.planted["sigma"]]
        return torch.bincount(near, minlength=self._modes).double()

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        rows = float(sums["rows"])
        return {
            "loss": float(sums["loss"]) / rows,
            "modes": float((sums["hits"] >= rows / self._modes / 4).sum()),
            "within_3_sigma": float(sums["hits"].sum()) / rows,
        }

    @torch.no_grad()
    def samples(self, model: nn.Module, seed: int) -> dict[str, str | Tensor]:
        """A picture of 10,000 samples: brighter where more of them fall, twice the radius wide."""
        pixels, edge = 128, 2 * self.shape.planted["radius"]
        noise = torch.randn(10_000, self.options.noise, generator=torch.Generator().manual_seed(seed)).to(
            next(model.parameters()).device
        )
        points = model.get_submodule("generator")(noise).float().cpu()
        counts, _ = torch.histogramdd(points.flip(1), pixels, range=[-edge, edge, -edge, edge])
        # Row 0 of an image is its top. The root keeps faint regions visible.
        image = (counts.flip(0) / counts.max().clamp(min=1)).sqrt()
        return {"samples.png": image[None, None]}
