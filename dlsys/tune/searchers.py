"""The searchers of sweeps, by name; those that learn have files of their own."""

from __future__ import annotations

from collections.abc import Iterator

from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import GP, TPE, Grid, Random, Sweep
from dlsys.tune.searcher import Point, Searcher, Settings, Told

__all__ = ["GridSearcher", "RandomSearcher", "Searcher", "Told", "searcher_of"]


class RandomSearcher(Searcher):
    """Random search (Bergstra and Bengio 2012): each trial is a draw of its own, and none comes twice."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(sweep)
        self._made: list[Settings | None] = []
        self._tried: set[Point] = set()

    def propose(self, trial: int) -> Settings | None:
        while len(self._made) <= trial:
            settings = self._drawn(len(self._made), self._tried)
            self._made.append(settings)
            if settings is not None and space.holds(self.tree, settings):
                self._tried.add(self._point(settings))
        return self._made[trial]


class GridSearcher(Searcher):
    """Every combination, in order."""

    def __init__(self, sweep: Sweep, options: Grid) -> None:
        super().__init__(sweep)
        self._ahead: Iterator[Settings] = space.grid(self.tree, options.per_range)
        self._made: list[Settings] = []

    def propose(self, trial: int) -> Settings | None:
        index = trial - len(self.sweep.points)
        if index < 0:
            return self._drawn(trial)
        while len(self._made) <= index:
            made = next(self._ahead, None)
            if made is None:
                return None
            self._made.append(made)
        return self._made[index]


def searcher_of(sweep: Sweep) -> Searcher:
    """The searcher that a sweep names. Optuna and scikit-learn are imported only by those they serve."""
    match sweep.searcher:
        case Random():
            return RandomSearcher(sweep)
        case Grid() as options:
            return GridSearcher(sweep, options)
        case TPE() as options:
            from dlsys.tune.tpe import TPESearcher

            return TPESearcher(sweep, options)
        case GP() as options:
            from dlsys.tune.gp import GPSearcher

            return GPSearcher(sweep, options)
