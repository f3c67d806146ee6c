"""Learning curves to simulate sweeps on: made up, or those of an earlier sweep."""

from __future__ import annotations

import json
import math
import os
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

from dlsys.errors import UsageError
from dlsys.spec.sweep import space
from dlsys.spec.sweep.space import Space


class Curves(Protocol):
    """What every trial of a sweep would report."""

    def value(self, trial: int, epoch: int) -> float:
        """The metric after so many epochs."""

    def seconds(self, trial: int) -> float:
        """How long an epoch takes."""


class _Shape(NamedTuple):
    floor: float
    rate: float
    noise: float
    speed: float


class Shuffled:
    """Other curves, in another order of the trials."""

    def __init__(self, curves: Curves, trials: int, seed: int) -> None:
        self._curves = curves
        self._order = list(range(trials))
        random.Random(seed).shuffle(self._order)

    def value(self, trial: int, epoch: int) -> float:
        return self._curves.value(self._order[trial], epoch)

    def seconds(self, trial: int) -> float:
        return self._curves.seconds(self._order[trial])


class Bank:
    """Made-up curves that follow a trial's settings, drawn as `searcher: random` draws them.

    A curve is a power law: the error after e epochs is f + (0.9 − f) · (1 + e)^(−r), plus noise. Its
    end f is 0.02 at a hidden best point of the unit cube of settings, and rises with the squared
    distance from it towards 0.72; some settings count for more than others. Mixtures of the settings
    give the rate r (0.4 to 1.2), so that curves cross, the noise's standard deviation (0.001 to
    0.005), and what an epoch takes (0.5 to 2 times the usual). The metric is the error where the
    smallest value is the best, and otherwise 1 − error.

    Args:
        tree: the sweep's space.
        mode: which value is the best.
        seed: decides the hidden point, and the trials' settings.
        points: what the sweep tries first.
        seconds: what an epoch takes at the usual speed.
    """

    def __init__(
        self,
        tree: Space,
        mode: Literal["max", "min"],
        seed: int = 0,
        points: Sequence[Mapping[str, Any]] = (),
        seconds: float = 1.0,
    ) -> None:
        self._tree, self._mode, self._seed, self._points = tree, mode, seed, points
        self._seconds = seconds
        width = space.width(tree)
        rng = random.Random(f"{seed}/bank")
        self._best = [rng.random() for _ in range(width)]
        self._weights, *self._mixtures = ([rng.random() ** 2 for _ in range(width)] for _ in range(4))
        # The mean squared distance of a point from the best one.
        self._usual = sum(
            w * (1 / 12 + (0.5 - b) ** 2) for w, b in zip(self._weights, self._best, strict=True)
        )
        self._shape = cache(self._shaped)

    def _shaped(self, trial: int) -> _Shape:
        settings = space.sample(self._tree, self._seed, trial)
        if trial < len(self._points):
            settings |= self._points[trial]
        cube = space.to_cube(self._tree, settings)
        away = sum(w * (u - b) ** 2 for w, u, b in zip(self._weights, cube, self._best, strict=True))
        rate, noise, speed = (
            sum(w * u for w, u in zip(mixture, cube, strict=True)) / sum(mixture)
            for mixture in self._mixtures
        )
        floor = 0.02 + 0.7 * (1 - math.exp(-away / self._usual))
        return _Shape(floor, 0.4 + 0.8 * rate, 0.001 + 0.004 * noise, 4 ** (speed - 0.5))

    def value(self, trial: int, epoch: int) -> float:
        shape = self._shape(trial)
        error = shape.floor + (0.9 - shape.floor) * math.pow(1 + epoch, -shape.rate)
        error += random.Random(f"{self._seed}/{trial}/{epoch}").gauss(0, shape.noise)
        return error if self._mode == "min" else 1 - error

    def seconds(self, trial: int) -> float:
        return self._seconds * self._shape(trial).speed


class Recorded:
    """Curves of an earlier sweep's trials.

    Between two reports a value is interpolated on a straight line. Before the first and after the
    last report it is that report's: a trial that was stopped early counts as one that would have
    learnt nothing more, so that a plan never promises more than was seen. Where more trials are asked
    for than reported anything, they begin again with the first.

    Args:
        reports: of each trial, its (epoch, value, seconds that this leg took), in the order of time.
    """

    def __init__(self, reports: Sequence[Sequence[tuple[int, float, float]]]) -> None:
        # Where a trial came to an epoch twice (it took over another's state), its last word counts.
        self._points = [sorted({epoch: value for epoch, value, _ in trial}.items()) for trial in reports]
        self._seconds = [_seconds_an_epoch(trial) for trial in reports]
        self.trials = len(reports)

    def value(self, trial: int, epoch: int) -> float:
        points = self._points[trial % self.trials]
        after = bisect_right(points, (epoch, math.inf))
        if after in (0, len(points)):
            return points[min(after, len(points) - 1)][1]
        (left, low), (right, high) = points[after - 1 : after + 1]
        return low + (high - low) * (epoch - left) / (right - left)

    def seconds(self, trial: int) -> float:
        return self._seconds[trial % self.trials]


def _seconds_an_epoch(reports: Sequence[tuple[int, float, float]]) -> float:
    epochs = [epoch for epoch, _, _ in reports]
    trained = sum(max(1, now - before) for before, now in zip([0, *epochs], epochs, strict=False))
    return sum(seconds for _, _, seconds in reports) / trained


def recorded(path: str | os.PathLike[str]) -> Recorded:
    """The curves in a sweep's ledger: a line of JSON for each event.

    Only `{"event": "report", "trial": 3, "epoch": 9, "value": 0.91, "seconds": 1.2}` is read, where
    seconds are those of the leg that ends there, and a value of null is NaN.

    Raises:
        UsageError: the file cannot be read, or is no ledger.
    """
    reports: dict[int, list[tuple[int, float, float]]] = {}
    number = 0
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                number += 1
                # A line that the sweep was writing when it died has no end.
                if line.endswith("\n") and (event := json.loads(line)).get("event") == "report":
                    value = math.nan if event["value"] is None else float(event["value"])
                    report = int(event["epoch"]), value, float(event["seconds"])
                    reports.setdefault(int(event["trial"]), []).append(report)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}:{number}: no event of a sweep's ledger: {error!r}",
            hint='A report is {"event": "report", "trial": 3, "epoch": 9, "value": 0.91, "seconds": 1.2}.',
        ) from error
    if not reports:
        raise UsageError(
            f"{path}: holds no report of any trial", hint="Leave out --curves to make curves up."
        )
    return Recorded([reports[trial] for trial in sorted(reports)])
