"""The protocol between the loop and a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dlsys.data.loader import Loader, MicroBatch, StepBatch
from dlsys.spec.train.job import TrainJob
from dlsys.train.precision import Precision
from dlsys.train.ps.wire import Servers
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
        servers: where the parameter servers are, if the launcher started some.
        note: tells people a sentence.
        begin: gives a model that was just built the weights that the job names, and freezes what it freezes.
        steps_per_epoch: updates.
    """

    job: TrainJob
    workload: Workload
    regularizers: Regularizers
    world: World
    servers: Servers | None = None
    note: Callable[[str], None] = lambda text: None
    begin: Callable[[nn.Module], None] = lambda model: None
    steps_per_epoch: int = 1

    @property
    def precision(self) -> Precision:
        """What numbers this worker computes in."""
        return Precision(self.job.precision, self.world.device)


@dataclass
class StepResult:
    """What a step tells the loop.

    Attributes:
        sums: this worker's weighted parts of means over the global batch, by name (`loss`, …):
            their sum over all workers is the mean. Detached scalars.
        grad_norm: norm of the whole gradient before clipping, the same on every worker.
        shares: workers' shares of global batches that the sums are over.
        figures: what else is logged, by name, the same on every worker.
    """

    sums: dict[str, Tensor]
    grad_norm: Tensor
    shares: int = 1
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass
class State:
    """Everything a strategy must get back to continue, independent of the strategy.

    Attributes:
        model: every parameter and buffer, whole, by its name in the plain model.
        optimizers: for each phase, torch's optimizer state by parameter name
            (`state` and `param_groups`, as `torch.distributed.checkpoint.state_dict` writes it), and likewise
            for the average of its weights, where the job has one (`dlsys.train.average`).
        local: what belongs to this worker alone: carried state.
        scaler: the loss scale's, where there is one.
    """

    model: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)


class Strategy(ABC):
    """One way of training. The loop calls these methods and never asks which one it has."""

    @abstractmethod
    def setup(self, parts: Parts) -> None:
        """Builds the model and the optimizers; every worker starts from the same weights."""

    def gathering(self, world: World) -> World:
        """How workers meet once `setup` is done: in `world`, unless some of them may be lost on the way."""
        return world

    @abstractmethod
    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        """One update from one global batch.

        Args:
            batch: this worker's part.
            step: the update's number, from 1.
            hyper: `lr` and `momentum` for this update.

        Raises:
            NonFiniteError: a NaN or an infinity in the gradient that no loss scale is to blame for; nothing
                was updated.
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
    def data_place(self) -> tuple[int, int]:
        """Which share of every batch is this worker's, and of how many shares.

        Workers that hold parts of one model have the same share; then only one of them gives
        sums that are not 0, because sums are added over all workers.
        """

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The model as this worker trains it: cut, where the strategy cuts it."""

    def batches(self, loader: Loader, epoch: int, done: int, before: int) -> Iterator[tuple[int, StepBatch]]:
        """This worker's batches of an epoch, each with the number of its step in it, from 1.

        Numbers rise to the epoch's last. Where `meets` says so, every worker has the same one once;
        other steps may have been made by others, or come several times, a share at a time.

        Args:
            epoch: the epoch's number, from 0.
            done: its steps that are done.
            before: all updates before this epoch.
        """
        return enumerate(loader.epoch(epoch, done), done + 1)

    def meets(self, step: int) -> bool:
        """Whether all workers make this update, an epoch's last aside, at the same time.

        Only then may workers wait for each other outside of the strategy.
        """
        return True

    def reset_carry(self) -> None:  # noqa: B027 - most strategies carry nothing
        """Forgets carried state: a new epoch begins."""

    def close(self) -> None:  # noqa: B027 - most strategies hold nothing but memory
        """Gives back what `setup` took from the process; called once, also after an error."""

    def communication(self) -> Mapping[str, float]:
        """Seconds and bytes of communication in the last steps, where the strategy knows them."""
        return {}
