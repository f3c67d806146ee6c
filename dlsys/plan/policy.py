"""How the trials of a sweep are dealt out: one set of rules that runs, replays and simulates sweeps.

A policy is pure bookkeeping. Whoever trains asks `next` for a leg, a piece of one trial's training,
says `begin` when it starts it, and `report` when the trial has come to the leg's end. The same calls
in the same order give the same answers, so that a record of them rebuilds a policy after its process
died, and a simulation with a clock of its own shows what a sweep will cost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["waits", "done", "stopped"]


@dataclass(frozen=True)
class Leg:
    """A piece of a trial's training without a decision in between.

    Attributes:
        trial: its number, from 0; one that was never begun is new.
        until: the epoch at whose end the trial reports; None is the end of its job.
        donor: the trial whose state and settings this one takes over first (population-based
            training); the settings are changed before they are used.
    """

    trial: int
    until: int | None
    donor: int | None = None


class Policy(ABC):
    """Deals out legs.

    Args:
        trials: how many there may be.
        mode: whether the largest or the smallest value is the best.
    """

    def __init__(self, trials: int, mode: Literal["max", "min"]) -> None:
        self.trials = trials
        self.mode = mode

    @abstractmethod
    def next(self) -> Leg | None:
        """What to train next; None when nothing can start before a running trial reports.

        Changes nothing: asked again, it answers the same.
        """

    @abstractmethod
    def begin(self, leg: Leg) -> None:
        """A leg starts: one that `next` gave, or one that was cut off before its report."""

    @abstractmethod
    def report(self, trial: int, epoch: int, value: float) -> Verdict:
        """A trial has come to the end of its leg.

        Args:
            epoch: epochs of training in its state, those of a donor counted in.
            value: the metric there; NaN is worse than any number.

        Returns:
            `waits`: `next` may name it again; `done`: it was trained to its end; `stopped`: it will
            not go on.
        """

    @abstractmethod
    def fail(self, trial: int) -> None:
        """A running trial crashed for good: nothing waits for it any longer."""

    @abstractmethod
    def verdicts(self) -> dict[int, Verdict]:
        """Every begun trial that is not running; trials that nobody can name again are not `waits`.

        A trial that waited at a rung becomes `stopped` as soon as it cannot be promoted any more,
        whatever others report.
        """

    @abstractmethod
    def extend(self, trials: int) -> None:
        """From now on there may be so many trials, more than before."""
