"""One worker, one device: the truth that every other strategy is held against."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.errors import NonFiniteError
from dlsys.train.regularize import clip
from dlsys.train.schedule import apply
from dlsys.train.seeding import seed_all
from dlsys.train.strategies import whole
from dlsys.train.strategies.base import Parts, State, StepResult, Strategy
from dlsys.train.strategies.blocks import checkpoint_activations
from dlsys.train.strategies.model import check_model, compile_in_place
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.solve import solve_step
from dlsys.train.traffic import Traffic
from dlsys.zoo.solved import Solved
from dlsys.zoo.workload import Carry, nothing_of


class SingleStrategy(Strategy):
    """Forward, backward, update.

    Other strategies are this one with some of its steps replaced, which come in this order:
    `parallelize` the model, `wrap` each phase's module; then in every step, `accumulating` around
    all backward passes but the last, `reduce` after the last, `update`, and when all phases are done,
    `finish`.

    Attributes:
        _traffic: what this worker's steps send.
        _scaler: of the loss that gradients are taken of.
    """

    def setup(self, parts: Parts) -> None:
        self._parts, self._traffic = parts, Traffic()
        self._precision = parts.precision
        self._scaler = self._precision.scaler()
        job, world = parts.job, parts.world
        seed_all(job.seed)
        model = parts.workload.build()
        parts.begin(model)
        parts.regularizers.prepare(model)
        self._precision.prepare(model)
        check_model(model, parts)
        if job.activation_checkpointing:
            checkpoint_activations(model, parts.workload.card)
        self._model = self.parallelize(model.to(device=world.device, dtype=self._precision.floats))
        if job.compile:
            compile_in_place(self._model)
        self._phases = [TrainedPhase(self._model, phase, parts) for phase in parts.workload.phases()]
        self._several = len(self._phases) > 1
        for trained in self._phases:
            self._only(trained)
            trained.module = self.wrap(trained.module)
        seed_all(job.seed, self.data_place[0] + 1)

    @property
    def model(self) -> nn.Module:
        return self._model

    @property
    def data_place(self) -> tuple[int, int]:
        return self._parts.world.rank, self._parts.world.size

    def parallelize(self, model: nn.Module) -> nn.Module:
        """The model as this worker holds it; optimizers are built over its parameters."""
        return model

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module that computes a phase's loss, made to meet the other workers."""
        return module

    def accumulating(self, module: nn.Module) -> AbstractContextManager[None]:
        """Around every backward pass of a step but its last."""
        return nullcontext()

    def reduce(self, trained: TrainedPhase) -> None:
        """Makes `.grad` the mean gradient over the global batch, where backward did not."""

    def add_up(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over all workers, in place; for steps that are solved."""

    def finish(self) -> None:
        """What a step does once every phase is updated."""

    def agree(self) -> None:
        """Before the model is measured: gives every worker the same running statistics."""
        self._parts.world.share_buffers(self._model)

    def show_averages(self, shown: bool) -> None:
        """Puts the averages that the job asks for in the weights' places, or the weights back."""
        for trained in self._phases:
            if trained.average is not None and trained.average.show(shown):
                self.exchanged()

    def exchanged(self) -> None:
        """What is to be done when parameters have other values than this worker's copies of them."""

    def prepare_to_measure(self) -> None:
        """Before every batch that is measured."""
        first = self._model.training
        if first:
            self._model.eval()
        self.show_averages(True)
        if first:
            self.agree()

    def reset_carry(self) -> None:
        for trained in self._phases:
            trained.carries.clear()

    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        if not self._model.training:
            self._model.train()
            self.show_averages(False)
        with self._traffic.step():
            workload = self._parts.workload
            if isinstance(workload, Solved):
                world = self._parts.world
                return solve_step(workload, self._model, batch, step, world=world, add_up=self.add_up)
            return self._step(batch, step, hyper)

    def _step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        sums: dict[str, Tensor] = {}
        norm = torch.zeros(())
        for trained in self._phases:
            if step % trained.phase.every:
                continue
            if self._several:
                self._only(trained)
            found = self._backward(trained, batch)
            self.reduce(trained)
            norm = self.update(trained, step, hyper, found)
            sums.update(found)
        if sums:
            self._scaler.update()
        self.finish()
        for trained in self._phases:
            if trained.average is not None:
                trained.average.take(step)
        return StepResult(sums, norm, figures=self._scaler.figures())

    def _only(self, trained: TrainedPhase) -> None:
        """Gradients for one phase's parameters alone."""
        for other in self._phases:
            for parameter in other.parameters:
                parameter.requires_grad_(False)
        for parameter in trained.parameters:
            parameter.requires_grad_(True)

    def _backward(self, trained: TrainedPhase, batch: StepBatch) -> dict[str, Tensor]:
        """Leaves the mean gradient over the global batch in `.grad`, or this worker's part of it.

        A part is what, averaged over all workers' data places, gives the mean.
        """
        trained.optimizer.zero_grad(set_to_none=True)
        places = self.data_place[1]
        sums: dict[str, Tensor] = {}
        counts = [index for index, micro in enumerate(batch.micros) if micro.real]
        # A worker without a row takes part all the same, for others wait for it.
        for index in counts or [0]:
            micro, last = batch.micros[index], index == (counts or [0])[-1]
            alone = nullcontext() if counts else unlearned(self._model)
            with nullcontext() if last else self.accumulating(trained.module), alone:
                carry = _fit(trained.carries.get(index), len(micro.batch["key"]))
                with self._precision.autocast():
                    value, metrics, carry = trained.module(micro.batch, carry)
                # Gradients are averaged over the data places: weight × places makes that their sum.
                share = micro.weight * places
                part = value if share == 1.0 else value * share
                self.backward(trained.module, self._scaler.scaled(part))
            trained.carries[index] = carry
            loss_name = f"loss/{trained.phase.name}" if self._several else "loss"
            for name, mean in {loss_name: value.detach(), **metrics}.items():
                part = mean * micro.weight
                sums[name] = sums[name] + part if name in sums else part
        return sums

    def backward(self, module: nn.Module, loss: Tensor) -> None:
        """Adds the gradients of a loss that `module` computed to `.grad`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, trained: TrainedPhase, norm: float | None, value: float | None) -> Tensor:
        """Clips the phase's gradients; returns the norm of the whole gradient before."""
        return clip(trained.parameters, norm, value)

    def update(
        self, trained: TrainedPhase, step: int, hyper: Mapping[str, float | None], sums: dict[str, Tensor]
    ) -> Tensor:
        """Changes the phase's parameters by their gradients; returns the gradient's norm.

        Raises:
            NonFiniteError: as `may_update`.
        """
        job, regularizers = self._parts.job, self._parts.regularizers
        self._scaler.unscale(trained.parameters)
        regularizers.penalize(trained.named)
        norm = self.clip(trained, job.gradient.clip_norm or regularizers.clip_norm, job.gradient.clip_value)
        if not self.may_update(float(norm), trained, step, sums):
            return norm
        apply(trained.optimizer, hyper)
        trained.optimizer.step()
        regularizers.after_step(trained.named, float(hyper["lr"] or 0.0))
        return norm

    def may_update(self, norm: float, trained: TrainedPhase, step: int, sums: dict[str, Any]) -> bool:
        """Whether a gradient changes its phase; one that the loss scale made overflow does not.

        Args:
            norm: of the whole gradient, the same on every worker.

        Raises:
            NonFiniteError: the norm is not finite, and no loss scale is to blame; nothing was changed.
        """
        if math.isfinite(norm):
            return True
        if not self._scaler.overflow():
            raise NonFiniteError(first_bad(trained, step, sums))
        return False

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        workload, regularizers = self._parts.workload, self._parts.regularizers
        self.prepare_to_measure()
        carry = _fit(carry, len(micro.batch["key"]))
        with torch.no_grad(), self._precision.autocast():
            if regularizers.mc_samples:
                with regularizers.stochastic(self._model):
                    runs = [
                        workload.forward(self._model, micro.batch, carry)
                        for _ in range(regularizers.mc_samples)
                    ]
                outputs, carry = workload.average([run[0] for run in runs]), runs[-1][1]
            else:
                outputs, carry = workload.forward(self._model, micro.batch, carry)
            sums = workload.sums(outputs, micro.batch)
        sums["rows"] = torch.tensor(float(len(micro.batch["key"])), device=self._precision.device)
        if not micro.real:
            sums = nothing_of(sums, workload.listed)
        return sums, carry

    @property
    def keeps_whole(self) -> bool:
        """Whether this worker gets the whole state, where bringing it together is work for several."""
        return True

    def state_out(self) -> State:
        self.show_averages(False)
        state = whole.state_out(self._model, self._phases, keep=self.keeps_whole)
        state.scaler = self._scaler.state_dict()
        return state

    def state_in(self, state: State) -> None:
        self.show_averages(False)
        whole.state_in(self._model, self._phases, state)
        self._scaler.load_state_dict(state.scaler)


@contextmanager
def unlearned(model: nn.Module) -> Iterator[None]:
    """Around a pass over a stand-in row: batch norms neither learn from it nor refuse it for being one."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


def _fit(carry: Carry, rows: int) -> Carry:
    """The state of the first rows: the last batch of an epoch may hold fewer."""
    if isinstance(carry, Tensor):
        return carry if len(carry) == rows else carry[:rows]
    if isinstance(carry, dict):
        return {name: _fit(value, rows) for name, value in carry.items()}
    if isinstance(carry, tuple | list):
        return type(carry)(_fit(value, rows) for value in carry)
    return carry


def first_bad(trained: TrainedPhase, step: int, sums: dict[str, Any]) -> str:
    bad = next((name for name, value in sums.items() if not bool(torch.isfinite(value).all())), None)
    for name, parameter in trained.named:
        if not _is_finite(parameter.detach()):
            return f"step {step}: the parameter {name} is not finite"
    for name, parameter in trained.named:
        if parameter.grad is not None and not _is_finite(parameter.grad):
            where = f"; so is this worker's {bad}" if bad else ""
            return f"step {step}: the gradient of {name} is not finite{where}"
    return f"step {step}: the gradient's norm is not finite"


def _is_finite(tensor: Tensor) -> bool:
    """The same on all workers that hold parts of it: a DTensor would answer for this worker's alone."""
    found = torch.isfinite(tensor).all()
    whole = getattr(found, "full_tensor", None)
    return bool(whole() if whole is not None else found)
