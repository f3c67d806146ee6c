"""One phase of a workload in training: its loss as a module, its parameters, its optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dlsys.train.average import AVERAGED, Average, Named, statistics
from dlsys.train.optim import build as build_optimizer
from dlsys.train.strategies.base import Parts
from dlsys.zoo.workload import Batch, Carry, Phase


class PhaseModule(nn.Module):
    """A model whose forward pass ends in the loss of one phase.

    Wrappers that hook into `forward` (DDP's does) thereby see the whole computation, whatever
    a workload does with its model. The loss alone leads back to parameters: DDP takes every output
    for something that backward will come from, and would wait for the gradients of parameters that
    only a metric or the carried state has seen.
    """

    def __init__(self, model: nn.Module, phase: Phase) -> None:
        super().__init__()
        self.model = model
        self.phase = phase

    def forward(self, batch: Batch, carry: Carry) -> tuple[Tensor, dict[str, Tensor], Carry]:
        loss, carry = self.phase.loss(self.model, batch, carry)
        metrics = {name: mean.detach() for name, mean in loss.metrics.items()}
        return loss.value, metrics, tree_map_only(Tensor, Tensor.detach, carry)


class TrainedPhase:
    """One phase with its parameters, its optimizer and the state it carries.

    Attributes:
        named: the parameters it trains, by their names in the model.
        module: computes the loss; what strategies wrap.
        average: of its weights, where the job asks for one.
        carries: carried state by micro-batch.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, model: nn.Module, phase: Phase, parts: Parts) -> None:
        self.phase = phase
        self.named = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(phase.parameters)
        ]
        self.parameters = [parameter for _, parameter in self.named]
        self.optimizer = build_optimizer(
            parts.job.optimizer, self.parameters, [name for name, _ in self.named]
        )
        self.module: nn.Module = PhaseModule(model, phase)
        self.carries: dict[int, Carry] = {}
        self.average: Average | None = None
        if options := parts.job.average:
            moved = [item for item in statistics(model).items() if item[0].startswith(phase.parameters)]
            self.average = Average([*self.named, *moved], options, parts.steps_per_epoch)

    @property
    def optimizers(self) -> dict[str, tuple[Named, torch.optim.Optimizer]]:
        """What has a state by names of the model, by its own name in a checkpoint."""
        found: dict[str, tuple[Named, torch.optim.Optimizer]] = {}
        found[self.phase.name] = self.named, self.optimizer
        if self.average is not None:
            found[self.phase.name + AVERAGED] = self.average.named, self.average
        return found
