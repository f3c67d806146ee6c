"""Parameters that a step does not use, under DeepSpeed's engine.

From stage 1 on its optimizer updates flat tensors as a whole, and counts the steps of all that lies in
one together. A parameter without a gradient is one with a gradient of 0 there: momentum would still move
it, decay would shrink it. What would thereby differ from one worker is refused, by name, before an update.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch.distributed as dist
from torch import nn

from dlsys.errors import UsageError
from dlsys.spec.train.job import TrainJob
from dlsys.train.strategies.idle import counted
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.traffic import Traffic
from dlsys.train.world import World

# Their rules leave a parameter and their own state as they are where the gradient is 0.
_STILL = ("sgd", "minibatch-sgd", "gd", "adagrad")
PENALTIES = {"l1", "l2", "elastic-net"}
_MEND = "say strategy.name: ddp, or strategy.stage: 0"


class Idle:
    """Which parameters the steps have used."""

    def __init__(self, trained: TrainedPhase, job: TrainJob, world: World, traffic: Traffic) -> None:
        # Those without a gradient in the last step, and in this one; None before the first.
        self._before: set[str] | None = None
        self._now: set[str] = set()
        self._named, self._job, self._world, self._traffic = trained.named, job, world, traffic
        self._everyone = dist.group.WORLD if world.size > 1 else None
        self._used: set[str] = set()
        optimizer = job.optimizer
        decays = bool(optimizer.weight_decay) or any(r.name in PENALTIES for r in job.regularize)
        # Yogi's means do not begin at 0.
        self._moves = decays or optimizer.name == "yogi"
        self._still = not decays and optimizer.name in _STILL and not job.keeps_momentum

    def note(self, used: Sequence[bool]) -> None:
        """A backward pass of this worker comes to these parameters."""
        self._used |= {name for (name, _), has in zip(self._named, used, strict=True) if has}

    def same_on_all(self, used: Sequence[bool]) -> None:
        """Refuses a backward pass that comes to a parameter on some workers only.

        Raises:
            UsageError: it does.
        """
        for (name, _), count in zip(self._named, self._counts(used), strict=True):
            if 0 < count < self._world.size:
                raise UsageError(
                    f"strategy.stage: from 2 on, gradients are averaged in the order in which they come, "
                    f"the same on all workers, and {count} of {self._world.size} use {name} in this step: "
                    "say strategy.stage: 1, or strategy.name: ddp"
                )

    def _counts(self, used: Sequence[bool]) -> list[int]:
        if self._everyone is None:
            return [int(has) for has in used]
        return counted(used, self._everyone, self._world.device, self._traffic)

    def left_out(self) -> list[nn.Parameter]:
        """Behind a step's last backward pass: the parameters that no worker has used."""
        counts = self._counts([name in self._used for name, _ in self._named])
        self._used.clear()
        self._now = {name for (name, _), count in zip(self._named, counts, strict=True) if not count}
        return [parameter for name, parameter in self._named if name in self._now]

    def refuse(self, step: int) -> None:
        """Refuses what the flat tensors would make of those that were left out.

        Raises:
            UsageError: they would be changed, or their state would.
        """
        before, self._before = self._before, self._now
        # What has been idle from the start has no momentum that could move it.
        wrong = self._now if self._moves else self._now ^ (self._now if before is None else before)
        name = next((name for name, _ in self._named if name in wrong), None)
        if self._still or name is None:
            return
        what = "no gradient" if name in self._now else "its first gradient"
        raise UsageError(
            f"strategy: {name} has {what} in step {step}, and zero updates all parameters as one, which "
            f"{self._job.optimizer.name} with one worker does not: {_MEND}"
        )

    def load(self, with_state: Collection[str]) -> None:
        """Goes on behind steps that left an optimizer's state for these parameters."""
        self._before = {name for name, _ in self._named if name not in with_state} if with_state else None

    @property
    def without_state(self) -> set[str]:
        """Parameters of which one worker's optimizer has no state."""
        return set() if self._still else self._before or set()
