"""`median`: stops trials worse than the median of the others (Golovin et al. 2017, section 3.2).

Google Vizier: A Service for Black-Box Optimization, https://doi.org/10.1145/3097983.3098043
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import Literal

from dlsys.plan.dealer import Dealer
from dlsys.plan.policy import Leg


@dataclass
class _Past:
    """What a trial has reported, the larger the better."""

    epoch: int = 0
    best: float = -math.inf
    total: float = 0.0
    reports: int = 0


class MedianPolicy(Dealer):
    """A trial goes on while its best value is no worse than the median of the others' running means.

    The means are taken up to the epoch at which the trial is judged, over trials that came as far.
    A trial that reports before the end of its leg has come to the end of its job.

    Args:
        trials: how many there may be.
        mode: which value is the best.
        epochs: where the job ends; None if by another rule.
        every: epochs between two reports.
        grace: no trial is stopped before this epoch.
        min_samples: how many others must have come as far.
    """

    def __init__(
        self,
        trials: int,
        mode: Literal["max", "min"],
        epochs: int | None,
        every: int,
        grace: int,
        min_samples: int,
    ) -> None:
        super().__init__(trials, mode)
        self._epochs = epochs
        self._every = every
        self._grace = grace
        self._min_samples = min_samples
        self._past: dict[int, _Past] = {}
        self._means: dict[int, list[float]] = {}  # by epoch, sorted
        self._waiting: deque[int] = deque()

    def next(self) -> Leg | None:
        if self._waiting:
            trial = self._waiting[0]
        elif self._begun < self.trials:
            trial = self._begun
        else:
            return None
        until = (self._past[trial].epoch if trial in self._past else 0) + self._every
        return Leg(trial, until if self._epochs is None else min(until, self._epochs))

    def _started(self, leg: Leg) -> None:
        if leg.trial in self._past:
            self._waiting.remove(leg.trial)

    def _reported(self, leg: Leg, epoch: int, value: float) -> None:
        assert leg.until is not None, "legs of this policy end at an epoch"
        past = self._past.setdefault(leg.trial, _Past())
        good = -math.inf if math.isnan(value) else value if self.mode == "max" else -value
        past.epoch, past.best = epoch, max(past.best, good)
        past.total, past.reports = past.total + good, past.reports + 1
        others = self._means.setdefault(epoch, [])
        judged = epoch >= self._grace and len(others) >= self._min_samples
        if epoch < leg.until or epoch == self._epochs:
            self._verdicts[leg.trial] = "done"
        elif judged and past.best < _median(others):
            self._verdicts[leg.trial] = "stopped"
        else:
            self._waiting.append(leg.trial)
        mean = past.total / past.reports
        insort(others, -math.inf if math.isnan(mean) else mean)


def _median(values: list[float]) -> float:
    """Of sorted values, of which some may be infinite."""
    middle = len(values) // 2
    low, high = values[middle - 1 + len(values) % 2], values[middle]
    return high if low == high else (low + high) / 2
