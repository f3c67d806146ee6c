"""What a sweep costs under its own scheduler, and under others on the same curves.

Who is lucky with the order of the trials says nothing about a scheduler: each sweep is simulated with
its trials in several orders, and figures are medians over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from dlsys.errors import UsageError
from dlsys.plan.curves import Bank, Curves, Recorded, Shuffled
from dlsys.plan.policies import policy_of
from dlsys.plan.simulate import Timeline, simulate
from dlsys.spec import LoadedSweep
from dlsys.spec.section import Interval
from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import Fifo, Halving, Sweep

# In how many orders, and how many trials that may come to before there are fewer.
_ORDERS, _MOST_TRIALS = 15, 20_000
_OTHERS = ("fifo", "successive-halving", "asha", "hyperband")


@dataclass(frozen=True)
class Costs:
    """One scheduler's figures, medians over the orders.

    Attributes:
        scheduler: its name.
        rungs: how many trials report at each epoch.
        epochs: trained in all.
        seconds: of the whole sweep.
        to_target: seconds until a trial is as good as the target; None if none ever is.
        best: the best value reported; None if none was a number.
        idle: the share of the workers' time in which they train nothing.
    """

    scheduler: str
    rungs: dict[int, int]
    epochs: int
    seconds: float
    to_target: float | None
    best: float | None
    idle: float


@dataclass(frozen=True)
class SweepPlan:
    """Attributes:
    own: the file's scheduler.
    others: fifo, which is random search, and the kinds of halving, all on the same curves.
    target: what is to be reached.
    """

    own: Costs
    others: list[Costs]
    target: float


def plan(
    loaded: LoadedSweep, workers: int, *, within: float, curves: Recorded | None, seconds: float | None
) -> SweepPlan:
    """Simulates a sweep under its own and other schedulers.

    Args:
        loaded: the sweep.
        workers: how many trials train at a time.
        within: the target is this much worse than the best trial's value at the job's end.
        curves: of an earlier sweep; made up if None.
        seconds: of an epoch; by default those of the curves, and 1 if they are made up.

    Raises:
        UsageError: the job does not stop after a number of epochs, or all trials diverge.
    """
    sweep, job = loaded.sweep, loaded.job.job
    epochs = job.stop.epochs
    if epochs is None:
        raise UsageError(
            f"{loaded.path.name}: a plan counts epochs, but the job stops otherwise",
            hint="Say overrides: {stop.epochs: 27} in the file, or on the command line.",
        )
    assert sweep.mode is not None, "a checked sweep has a mode"
    every = job.evaluate.count if job.evaluate.unit == "epoch" else 1
    known: Curves
    if curves is None:
        tree, _ = space.parse(sweep.space)
        known = Bank(tree, sweep.mode, sweep.seed, sweep.points, seconds or 1.0)
    else:
        known = curves if seconds is None else _Paced(curves, seconds)
    ends = (known.value(trial, epochs) for trial in range(sweep.trials))
    sane = [value for value in ends if not math.isnan(value)]
    if not sane:
        raise UsageError("the curves hold no trial whose metric at the end is a number")
    target = max(sane) - within if sweep.mode == "max" else min(sane) + within
    orders = max(1, min(_ORDERS, _MOST_TRIALS // sweep.trials))
    shuffled = [Shuffled(known, sweep.trials, order) for order in range(orders)]

    def costs(sweep: Sweep) -> Costs:
        lines = [simulate(policy_of(sweep, epochs, every), curves, workers, epochs) for curves in shuffled]
        reached = [line.reaches(target, curves) for line, curves in zip(lines, shuffled, strict=True)]
        return _costs(sweep.scheduler.name, lines, reached)

    others = [
        costs(sweep.model_copy(update={"scheduler": _other(sweep, name, epochs, every)})) for name in _OTHERS
    ]
    return SweepPlan(costs(sweep), others, target)


class _Paced:
    """Curves whose epochs take as long on average as is said, and differ as they do."""

    def __init__(self, curves: Recorded, seconds: float) -> None:
        self.value = curves.value
        usual = sum(map(curves.seconds, range(curves.trials))) / curves.trials
        self._curves, self._factor, self._seconds = curves, seconds / usual if usual else 0.0, seconds

    def seconds(self, trial: int) -> float:
        return self._curves.seconds(trial) * self._factor or self._seconds


def _other(sweep: Sweep, name: str, epochs: int, every: int) -> Fifo | Halving:
    """Another scheduler with the file's own rungs, or with rungs from the first evaluation on."""
    if name == "fifo":
        return Fifo()
    options: dict[str, Any] = {
        "max": Interval(epochs, "epoch"),
        "grace": Interval(min(every, epochs), "epoch"),
    }
    if isinstance(sweep.scheduler, Halving):
        options = sweep.scheduler.model_dump(exclude={"name"})
    return Halving.model_validate({"name": name, **options})


def _costs(name: str, lines: list[Timeline], reached: list[float | None]) -> Costs:
    rungs = sorted({epoch for line in lines for epoch in line.rungs})
    to_target = median_low([math.inf if seconds is None else seconds for seconds in reached])
    return Costs(
        scheduler=name,
        rungs={epoch: median_low([line.rungs[epoch] for line in lines]) for epoch in rungs},
        epochs=median_low([line.epochs for line in lines]),
        seconds=median_low([line.seconds for line in lines]),
        to_target=None if to_target == math.inf else to_target,
        best=median_low(bests) if (bests := [line.best[-1].value for line in lines if line.best]) else None,
        idle=median_low([line.idle for line in lines]),
    )
