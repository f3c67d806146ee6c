"""A sweep in figures: what the report and the live view show of a director."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from dlsys.plan.halving import rungs_between
from dlsys.spec.sweep.sweep import Halving
from dlsys.tune.director import Director, Trial

_MOST_RUNGS = 8


class Rung(NamedTuple):
    """Who has come to an epoch, and the best value there."""

    epoch: int
    trials: int
    best: float | None
    trial: int | None


class Step(NamedTuple):
    """A report, and where the sweep stood then.

    Attributes:
        seconds: in which trials trained until then; pauses of the sweep are left out.
        epochs: trained by all trials until then.
        value: the report's own.
        best: the best of all reports until then; NaN where none was a number.
    """

    seconds: float
    epochs: int
    value: float
    best: float


def rungs(director: Director) -> list[Rung]:
    """The rungs of a halving; otherwise the epochs of reports, thinned out where they are many."""
    scheduler = director.sweep.scheduler
    at: dict[int, dict[int, float]] = {}
    if isinstance(scheduler, Halving):
        at = {e: {} for e in rungs_between(scheduler.grace.count, scheduler.max.count, scheduler.reduction)}
    for report in director.history:
        at.setdefault(report.epoch, {})[report.trial] = report.value
    epochs = sorted(at)
    if len(epochs) > _MOST_RUNGS:
        last = len(epochs) - 1
        epochs = sorted({epochs[round(i * last / (_MOST_RUNGS - 1))] for i in range(_MOST_RUNGS)})
    sign = 1 if director.sweep.mode == "min" else -1
    found = []
    for epoch in epochs:
        ranked = min(((sign * v, t) for t, v in at[epoch].items() if not math.isnan(v)), default=None)
        best = (sign * ranked[0], ranked[1]) if ranked else (None, None)
        found.append(Rung(epoch, len(at[epoch]), *best))
    return found


def steps(director: Director) -> list[Step]:
    """The sweep's course, report by report."""
    better = min if director.sweep.mode == "min" else max
    clock = _clock([(report.time - report.seconds, report.time) for report in director.history])
    best, epochs, found = math.nan, 0, []
    for seconds, report in zip(clock, director.history, strict=True):
        epochs += report.trained
        if not math.isnan(report.value):
            best = report.value if math.isnan(best) else better(best, report.value)
        found.append(Step(seconds, epochs, report.value, best))
    return found


def _clock(legs: Sequence[tuple[float, float]]) -> list[float]:
    """At each leg's end, the time until then in which at least one of them ran."""
    starts: list[float] = []
    ends: list[float] = []
    for start, end in sorted(legs):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    before = [0.0]
    for start, end in zip(starts, ends, strict=True):
        before.append(before[-1] + end - start)
    found = []
    for _, end in legs:
        index = bisect_right(starts, end) - 1
        found.append(before[index] + end - starts[index])
    return found


def counts(director: Director) -> dict[str, int]:
    """How many trials there are of each status."""
    found: dict[str, int] = {}
    for trial in director.trials.values():
        found[trial.status] = found.get(trial.status, 0) + 1
    return found


def measured(director: Director) -> list[Trial]:
    """The trials whose last value is a number."""
    return [t for t in director.trials.values() if t.value is not None and math.isfinite(t.value)]


def window(values: Sequence[float], mode: str, far: int) -> tuple[float, float]:
    """Between which values to look closely: a few that are far off would press all others together.

    Nothing is cut off that is less than `far` times as far from the best as the median is.
    """
    finite = [value for value in values if math.isfinite(value)]
    best, worst = (min(finite), max(finite)) if mode == "min" else (max(finite), min(finite))
    reach = far * (statistics.median(finite) - best)
    if reach and abs(worst - best) > abs(reach):
        worst = best + reach
    if best == worst:
        pad = abs(best) / 20 or 0.5
        return best - pad, best + pad
    return min(best, worst), max(best, worst)


def many(count: int, one: str, several: str = "") -> str:
    """A number of things."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def clock_text(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
