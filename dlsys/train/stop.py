"""When a run ends: one decision that all workers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

from dlsys.spec.rl.job import Job
from dlsys.spec.section import Interval
from dlsys.train.checkpoint import Position
from dlsys.train.world import World

Reason = Literal["finished", "target", "time", "patience", "paused", "interrupted"]

# Workers agree about time and Ctrl-C this often: often enough for people, too rarely to cost.
_AGREE_SECONDS = 0.5


class Stopper:
    """Holds `stop:` and the time between two checkpoints against the run's position.

    Steps, epochs and metrics are the same on every worker. The clock and Ctrl-C are not: about
    them the workers agree at steps that all of them know.

    Args:
        requested: whether someone asked this worker to end early.
        first: the first step to agree at.
        pause: the epoch at whose end training pauses, to be taken up again.
    """

    def __init__(
        self,
        job: Job,
        world: World,
        requested: Callable[[], bool],
        first: int,
        pause: int | None = None,
    ) -> None:
        self._stop, self._world, self._requested = job.stop, world, requested
        self._pause = pause
        self._agree_at = first
        self._agreed: Reason | None = None
        self._save_every = job.checkpoint.every
        self.saved()

    def saved(self) -> None:
        """The present position is in a checkpoint."""
        self._saved_at = time.monotonic()
        self._save_late = False

    def due(self, interval: Interval, position: Position, epoch_ended: bool) -> bool:
        """Whether what is done at this interval is to be done after this step."""
        if interval.unit == "second":
            return self._save_late
        if interval.unit == "step":
            return position.step % interval.count == 0
        return epoch_ended and position.epoch % interval.count == 0

    def reason(self, position: Position, metrics: Mapping[str, float]) -> Reason | None:
        """Why the run ends here; None while it goes on."""
        stop = self._stop
        if (stop.steps and position.step >= stop.steps) or (stop.epochs and position.epoch >= stop.epochs):
            return "finished"
        if stop.target and all(
            name in metrics and bound.holds(metrics[name]) for name, bound in stop.target.items()
        ):
            return "target"
        if self._pause is not None and position.epoch >= self._pause:
            return "paused"
        return self._agreed

    def agree(self, position: Position, step_seconds: float) -> None:
        """Called after each step on every worker."""
        if position.step < self._agree_at:
            return
        late = self._stop.time is not None and position.seconds >= self._stop.time
        # 2 outranks 1: who asked for the end gets it, whatever the clock says.
        vote = self._world.max(2.0 if self._requested() else float(late))
        self._agreed = {0.0: None, 1.0: "time", 2.0: "interrupted"}[vote]  # type: ignore[assignment]
        if self._save_every.unit == "second":
            waited = self._world.max(time.monotonic() - self._saved_at)
            self._save_late = waited >= self._save_every.count
        slowest = self._world.max(step_seconds)
        wait = int(_AGREE_SECONDS / max(slowest, 1e-6))
        self._agree_at = position.step + min(max(wait, 1), 1000)
