"""The protocol between a workload and the engine.

A workload is single-device code: it builds a model, turns a batch into outputs, outputs into a
loss, and says what to measure. It knows neither rank nor strategy. One class serves a classifier,
a stateful RNN, a recommender of several inputs and a GAN:

* several inputs are several entries of the batch, a plain dict of tensors;
* carried state is the `carry` that `forward` takes and returns;
* several optimizers are several `Phase`s;
* a metric that is no mean over rows (AUC, covered modes) is a function of sums, `summarize`;
* one that needs rows themselves (average precision) has them `listed`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from dlsys.data.dataset import Batch as Batch  # users import it from here
from dlsys.spec.card import Card
from dlsys.spec.card import Cut as Cut  # users import it from here
from dlsys.spec.rows import Shape
from dlsys.spec.section import Section
from dlsys.spec.task import Task

if TYPE_CHECKING:  # it imports what a user's own loss needs
    from dlsys.zoo.objective import LossFunction

# State carried from one batch to the next of the same stream: tensors, rows first, in nested
# dicts or tuples; None at the start of an epoch and for workloads without state.
Carry = Any
# What a run leaves to look at: text, images, or a table's rows.
Sample = str | Tensor | Sequence[Mapping[str, Any]]


@dataclass
class Loss:
    """The loss of a batch.

    Attributes:
        value: scalar, the MEAN over the batch's rows: the engine weights it by the number of rows.
        metrics: further means over rows, logged as `train/<name>`.
    """

    value: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One optimizer's part of a step.

    Attributes:
        name: names its loss in the log when there is more than one phase.
        loss: from (model, batch, carry) to (Loss, new carry).
        parameters: prefixes of the parameter names that this phase trains; "" is all. The
            others stay as they are and get no gradient.
        every: the phase runs on each step whose number (from 1) is a multiple of this.
    """

    name: str
    loss: Callable[[nn.Module, Batch, Carry], tuple[Loss, Carry]]
    parameters: tuple[str, ...] = ("",)
    every: int = 1


class Measured(Protocol):
    """Figures of a split besides a workload's own, as sums over rows."""

    @property
    def modes(self) -> Mapping[str, Literal["max", "min"]]:
        """The figures' names, each with which of its values is the best."""

    def sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Those of one batch."""

    def owns(self, name: str) -> bool:
        """Whether a sum is of these."""

    def results(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The figures, from the sums over a whole split."""


class NoOptions(Section):
    """A workload without options."""


