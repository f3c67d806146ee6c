"""What all policies keep alike: which trials have begun, which are running, and the others' verdicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

from dlsys.plan.policy import Leg, Policy, Verdict

# A value's place among others, the best first: NaN last, and of equals the trial with the lower number.
Rank = tuple[bool, float, int]


class Dealer(Policy):
    """A policy without its rule.

    `stopped` and `done` are final, also when the sweep is extended: a trial's state may be gone.
    """

    def __init__(self, trials: int, mode: Literal["max", "min"]) -> None:
        super().__init__(trials, mode)
        self._begun = 0
        self._running: dict[int, Leg] = {}
        self._verdicts: dict[int, Verdict] = {}

    def begin(self, leg: Leg) -> None:
        if self._running.get(leg.trial) == leg:
            return  # it was cut off, and starts again
        assert leg.trial not in self._running, f"{leg}, but {self._running[leg.trial]} has not reported"
        if leg.trial == self._begun < self.trials:
            self._begun += 1
        else:
            verdict = self._verdicts.pop(leg.trial, "not the next new one")
            assert verdict == "waits", f"{leg}, but the trial is {verdict}"
        self._running[leg.trial] = leg
        self._started(leg)

    def report(self, trial: int, epoch: int, value: float) -> Verdict:
        leg = self._running.pop(trial)
        self._verdicts[trial] = "waits"
        self._reported(leg, epoch, value)
        return self._verdicts[trial]

    def fail(self, trial: int) -> None:
        leg = self._running.pop(trial)
        self._verdicts[trial] = "stopped"
        self._failed(leg)

    def verdicts(self) -> dict[int, Verdict]:
        return self._verdicts.copy()

    def extend(self, trials: int) -> None:
        assert trials > self.trials, f"{trials} trials are no more than {self.trials}"
        self.trials = trials
        self._extended()

    def _started(self, leg: Leg) -> None:
        """A leg has begun that was not running."""

    @abstractmethod
    def _reported(self, leg: Leg, epoch: int, value: float) -> None:
        """The trial of a leg waits; whoever does not wait any longer gets another verdict."""

    def _failed(self, leg: Leg) -> None:
        """The trial of a leg has failed."""

    def _extended(self) -> None:
        """There are more trials than before."""

    def _rank(self, trial: int, value: float) -> Rank:
        if math.isnan(value):
            return True, 0.0, trial
        return False, value if self.mode == "min" else -value, trial
