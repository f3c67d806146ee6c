"""How many workers a run takes when nodes are lost and come back (`failure.elastic`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from dlsys.plan.room import fits
from dlsys.spec.train import rules
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import Single, usual

Free = Callable[[], Sequence[dict[str, float]]]

# A node that is back must still be there at the next look: a dying one comes and goes.
_LOOK = 5.0
_LOOKS = 2


def with_workers(job: TrainJob, workers: int) -> TrainJob:
    """The same job with another number of workers, and with the same strategy and options.

    Only `single`, which several workers cannot have, becomes what they usually have. DDP stays for one worker
    too, which does nothing of it: what it was told is there when there are several again.
    """
    changes: dict[str, Any] = {"resources": job.resources.model_copy(update={"workers": workers})}
    if isinstance(job.strategy, Single) and workers > 1:
        changes["strategy"] = usual(workers)
    return job.model_copy(update=changes)


def choices(job: TrainJob) -> list[int]:
    """The numbers of workers that the job may have by `elastic` and all other rules, the largest first."""
    elastic = job.failure.elastic
    if elastic is None:
        return [job.resources.workers]
    counts = range(elastic.max, elastic.min - 1, -1)
    unbound = job.model_copy(update={"failure": job.failure.model_copy(update={"elastic": None})})
    return [count for count in counts if not any(rules.check(with_workers(unbound, count), set()))]


def most(job: TrainJob, free: Sequence[dict[str, float]], held: int = 0) -> int:
    """The largest allowed number of workers that there is room for; 0 where there is none.

    Args:
        job: the job.
        free: what is free on each node.
        held: workers that have their room already, not counted in `free`.
    """
    one = job.resources.bundles[0]
    return next((count for count in choices(job) if fits([one] * max(0, count - held), free)), 0)


class Growth:
    """Notices, while a run trains with fewer workers than it may have, that there is room for more.

    Args:
        job: the job, with the workers that it trains with.
        free: tells what is free on each node.

    Attributes:
        target: how many workers there was room for at the last look.
    """

    def __init__(self, job: TrainJob, free: Free) -> None:
        self.target = job.resources.workers
        self._job = job
        self._free = free
        self._seen = 0
        self._next = time.monotonic() + _LOOK

    def possible(self) -> bool:
        """Whether there has been room for more for some time; cheap to ask often."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LOOK
        held = self._job.resources.workers
        self.target = most(self._job, self._free(), held)
        self._seen = self._seen + 1 if self.target > held else 0
        return self._seen >= _LOOKS
