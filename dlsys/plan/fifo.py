"""`fifo`: every trial is trained to its end, in the order of their numbers."""

from __future__ import annotations

from typing import Literal

from dlsys.plan.dealer import Dealer
from dlsys.plan.policy import Leg


class FifoPolicy(Dealer):
    """A leg is a whole trial.

    Args:
        trials: how many there may be.
        mode: which value is the best.
        epochs: where the job ends; None if by another rule.
    """

    def __init__(self, trials: int, mode: Literal["max", "min"], epochs: int | None) -> None:
        super().__init__(trials, mode)
        self._epochs = epochs

    def next(self) -> Leg | None:
        return Leg(self._begun, self._epochs) if self._begun < self.trials else None

    def _reported(self, leg: Leg, epoch: int, value: float) -> None:
        self._verdicts[leg.trial] = "done"
