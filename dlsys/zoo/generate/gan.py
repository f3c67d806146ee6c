"""Generative adversarial nets (Goodfellow et al. 2014, arXiv:1406.2661).

Two phases a step: the discriminator learns to tell real points from generated ones, then the
generator learns to be taken for real, with the paper's non-saturating loss. Noise belongs to
rows, so several workers compute what one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.data import rowwise
from dlsys.errors import UsageError
from dlsys.spec.card import Shape
from dlsys.zoo.generate.cards import GAN as CARD
from dlsys.zoo.generate.cards import GANOptions, gan_widths
from dlsys.zoo.workload import Batch, Carry, Loss, Phase, Workload, rows_of

# Streams of a row's random numbers: fresh noise for each use.
_DISCRIMINATOR, _GENERATOR, _MEASURE = 0, 1, 2

# 98.9 % of a Gaussian's points in the plane lie within 3 sigma; a ring of which less than this
# share of the real points does is not the data's.
_REAL_WITHIN = 0.9


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    layers = [part for i, o in pairwise(widths) for part in (nn.Linear(i, o), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers[:-1])


class GANModel(nn.Module):
    """A generator from noise (rows, noise) to points (rows, 2), a discriminator to logits (rows, 1)."""

    def __init__(self, options: GANOptions, shape: Shape) -> None:
        super().__init__()
        generator, discriminator = gan_widths(options, shape)
        self.generator = _perceptron(generator)
        self.discriminator = _perceptron(discriminator)


class GAN(Workload):
    """Learns to draw `point`, float32 (rows, 2), from equal Gaussians on a circle.

    Measured are `loss`, the discriminator's (2 ln 2 when it can tell nothing);
    `within_3_sigma`, the share of samples no farther than 3 sigma from a Gaussian's centre; and
    `modes`, the number of Gaussians with at least a quarter of an equal share of ALL samples
    within 3 sigma of their centre.
    """

    Options = GANOptions
    card = CARD

    def build(self) -> nn.Module:
        return GANModel(self.options, self.shape)

    def phases(self) -> Sequence[Phase]:
        return [
            Phase("discriminator", self._discriminator_loss, ("discriminator.",)),
            Phase("generator", self._generator_loss, ("generator.",)),
        ]

    def _discriminator_loss(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Loss, Carry]:
        outputs = self._judge(model, batch, _DISCRIMINATOR)
        return self.objective(outputs, batch), carry

    def _generator_loss(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Loss, Carry]:
        fake = model.get_submodule("discriminator")(self._generate(model, batch, _GENERATOR))
        return Loss(F.softplus(-fake).mean()), carry

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        return self._judge(model, batch, _MEASURE), carry

    def objective(self, outputs: dict[str, Tensor], batch: Batch) -> Loss:
        """The discriminator's loss: −log D(real) − log(1 − D(sample))."""
        return Loss((F.softplus(-outputs["real"]) + F.softplus(outputs["fake"])).mean())

    def _generate(self, model: nn.Module, batch: Batch, stream: int) -> Tensor:
        noise = rowwise.normal(batch["key"], self.options.noise, stream=stream).to(batch["point"].dtype)
        points: Tensor = model.get_submodule("generator")(noise)
        return points

    def _judge(self, model: nn.Module, batch: Batch, stream: int) -> dict[str, Tensor]:
        with torch.no_grad():
            samples = self._generate(model, batch, stream)
        discriminator = model.get_submodule("discriminator")
        return {
            "samples": samples,
            "real": discriminator(batch["point"]),
            "fake": discriminator(samples),
        }

    def measure(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {
            "loss": self.objective(outputs, batch).value * rows_of(batch),
            "hits": self._hits(outputs["samples"]),
            "real_hits": self._hits(batch["point"]),
        }

    def _hits(self, points: Tensor) -> Tensor:
        """How many points (rows, 2) lie within 3 sigma of each centre: float64, shape (modes,)."""
        options = self.options
        angle = torch.arange(options.modes, device=points.device) * (2 * math.pi / options.modes)
        centres = options.radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        distance, mode = torch.cdist(points.float(), centres).min(dim=1)
        return torch.bincount(mode[distance <= 3 * options.sigma], minlength=options.modes).double()

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Metrics from the sums.

        Raises:
            UsageError: the ring of the options is not the data's.
        """
        options, rows = self.options, float(sums["rows"])
        real = float(sums["real_hits"].sum()) / rows
        if real < _REAL_WITHIN:
            raise UsageError(
                f"model: only {real:.0%} of the real points lie within 3 sigma of a ring of "
                f"modes: {options.modes}, radius: {options.radius:g}, sigma: {options.sigma:g}; "
                "99% must",
                hint="give model.modes, model.radius and model.sigma the values they have in data",
            )
        return {
            "loss": float(sums["loss"]) / rows,
            "modes": float((sums["hits"] >= rows / options.modes / 4).sum()),
            "within_3_sigma": float(sums["hits"].sum()) / rows,
        }

    @torch.no_grad()
    def samples(self, model: nn.Module, seed: int) -> dict[str, str | Tensor]:
        """A picture of 10,000 samples: brighter where more of them fall, twice the radius wide."""
        pixels, edge = 128, 2 * self.options.radius
        noise = torch.randn(10_000, self.options.noise, generator=torch.Generator().manual_seed(seed)).to(
            next(model.parameters()).device
        )
        points = model.get_submodule("generator")(noise).float().cpu()
        counts, _ = torch.histogramdd(points.flip(1), pixels, range=[-edge, edge, -edge, edge])
        # Row 0 of an image is its top. The root keeps faint regions visible.
        image = (counts.flip(0) / counts.max().clamp(min=1)).sqrt()
        return {"samples.png": image[None, None]}
