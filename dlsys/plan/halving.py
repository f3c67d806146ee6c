"""`successive-halving` (Jamieson and Talwalkar 2015) and `hyperband` (Li et al. 2016).

https://arxiv.org/abs/1502.07943, https://arxiv.org/abs/1603.06560
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import Literal

from dlsys.plan.dealer import Dealer, Rank
from dlsys.plan.policy import Leg


def rungs_between(grace: int, most: int, reduction: int) -> tuple[int, ...]:
    """The epochs of the rungs: grace, grace × reduction, … below `most`, and `most`."""
    rungs = []
    while grace < most:
        rungs.append(grace)
        grace *= reduction
    return (*rungs, most)


@dataclass
class _Bracket:
    """Trials that are compared with each other.

    Attributes:
        sizes: how many trials there are to be at each rung; fewer when more have failed.
        rungs: its rungs' epochs.
        rung: the rung that its trials train to.
        left: how many of them have neither reported there nor failed.
        best: those that have, as far as they may still go on.
    """

    sizes: tuple[int, ...]
    rungs: tuple[int, ...]
    rung: int = 0
    left: int = 0
    best: list[Rank] = field(default_factory=list)


class _Halvings(Dealer):
    """Brackets of successive halving, one after the other.

    Nobody goes on from a rung before all trials of the bracket have come to it or failed; then so
    many of the best go on as were planned, or all if fewer are left. A later bracket's trials start
    only when those before have nothing to train, so that no worker idles while there is one.

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
        self._rungs = rungs
        self._reduction = reduction
        self._brackets: list[_Bracket] = []
        self._firsts: list[int] = []  # each bracket's first trial
        self._planned = 0
        # Promoted trials: bracket, place in it, trial. Those that began leave when they come first.
        self._ready: list[tuple[int, int, int]] = []
        self._promoted: set[int] = set()
        self._extended()

    @abstractmethod
    def _design(self, index: int, left: int) -> tuple[int, int]:
        """A bracket's number of trials, at most `left`, and its first rung."""

    def _extended(self) -> None:
        while self._planned < self.trials:
            size, first = self._design(len(self._brackets), self.trials - self._planned)
            rungs = self._rungs[first:]
            sizes = tuple(max(1, size // self._reduction**k) for k in range(len(rungs)))
            self._brackets.append(_Bracket(sizes, rungs, left=size))
            self._firsts.append(self._planned)
            self._planned += size

    def _of(self, trial: int) -> int:
        """The index of a trial's bracket."""
        return bisect_right(self._firsts, trial) - 1

    def next(self) -> Leg | None:
        new = self._of(self._begun) if self._begun < self.trials else len(self._brackets)
        if self._ready and self._ready[0][0] <= new:
            index, _, trial = self._ready[0]
        elif new < len(self._brackets):
            index, trial = new, self._begun
        else:
            return None
        bracket = self._brackets[index]
        return Leg(trial, bracket.rungs[bracket.rung])

    def _started(self, leg: Leg) -> None:
        self._promoted.discard(leg.trial)
        while self._ready and self._ready[0][2] not in self._promoted:
            heapq.heappop(self._ready)

    def _reported(self, leg: Leg, epoch: int, value: float) -> None:
        index = self._of(leg.trial)
        bracket = self._brackets[index]
        if leg.until == bracket.rungs[-1]:
            self._verdicts[leg.trial] = "done"
        else:
            insort(bracket.best, self._rank(leg.trial, value))
            if len(bracket.best) > bracket.sizes[bracket.rung + 1]:
                self._verdicts[bracket.best.pop()[2]] = "stopped"
        self._settle(index)

    def _failed(self, leg: Leg) -> None:
        self._settle(self._of(leg.trial))

    def _settle(self, index: int) -> None:
        """One trial fewer is awaited at a bracket's rung; after the last one, the best go on."""
        bracket = self._brackets[index]
        bracket.left -= 1
        if bracket.left or not bracket.best:
            return
        bracket.rung += 1
        bracket.left = len(bracket.best)
        for place, (_, _, trial) in enumerate(bracket.best):
            heapq.heappush(self._ready, (index, place, trial))
            self._promoted.add(trial)
        bracket.best = []


class SuccessiveHalvingPolicy(_Halvings):
    """All trials are one bracket; those that an extension adds are another one.

    At the rung k (from 0) are n // reduction^k trials, and at least one: somebody trains to the end.
    """

    def _design(self, index: int, left: int) -> tuple[int, int]:
        return left, 0


class HyperbandPolicy(_Halvings):
    """Brackets s = s_max, …, 0 of ⌈(s_max + 1) · reduction^s / (s + 1)⌉ trials and s + 1 rungs.

    They are repeated until all trials are used up; the last bracket may have to do with fewer.
    """

    def _design(self, index: int, left: int) -> tuple[int, int]:
        brackets = len(self._rungs)
        first = index % brackets
        rungs = brackets - first
        size = -(-brackets * self._reduction ** (rungs - 1) // rungs)
        return min(size, left), first
