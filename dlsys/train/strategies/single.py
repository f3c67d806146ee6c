"""One worker, one device: the truth that every other strategy is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.errors import NonFiniteError
from dlsys.train.optim import build as build_optimizer
from dlsys.train.regularize import clip
from dlsys.train.schedule import apply
from dlsys.train.seeding import seed_all
from dlsys.train.strategies.base import Parts, State, StepResult, Strategy
from dlsys.zoo.workload import Batch, Carry, Phase


class PhaseModule(nn.Module):
    """A model whose forward pass ends in the loss of one phase.

    Wrappers that hook into `forward` (DDP's does) thereby see the whole computation, whatever
    a workload does with its model.
    """

    def __init__(self, model: nn.Module, phase: Phase) -> None:
        super().__init__()
        self.model = model
        self.phase = phase

    def forward(self, batch: Batch, carry: Carry) -> tuple[Tensor, dict[str, Tensor], Carry]:
        loss, carry = self.phase.loss(self.model, batch, carry)
        return loss.value, loss.metrics, carry


class _Trained:
    """One phase with its parameters, its optimizer and the state it carries."""

    def __init__(self, model: nn.Module, phase: Phase, parts: Parts) -> None:
        self.phase = phase
        self.named = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(phase.parameters)
        ]
        self.parameters = [parameter for _, parameter in self.named]
        self.optimizer = build_optimizer(parts.job.optimizer, self.parameters)
        self.module: nn.Module = PhaseModule(model, phase)
        self.carries: dict[int, Carry] = {}


class SingleStrategy(Strategy):
    """Forward, backward, update. `DDPStrategy` changes how gradients meet, and nothing else."""

    def setup(self, parts: Parts) -> None:
        self._parts = parts
        job, world = parts.job, parts.world
        seed_all(job.seed)
        model = parts.workload.build()
        parts.regularizers.prepare(model)
        self._model = model.to(world.device)
        self._phases = [_Trained(self._model, phase, parts) for phase in parts.workload.phases()]
        self._several = len(self._phases) > 1
        for trained in self._phases:
            self._only(trained)
            trained.module = self.wrap(trained.module)
        seed_all(job.seed, world.rank + 1)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module that computes a phase's loss, made to meet the other workers."""
        return module

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        """Around every backward pass of a step but its last."""
        return nullcontext()

    @property
    def model(self) -> nn.Module:
        return self._model

    def reset_carry(self) -> None:
        for trained in self._phases:
            trained.carries.clear()

    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        if not self._model.training:
            self._model.train()
        sums: dict[str, Tensor] = {}
        norm = torch.zeros(())
        for trained in self._phases:
            if step % trained.phase.every:
                continue
            if self._several:
                self._only(trained)
            found = self._backward(trained, batch)
            norm = self._update(trained, step, hyper, found)
            sums.update(found)
        return StepResult(sums, norm)

    def _only(self, trained: _Trained) -> None:
        """Gradients for one phase's parameters alone."""
        for other in self._phases:
            for parameter in other.parameters:
                parameter.requires_grad_(False)
        for parameter in trained.parameters:
            parameter.requires_grad_(True)

    def _backward(self, trained: _Trained, batch: StepBatch) -> dict[str, Tensor]:
        """Leaves the mean gradient over the global batch in `.grad`."""
        trained.optimizer.zero_grad(set_to_none=True)
        world, dtype = self._parts.world, self._parts.dtype
        sums: dict[str, Tensor] = {}
        for index, micro in enumerate(batch.micros):
            last = index == len(batch.micros) - 1
            with nullcontext() if last else self.accumulating(trained.module):
                carry = _fit(trained.carries.get(index), len(micro.batch["key"]))
                with torch.autocast(world.device.type, dtype, enabled=dtype is not None):
                    value, metrics, carry = trained.module(micro.batch, carry)
                # The workers' gradients are averaged: weight × workers makes that their sum.
                share = micro.weight * world.size
                (value if share == 1.0 else value * share).backward()
            trained.carries[index] = _detach(carry)
            loss_name = f"loss/{trained.phase.name}" if self._several else "loss"
            for name, mean in {loss_name: value, **metrics}.items():
                part = mean.detach() * micro.weight
                sums[name] = sums[name] + part if name in sums else part
        return sums

    def _update(
        self, trained: _Trained, step: int, hyper: Mapping[str, float | None], sums: dict[str, Tensor]
    ) -> Tensor:
        job, regularizers = self._parts.job, self._parts.regularizers
        regularizers.penalize(trained.named)
        norm = clip(
            trained.parameters,
            job.gradient.clip_norm or regularizers.clip_norm,
            job.gradient.clip_value,
        )
        if not math.isfinite(float(norm)):
            raise NonFiniteError(_first_bad(trained, step, sums))
        apply(trained.optimizer, hyper)
        trained.optimizer.step()
        regularizers.after_step(trained.named, float(hyper["lr"] or 0.0))
        return norm

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        workload, regularizers = self._parts.workload, self._parts.regularizers
        world, dtype = self._parts.world, self._parts.dtype
        if self._model.training:
            self._model.eval()
        carry = _fit(carry, len(micro.batch["key"]))
        with torch.no_grad(), torch.autocast(world.device.type, dtype, enabled=dtype is not None):
            if regularizers.mc_samples:
                with regularizers.stochastic(self._model):
                    runs = [
                        workload.forward(self._model, micro.batch, carry)
                        for _ in range(regularizers.mc_samples)
                    ]
                outputs, carry = workload.average([run[0] for run in runs]), runs[-1][1]
            else:
                outputs, carry = workload.forward(self._model, micro.batch, carry)
            sums = workload.measure(outputs, micro.batch)
        sums["rows"] = torch.tensor(float(len(micro.batch["key"])))
        if not micro.real:
            sums = {name: torch.zeros_like(value) for name, value in sums.items()}
        return sums, carry

    def state_out(self) -> State:
        optimizers = {}
        for trained in self._phases:
            saved = trained.optimizer.state_dict()
            names = [name for name, _ in trained.named]
            optimizers[trained.phase.name] = {
                "state": {names[index]: values for index, values in saved["state"].items()},
                "param_groups": [
                    {**group, "params": [names[i] for i in group["params"]]}
                    for group in saved["param_groups"]
                ],
            }
        carries = {trained.phase.name: dict(trained.carries) for trained in self._phases}
        return State(model=dict(self._model.state_dict()), optimizers=optimizers, local={"carry": carries})

    def state_in(self, state: State) -> None:
        self._model.load_state_dict(state.model)
        for trained in self._phases:
            saved = state.optimizers[trained.phase.name]
            numbers = {name: index for index, (name, _) in enumerate(trained.named)}
            trained.optimizer.load_state_dict(
                {
                    "state": {numbers[name]: values for name, values in saved["state"].items()},
                    "param_groups": [
                        {**group, "params": [numbers[name] for name in group["params"]]}
                        for group in saved["param_groups"]
                    ],
                }
            )
            carries = state.local.get("carry", {}).get(trained.phase.name, {})
            trained.carries = {int(index): carry for index, carry in carries.items()}


def _detach(carry: Carry) -> Carry:
    if isinstance(carry, Tensor):
        return carry.detach()
    if isinstance(carry, dict):
        return {name: _detach(value) for name, value in carry.items()}
    if isinstance(carry, tuple | list):
        return type(carry)(_detach(value) for value in carry)
    return carry


def _fit(carry: Carry, rows: int) -> Carry:
    """The state of the first rows: the last batch of an epoch may hold fewer."""
    if isinstance(carry, Tensor):
        return carry if len(carry) == rows else carry[:rows]
    if isinstance(carry, dict):
        return {name: _fit(value, rows) for name, value in carry.items()}
    if isinstance(carry, tuple | list):
        return type(carry)(_fit(value, rows) for value in carry)
    return carry


def _first_bad(trained: _Trained, step: int, sums: dict[str, Any]) -> str:
    bad = next((name for name, value in sums.items() if not bool(torch.isfinite(value).all())), None)
    for name, parameter in trained.named:
        if not bool(torch.isfinite(parameter.detach()).all()):
            return f"step {step}: the parameter {name} is not finite"
    for name, parameter in trained.named:
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            where = f"; so is this worker's {bad}" if bad else ""
            return f"step {step}: the gradient of {name} is not finite{where}"
    return f"step {step}: the gradient's norm is not finite"
