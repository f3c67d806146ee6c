"""What all adversarial nets share (Goodfellow et al. 2014, arXiv:1406.2661).

Two phases a step: the discriminator learns to tell real rows from generated ones, then the generator
learns to be taken for real, with the paper's non-saturating loss. Noise belongs to rows, so several
workers compute what one does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.data import rowwise
from dlsys.zoo.workload import Batch, Carry, Loss, Phase, Workload

# Streams of a row's random numbers: fresh noise for each use.
_DISCRIMINATOR, _GENERATOR, _MEASURE = 0, 1, 2


class Adversarial(Workload):
    """A model with a `generator`, from noise (rows, options.noise) to rows, and a `discriminator`, from
    rows to logits (rows, 1).

    Attributes:
        field: the field of a batch that is to be generated.
    """

    field = ""

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
        """`samples`, and the discriminator's logits of `real` rows and of those, `fake`."""
        return self._judge(model, batch, _MEASURE), carry

    def objective(self, outputs: dict[str, Tensor], batch: Batch) -> Loss:
        """The discriminator's loss: −log D(real) − log(1 − D(sample)); 2 ln 2 when it can tell nothing."""
        return Loss((F.softplus(-outputs["real"]) + F.softplus(outputs["fake"])).mean())

    def _generate(self, model: nn.Module, batch: Batch, stream: int) -> Tensor:
        noise = rowwise.normal(batch["key"], self.options.noise, stream=stream).to(batch[self.field].dtype)
        samples: Tensor = model.get_submodule("generator")(noise)
        return samples

    def _judge(self, model: nn.Module, batch: Batch, stream: int) -> dict[str, Tensor]:
        with torch.no_grad():
            samples = self._generate(model, batch, stream)
        discriminator = model.get_submodule("discriminator")
        return {
            "samples": samples,
            "real": discriminator(batch[self.field]),
            "fake": discriminator(samples),
        }
