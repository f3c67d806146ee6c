"""`pbt`: population-based training (Jaderberg et al. 2017), asynchronous, with truncation selection.

Population Based Training of Neural Networks, https://arxiv.org/abs/1711.09846
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import Literal

from dlsys.errors import UsageError
from dlsys.plan.dealer import Dealer, Rank
from dlsys.plan.policy import Leg


class PBTPolicy(Dealer):
    """All trials train to the end; the worst go on from the state of one of the best.

    A trial is held against the latest values of all that have reported and not failed. Which of the
    best it takes over is drawn at its report, and that one's state is what it last reported with.
    Trials at the end of their job, and those whose value is NaN, are not taken over.

    Where not all trials can run at a time, the one that has trained least comes first, so that the
    population is of one age. (The least age therefore rises, and every population comes to its end,
    although a trial may fall back to a younger one's age.)

    A trial that reports before the end of its leg has come to the end of its job.

    Args:
        trials: the population.
        mode: which value is the best.
        epochs: where the job ends; None if by another rule.
        every: epochs between two reports.
        quantile: the share of worst, and of best.
        seed: decides who is taken over, with the trial and its epoch.
    """

    def __init__(
        self,
        trials: int,
        mode: Literal["max", "min"],
        epochs: int | None,
        every: int,
        quantile: float,
        seed: int,
    ) -> None:
        super().__init__(trials, mode)
        self._epochs = epochs
        self._every = every
        self._quantile = quantile
        self._seed = seed
        self._epoch: dict[int, int] = {}  # at its latest report
        self._latest: dict[int, Rank] = {}
        self._ranking: list[Rank] = []  # all of `_latest`, the best first
        self._donors: dict[int, int] = {}
        # By (epoch, trial); those that began leave when they come first.
        self._waiting: list[tuple[int, int]] = []

    def next(self) -> Leg | None:
        if self._begun < self.trials:
            return Leg(self._begun, self._until(0))
        if not self._waiting:
            return None
        epoch, trial = self._waiting[0]
        donor = self._donors.get(trial)
        if donor is None or self._verdicts.get(donor) == "done":
            return Leg(trial, self._until(epoch))
        return Leg(trial, self._until(self._epoch[donor]), donor)

    def _until(self, epoch: int) -> int:
        until = epoch + self._every
        return until if self._epochs is None else min(until, self._epochs)

    def _started(self, leg: Leg) -> None:
        self._donors.pop(leg.trial, None)
        while self._waiting and self._verdicts.get(self._waiting[0][1]) != "waits":
            heappop(self._waiting)

    def _reported(self, leg: Leg, epoch: int, value: float) -> None:
        assert leg.until is not None, "legs of this policy end at an epoch"
        trial = leg.trial
        self._epoch[trial] = epoch
        self._forget(trial)
        self._latest[trial] = self._rank(trial, value)
        insort(self._ranking, self._latest[trial])
        if epoch < leg.until or epoch == self._epochs:
            self._verdicts[trial] = "done"
            return
        heappush(self._waiting, (epoch, trial))
        count = len(self._ranking)
        share = min(max(1, int(self._quantile * count)), count // 2)
        if bisect_left(self._ranking, self._latest[trial]) >= count - share:
            best = [
                other
                for nan, _, other in self._ranking[:share]
                if not nan and self._verdicts.get(other) != "done"
            ]
            if best:
                self._donors[trial] = random.Random(f"{self._seed}/{trial}/{epoch}").choice(best)

    def _failed(self, leg: Leg) -> None:
        self._forget(leg.trial)

    def _forget(self, trial: int) -> None:
        if trial in self._latest:
            del self._ranking[bisect_left(self._ranking, self._latest.pop(trial))]

    def extend(self, trials: int) -> None:
        raise UsageError(
            f"a population keeps its {self.trials} trials: one that begins later is younger than all "
            "others, and would only take over from them",
            hint="Start a sweep with more trials.",
        )