class Workload:
    """Base of all workloads; a subclass overrides at least `build`, and `objective` or `phases`.

    Args:
        options: an instance of `Options`, the checked `model:` section.
        shape: what the data source hands out.
    """

    Options: ClassVar[type[Section]] = NoOptions
    card: ClassVar[Card | None] = None
    # How rows are ordered: `shuffled` anew each epoch, or `streams`, where row i of a batch
    # continues row i of the batch before (for carried state).
    order: ClassVar[Literal["shuffled", "streams"]] = "shuffled"
    # What it is for, where it is one of the kinds that dlsys knows.
    task: ClassVar[Task | None] = None
    # Best direction of each metric besides `loss` and its task's; a catalogue workload's are on its card.
    metrics: ClassVar[dict[str, Literal["max", "min"]]] = {}
    # Names of what `measure` gives that is not added up but put one after another, from whatever batches and
    # workers: (n, …) of any n, the order of whose rows means nothing.
    listed: ClassVar[frozenset[str]] = frozenset()
    # Layers that tensor parallelism cuts, by name; a catalogue workload's are on its card.
    tensor_plan: ClassVar[Mapping[str, Cut]] = {}

    # What a job says under `loss:`, to the workloads that leave it open.
    loss: LossFunction | None = None
    # What is measured besides, by such workloads.
    measures: Sequence[Measured] = ()

    def __init__(self, options: Any, shape: Shape) -> None:
        self.options = options
        self.shape = shape

    @property
    def modes(self) -> dict[str, Literal["max", "min"]]:
        """Every metric of a split, with the largest or the smallest value as the best."""
        known = self.card.metrics if self.card else self.task.metrics if self.task else {}
        own = {name: metric.best for name, metric in known.items()}
        besides = {name: best for measured in self.measures for name, best in measured.modes.items()}
        return {"loss": "min", **own, **self.metrics, **besides}

    def build(self) -> nn.Module:
        """The model, freshly initialised from torch's global generator, on the CPU."""
        raise NotImplementedError

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Any, Carry]:
        """The model's outputs for a batch, and the state to carry on."""
        raise NotImplementedError

    def objective(self, outputs: Any, batch: Batch) -> Loss:
        """The loss of outputs."""
        raise NotImplementedError

    def phases(self) -> Sequence[Phase]:
        """The parts of a step, in order; one phase over all parameters unless overridden."""

        def loss(model: nn.Module, batch: Batch, carry: Carry) -> tuple[Loss, Carry]:
            outputs, carry = self.forward(model, batch, carry)
            return self.objective(outputs, batch), carry

        return [Phase("main", loss)]

    def measure(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch's rows; the engine adds them over batches and workers.

        The engine adds `rows` itself. Tensors may have any shape, the same for every batch; those `listed`
        are float64 and may be of any length.
        """
        loss = self.objective(outputs, batch).value
        return {"loss": loss * rows_of(batch)}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Metrics from the sums over a whole split; by default each sum divided by `rows`."""
        rows = float(sums["rows"])
        return {name: float(value) / rows for name, value in sums.items() if name != "rows"}

    def sums(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """All that is measured of a batch: `measure`, and `measures` besides."""
        sums = self.measure(outputs, batch)
        for measured in self.measures:
            sums |= measured.sums(outputs, batch)
        return sums

    def results(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """All figures of a split, from the sums over it: `summarize`, and `measures` besides."""
        own = {name: value for name, value in sums.items() if not any(m.owns(name) for m in self.measures)}
        found = self.summarize(own)
        for measured in self.measures:
            found |= measured.results(sums)
        return found

    def average(self, outputs: Sequence[Any]) -> Any:
        """One output from several stochastic ones (Monte Carlo dropout); by default the mean."""
        return torch.stack(list(outputs)).mean(0)

    def samples(self, model: nn.Module, seed: int) -> Mapping[str, Sample]:
        """Something to look at when the run ends, by file name: text, images as a float tensor
        (N, C, H, W) in 0…1, or a table's rows. Called on rank 0 with the model in eval mode."""
        return {}

    def report(self, sums: Mapping[str, Tensor], learnt: Mapping[str, Any]) -> Mapping[str, Sample]:
        """What is known of each row of the last split that was measured, likewise; text may be JSON, where
        the file's name says so.

        Args:
            sums: over the split, what is `listed` among them.
            learnt: what was learnt from the data.
        """
        return {}

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        """What the model makes of a few rows that it did not learn from, likewise.

        Args:
            batch: rows for validation, or of the test if there is one.
            images: their first field as the source has it: `image` (N, C, H, W) in 0…1, before
                `data.normalize`.
        """
        return {}


def nothing_of(sums: Mapping[str, Tensor], listed: Collection[str]) -> dict[str, Tensor]:
    """Sums as they would be of no rows: what a stand-in row adds to a split."""
    return {name: value[:0] if name in listed else torch.zeros_like(value) for name, value in sums.items()}


def labels_of(batch: Batch) -> Tensor:
    """What stands in each row to be predicted: its `label`, or else its `target`."""
    return batch["label"] if "label" in batch else batch["target"]


def rows_of(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def log_mean_probability(outputs: Sequence[Tensor]) -> Tensor:
    """Logits of the mean of several predicted distributions; what classifiers `average` with."""
    return torch.stack([o.log_softmax(-1) for o in outputs]).logsumexp(0)
