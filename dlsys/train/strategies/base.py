"""The protocol between the loop and a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.spec.job import TrainJob
from dlsys.train.regularize import Regularizers
from dlsys.train.world import World
from dlsys.zoo.workload import Workload


@dataclass(frozen=True)
class Parts:
    """What a strategy is built from.

    Attributes:
        job: the checked job.
        workload: single-device code.
        regularizers: the job's regularizers.
        world: this worker among the others.
    """

    job: TrainJob
    workload: Workload
    regularizers: Regularizers
    world: World

    @property
    def dtype(self) -> torch.dtype | None:
        """The autocast type of forward passes; None for fp32."""
        return torch.bfloat16 if self.job.precision == "bf16" else None


@dataclass
class StepResult:
    """What a step tells the loop.

    Attributes:
        sums: this worker's weighted parts of means over the global batch, by name (`loss`, …):
            their sum over all workers is the mean. Detached scalars.
        grad_norm: norm of the whole gradient before clipping, the same on every worker.
    """

    sums: dict[str, Tensor]
    grad_norm: Tensor


@dataclass
class State:
    """Everything a strategy must get back to continue, independent of the strategy.

    Attributes:
        model: every parameter and buffer, whole, by its name in the plain model.
        optimizers: for each phase, torch's optimizer state by parameter name
            (`state` and `param_groups`, as `torch.distributed.checkpoint.state_dict` writes it).
        local: what belongs to this worker alone: carried state.
    """

    model: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)


class Strategy(ABC):
    """One way of training. The loop calls these methods and never asks which one it has."""

    @abstractmethod
    def setup(self, parts: Parts) -> None:
        """Builds the model and the optimizers; every worker starts from the same weights."""

    @abstractmethod
    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        """One update from one global batch.

        Args:
            batch: this worker's part.
            step: the update's number, from 1.
            hyper: `lr` and `momentum` for this update.

        Raises:
            NonFiniteError: a NaN or an infinity in the gradient; nothing was updated.
        """

    @abstractmethod
    def evaluate_step(self, micro: MicroBatch, carry: Any) -> tuple[dict[str, Tensor], Any]:
        """This worker's sums of `Workload.measure`, `rows` among them, and the carried state."""

    @abstractmethod
    def state_out(self) -> State:
        """The whole state; called on every worker. Tensors may alias the live ones."""

    @abstractmethod
    def state_in(self, state: State) -> None:
        """Takes a state that any strategy with any number of workers gave out."""

    @property
    @abstractmethod
    def model(self) -> torch.nn.Module:
        """The plain model, for samples and for the count of its parameters."""

    def reset_carry(self) -> None:  # noqa: B027 - most strategies carry nothing
        """Forgets carried state: a new epoch begins."""

    def communication(self) -> Mapping[str, float]:
        """Seconds and bytes of communication in the last steps, where the strategy knows them."""
        return {}
