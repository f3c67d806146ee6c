"""What searchers that learn from earlier trials have in common: which values they learn from.

Trials that a scheduler stopped early cannot be compared with those that trained on. As BOHB does
(Falkner et al. 2018), a model is fitted to the values after one number of epochs alone: the largest
that enough trials have reached. A trial that trained further stands in with the first value it was
told with beyond; leaving it out would leave the losers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import Sweep
from dlsys.tune.searcher import Point, Searcher, Settings, Told


@dataclass
class _Trial:
    """One trial; its scores by epochs, of which larger is better. Epochs that do not count are infinite."""

    point: Point
    scores: dict[float, float] = field(default_factory=dict)
    failed: bool = False


class Learner(Searcher):
    """A searcher with a model of how settings do.

    Args:
        sweep: with its defaults resolved.
        startup: trials of known value that are needed for the model; until then, settings are random.
    """

    def __init__(self, sweep: Sweep, startup: int) -> None:
        super().__init__(sweep)
        assert sweep.mode is not None, "a sweep is resolved before it searches"
        self._sign = 1 if sweep.mode == "max" else -1
        self._startup = startup
        # A model of so many parameters needs more trials than that.
        self._enough = max(startup, 1 + sum(1 for _ in space.entries(self.tree)))
        self._told: dict[int, _Trial] = {}  # those of earlier sweeps have numbers below 0
        self._earlier: dict[tuple[int, Point], int] = {}
        # This sweep's trials, ended or not.
        self._settings: dict[int, Settings] = {}
        self._points: dict[int, Point] = {}

    @abstractmethod
    def _choose(self, trial: int, seen: list[tuple[Point, float]], pending: list[Point]) -> Settings:
        """The settings of a trial.

        Args:
            trial: its number, from which all that is random comes.
            seen: trials and their scores, which are finite; larger is better.
            pending: trials without a value yet, near which nothing is to be gained.
        """

    def propose(self, trial: int) -> Settings | None:
        if trial not in self._settings:
            seen, tried = self._seen(), set(self._points.values())
            settings: Settings | None
            if trial < len(self.sweep.points) or not seen:
                settings = self._drawn(trial, tried)
            else:
                pending = [point for n, point in sorted(self._points.items()) if n not in self._told]
                settings = self._choose(trial, seen, pending)
                if self._point(settings) in tried:
                    settings = self._drawn(trial, tried)
            if settings is None:
                return None
            self.running(trial, settings)
        return self._settings[trial]

    def running(self, trial: int, settings: Settings) -> None:
        self._settings[trial] = settings
        if space.holds(self.tree, settings):
            self._points[trial] = self._point(settings)

    def tell(self, told: Told) -> None:
        self._points.pop(told.trial, None)
        self.running(told.trial, told.settings)
        if told.trial in self._points:
            self._learn(told.trial, self._points[told.trial], told)

    def warm(self, earlier: Iterable[Told]) -> int:
        dropped = 0
        for told in earlier:
            if space.holds(self.tree, told.settings):
                # Several sweeps have a trial 0; of the same settings, it is as good as one trial.
                point = self._point(told.settings)
                number = self._earlier.setdefault((told.trial, point), -1 - len(self._earlier))
                self._learn(number, point, told)
            else:
                dropped += 1
        return dropped

    def _learn(self, number: int, point: Point, told: Told) -> None:
        trial = self._told.setdefault(number, _Trial(point))
        trial.failed = told.value is None or not math.isfinite(told.value)
        if told.value is not None and not trial.failed:
            trial.scores[math.inf if told.epochs is None else told.epochs] = self._sign * told.value

    def _seen(self) -> list[tuple[Point, float]]:
        """What a model is fitted to; nothing as long as too few trials have a value.

        A trial that failed is as bad as the worst of the others.
        """
        trials = [trial for _, trial in sorted(self._told.items())]
        reached = sorted((max(trial.scores) for trial in trials if not trial.failed), reverse=True)
        if len(reached) < self._startup:
            return []
        level = reached[min(self._enough, len(reached)) - 1]
        scores = [_at(trial, level) for trial in trials]
        worst = min(score for score in scores if score is not None)
        return [
            (trial.point, worst if score is None else score)
            for trial, score in zip(trials, scores, strict=True)
            if trial.failed or score is not None
        ]


def _at(trial: _Trial, level: float) -> float | None:
    """The score after so many epochs, or the next one; None if it failed or has not come so far."""
    later = [epochs for epochs in trial.scores if epochs >= level]
    return None if trial.failed or not later else trial.scores[min(later)]
