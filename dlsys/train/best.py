"""Which value of the watched metric is the best so far: `checkpoint.best`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dlsys.errors import CheckpointError
from dlsys.train.checkpoint import CheckpointStore, Saved


@dataclass
class Patience:
    """How long nothing has become better: `stop.patience`.

    Attributes:
        evaluations: how many without a new best end the run; None never does.
        best: the best value so far.
        waited: evaluations since then.
    """

    evaluations: int | None
    best: Best
    waited: int = 0

    def observe(self, metrics: Mapping[str, float]) -> None:
        """An evaluation has been done."""
        self.waited = 0 if self.best.improves(metrics) else self.waited + 1

    @property
    def over(self) -> bool:
        return self.evaluations is not None and self.waited >= self.evaluations

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict(), "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> str:
        """Goes on from a checkpoint's; returns a sentence where it begins anew for another metric."""
        told = self.best.load_state_dict(state["best"])
        self.waited = 0 if told else state["waited"]
        return told.replace("checkpoint.best", "stop.patience")


@dataclass
class Best:
    """The best value of one metric.

    Attributes:
        metric: by its full name; None where no value is watched.
        mode: whether the largest or the smallest is the best.
        value: the best so far.
    """

    metric: str | None
    mode: Literal["max", "min"] = "min"
    value: float | None = None

    def improves(self, metrics: Mapping[str, float]) -> bool:
        """Takes an evaluation's value, if it is better than all before. A NaN never is."""
        if self.metric is None or math.isnan(value := metrics.get(self.metric, math.nan)):
            return False
        sign = 1 if self.mode == "max" else -1
        if self.value is not None and sign * value <= sign * self.value:
            return False
        self.value = value
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "value": self.value}

    def load_state_dict(self, state: Any) -> str:
        """Goes on from a checkpoint's best; one of another metric says nothing about this one's.

        Args:
            state: a value alone, as checkpoints before the metric's name was in them have it, is of this one.

        Returns:
            A sentence for people where the best begins anew, or nothing.
        """
        metric, value = self.metric, state
        if isinstance(state, Mapping):
            metric, value = state["metric"], state["value"]
        if value is None or self.metric is None or math.isnan(value):
            return ""
        if metric != self.metric:
            return f"checkpoint.best: was {metric}; of {self.metric} the next evaluation is the best so far"
        self.value = value
        return ""


def to_test(best: Best, store: CheckpointStore, step: int, note: Callable[[str], None]) -> Saved | None:
    """The checkpoint for the test at the end: what is tested is what is kept.

    Args:
        step: where the run has ended; all is saved, so that it goes on from there.
        note: gets a sentence about what is tested.

    Returns:
        The best one; None where that is the last one, or none is watched for, or it is damaged.
    """
    if best.metric is None:
        return None
    store.wait()
    try:
        saved = store.read_best(but=step)
    except CheckpointError as error:
        note(f"the best checkpoint cannot be tested, the last weights are: {error}")
        return None
    if saved is not None:
        note(
            f"the test is of the best checkpoint: step {saved.position.step}, {best.metric} {best.value:.4g}"
        )
    return saved
