"""`asha`: asynchronous successive halving by promotion (Li et al. 2018, algorithm 2).

A System for Massively Parallel Hyperparameter Tuning, https://arxiv.org/abs/1810.05934
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Literal

from dlsys.plan.dealer import Dealer, Rank
from dlsys.plan.policy import Leg


@dataclass
class _Rung:
    """Attributes:
    epochs: when trials come to it.
    all: those that did, the best first.
    waiting: those of them that may still be promoted.
    coming: how many are training towards it.
    """

    epochs: int
    all: list[Rank] = field(default_factory=list)
    waiting: list[Rank] = field(default_factory=list)
    coming: int = 0


class AshaPolicy(Dealer):
    """Whoever asks gets the best trial that is among the best 1/reduction of its rung, the highest rung
    first, or else a new one. When all trials have begun, promotions go on while there are any.

    Args:
        trials: how many there may be.
        mode: which value is the best.
        rungs: the epochs of the rungs.
        reduction: one of so many goes on from a rung.
    """

    def __init__(
        self, trials: int, mode: Literal["max", "min"], rungs: tuple[int, ...], reduction: int
    ) -> None:
        super().__init__(trials, mode)
        self._reduction = reduction
        self._rungs = [_Rung(epochs) for epochs in rungs]
        self._at = {epochs: place for place, epochs in enumerate(rungs)}

    def next(self) -> Leg | None:
        for lower, upper in zip(self._rungs[-2::-1], self._rungs[:0:-1], strict=True):
            if self._promotable(lower):
                return Leg(lower.waiting[0][2], upper.epochs)
        return Leg(self._begun, self._rungs[0].epochs) if self._begun < self.trials else None

    def _promotable(self, rung: _Rung) -> int:
        """How many may be promoted now."""
        best = len(rung.all) // self._reduction
        return bisect_left(rung.waiting, rung.all[best]) if best and rung.waiting else 0

    def _started(self, leg: Leg) -> None:
        assert leg.until is not None, "legs of this policy end at an epoch"
        place = self._at[leg.until]
        self._rungs[place].coming += 1
        if place:
            waiting = self._rungs[place - 1].waiting
            del waiting[next(i for i, rank in enumerate(waiting) if rank[2] == leg.trial)]

    def _reported(self, leg: Leg, epoch: int, value: float) -> None:
        assert leg.until is not None, "legs of this policy end at an epoch"
        place = self._at[leg.until]
        rung = self._rungs[place]
        rung.coming -= 1
        rank = self._rank(leg.trial, value)
        insort(rung.all, rank)
        if place == len(self._rungs) - 1:
            self._verdicts[leg.trial] = "done"
        else:
            insort(rung.waiting, rank)
        self._stop()

    def _failed(self, leg: Leg) -> None:
        assert leg.until is not None, "legs of this policy end at an epoch"
        self._rungs[self._at[leg.until]].coming -= 1
        self._stop()

    def _stop(self) -> None:
        """Stops those whom no report of others can bring among the best of their rung.

        That takes as many that come after and are worse as there can be. Of those that come to a rung,
        at most each makes one trial promotable: the first ones none, until there are `reduction`.
        """
        future = self.trials - self._begun
        for rung in self._rungs[:-1]:
            future += rung.coming
            most = (len(rung.all) + future) // self._reduction
            while rung.waiting and bisect_left(rung.all, rung.waiting[-1]) >= most:
                self._verdicts[rung.waiting.pop()[2]] = "stopped"
            too_few = max(0, self._reduction - 1 - len(rung.all))
            future = self._promotable(rung) + max(0, future - too_few)
