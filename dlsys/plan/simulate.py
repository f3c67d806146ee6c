"""A sweep with a clock of its own: the policy that would run it, on known learning curves."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dlsys.plan.curves import Curves
from dlsys.plan.policy import Leg, Policy


class Ended(NamedTuple):
    """A leg that came to its end.

    Attributes:
        start, end: seconds since the sweep's start.
        trial: who trained.
        curve: whose curve it follows: its own, or that of a donor.
        first, last: epochs in its state before and after.
        value: what it reported.
        epoch_seconds: what an epoch took.
    """

    start: float
    end: float
    trial: int
    curve: int
    first: int
    last: int
    value: float
    epoch_seconds: float


class Best(NamedTuple):
    """A report that is better than all before: the sweep's time and epochs then, and whose it is."""

    seconds: float
    epochs: int
    trial: int
    value: float


@dataclass
class Timeline:
    """What happened.

    Attributes:
        workers: how many trials could train at a time.
        mode: which value is the best.
        legs: in the order of their ends.
        best: each report that was the best so far.
        rungs: how many trials reported at each epoch.
        epochs: trained in all.
        seconds: from the start to the last report.
        busy: seconds of all workers in which they trained.
    """

    workers: int
    mode: Literal["max", "min"]
    legs: list[Ended] = field(default_factory=list)
    best: list[Best] = field(default_factory=list)
    rungs: Counter[int] = field(default_factory=Counter)
    epochs: int = 0
    seconds: float = 0.0
    busy: float = 0.0

    @property
    def idle(self) -> float:
        """The share of the workers' time in which they trained nothing."""
        return 1 - self.busy / (self.workers * self.seconds) if self.seconds else 0.0

    def reaches(self, target: float, curves: Curves) -> float | None:
        """Seconds until a trial's metric was as good as a target for the first time, or None.

        Metrics between two reports count as well, of the legs that report as much at their end.
        """
        times = []
        for leg in self.legs:
            if _reaches(leg.value, target, self.mode):
                epochs = range(leg.first + 1, leg.last)
                found = next(
                    (e for e in epochs if _reaches(curves.value(leg.curve, e), target, self.mode)), leg.last
                )
                times.append(leg.end - (leg.last - found) * leg.epoch_seconds)
        return min(times, default=None)


def _reaches(value: float, target: float, mode: str) -> bool:
    return value >= target if mode == "max" else value <= target


def simulate(
    policy: Policy,
    curves: Curves,
    workers: int,
    epochs: int,
    *,
    overhead: float = 0.0,
    straggling: float = 0.0,
    dropping: float = 0.0,
    seed: int = 0,
) -> Timeline:
    """Runs a sweep to its end.

    A trial that takes over a donor follows the donor's curve from there on: what the change of its
    settings does is not known.

    Args:
        policy: before its first trial; afterwards it is at its end.
        curves: what trials report, and how long their epochs take.
        workers: how many trials train at a time.
        epochs: where the job ends, for legs that do not say.
        overhead: seconds of each leg besides its epochs.
        straggling: a leg's epochs take 1 + |z| times as long, z normal with this standard deviation
            (Li et al. 2018, appendix A.1).
        dropping: the probability that an epoch is lost; it is trained again, after another overhead.
        seed: decides about stragglers and drops.
    """
    line = Timeline(workers, policy.mode)
    rng = random.Random(seed)
    state: dict[int, tuple[int, int]] = {}  # each trial's curve and epochs
    running: list[tuple[float, int, Ended]] = []
    clock = 0.0
    while True:
        while len(running) < workers and (leg := policy.next()):
            policy.begin(leg)
            ended = _train(leg, clock, state, curves, epochs, (overhead, straggling, dropping), rng)
            heapq.heappush(running, (ended.end, leg.trial, ended))
        if not running:
            return line
        clock, _, ended = heapq.heappop(running)
        state[ended.trial] = ended.curve, ended.last
        policy.report(ended.trial, ended.last, ended.value)
        line.legs.append(ended)
        line.rungs[ended.last] += 1
        line.epochs += ended.last - ended.first
        line.busy += ended.end - ended.start
        line.seconds = clock
        if not math.isnan(ended.value) and (
            not line.best or _better(ended.value, line.best[-1].value, policy.mode)
        ):
            line.best.append(Best(clock, line.epochs, ended.trial, ended.value))


def _better(value: float, other: float, mode: str) -> bool:
    return value > other if mode == "max" else value < other


def _train(
    leg: Leg,
    clock: float,
    state: dict[int, tuple[int, int]],
    curves: Curves,
    epochs: int,
    troubles: tuple[float, float, float],
    rng: random.Random,
) -> Ended:
    curve, first = state.get(leg.trial if leg.donor is None else leg.donor, (leg.trial, 0))
    last = leg.until or epochs
    overhead, straggling, dropping = troubles
    epoch_seconds = curves.seconds(leg.trial) * (1 + abs(rng.gauss(0, straggling)))
    seconds = overhead + (last - first) * epoch_seconds
    for _ in range(last - first if dropping else 0):
        while rng.random() < dropping:
            seconds += overhead + epoch_seconds
    value = curves.value(curve, last)
    return Ended(clock, clock + seconds, leg.trial, curve, first, last, value, epoch_seconds)
