"""Workloads that learn without gradients: from sums over rows, by whatever follows from them.

k-means, naive Bayes, expectation maximization, alternating least squares and counting are all of the form
that Chu et al. 2006, "Map-Reduce for Machine Learning on Multicore" (NIPS 19), call summation form: what a
step needs to know of the rows is a sum over them. So any number of workers computes what one does: each adds
up its own rows, the sums are added up over the workers, and all of them solve for the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from dlsys.zoo.workload import Batch, Phase, Workload


@dataclass(frozen=True)
class Part:
    """One part of a step: sums over the rows of the global batch, and what follows from them.

    Attributes:
        name: names its loss in the log when there is more than one part.
        statistics: from (model, batch) to sums over the batch's rows, tensors of any shape, the same for
            every batch. `loss` among them is the sum of the rows' losses before the update.
        solve: changes the model's parameters and buffers in place by the sums over the global batch;
            called on every worker with the same sums, and without gradients. What it returns is logged.
    """

    name: str
    statistics: Callable[[nn.Module, Batch], dict[str, Tensor]]
    solve: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, float]]


class Solved(Workload):
    """Base of workloads whose steps are solved. A subclass overrides `statistics` and `solve`, or `parts`
    where a step has several, one after another, and `build`, `forward` and `objective` as of any workload.

    Its parameters have `requires_grad=False`. A step takes the rows of a global batch: with
    `batch_size: all`, those of the whole training set, in micro-batches of whatever size memory has room for
    (`gradient.accumulate`).
    """

    # Statistics that are not added up but put one after another, from whatever micro-batches and workers:
    # (n, …) of any n, float64, the order of whose rows means nothing.
    gathered: ClassVar[frozenset[str]] = frozenset()

    def phases(self) -> Sequence[Phase]:
        """None: there is nothing to descend."""
        return ()

    def parts(self) -> Sequence[Part]:
        """The parts of a step, in order."""
        return [Part("main", self.statistics, self.solve)]

    def statistics(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """As `Part.statistics`."""
        raise NotImplementedError

    def solve(self, model: nn.Module, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        """As `Part.solve`."""
        raise NotImplementedError
