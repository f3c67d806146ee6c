"""Which values tpe and gp learn from: trials that were stopped early, that failed, of other sweeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sweeps import CONDITIONAL, search, sweep_of

from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import Sweep
from dlsys.tune.learner import Learner, Point
from dlsys.tune.searcher import Settings, Told
from dlsys.tune.searchers import searcher_of

LINE = {"x": {"uniform": [0, 1]}}
NAMES = ["tpe", "gp"]


class Watched(Learner):
    """Keeps what a model would be fitted to."""

    def __init__(self, sweep: Sweep, startup: int) -> None:
        super().__init__(sweep, startup)
        self.fitted: list[tuple[float, float]] = []
        self.avoided: list[float] = []

    def _choose(self, trial: int, seen: list[tuple[Point, float]], pending: list[Point]) -> Settings:
        self.fitted = [(round(point[0], 6), score) for point, score in seen]
        self.avoided = [round(point[0], 6) for point in pending]
        return self._drawn(trial)


def watched(told: list[tuple[int, float, float | None, int | None]], **more: Any) -> Watched:
    searcher = Watched(sweep_of(LINE, "tpe", **more), startup=3)
    for trial, x, value, epochs in told:
        searcher.tell(Told(trial, {"x": x}, value, epochs))
    searcher.propose(99)
    return searcher


def test_it_learns_from_the_largest_epochs_that_enough_trials_have_reached() -> None:
    told = [(0, 0.0, 1.0, 1), (1, 0.1, 2.0, 1), (2, 0.2, 3.0, 3), (3, 0.3, 4.0, 3)]
    assert watched(told).fitted == [(0.0, -1.0), (0.1, -2.0), (0.2, -3.0), (0.3, -4.0)]
    # A third trial beyond 3 epochs stands in for its value at 3; those of 1 epoch are left out.
    assert watched([*told, (4, 0.4, 5.0, 9)]).fitted == [(0.2, -3.0), (0.3, -4.0), (0.4, -5.0)]
    rungs = [(4, 0.4, 6.0, 1), (4, 0.4, 5.5, 3), (4, 0.4, 5.0, 9)]
    assert watched([*told, *rungs]).fitted == [(0.2, -3.0), (0.3, -4.0), (0.4, -5.5)]
    assert watched([*told, *reversed(rungs)]).fitted == [(0.2, -3.0), (0.3, -4.0), (0.4, -5.5)]


def test_it_waits_for_enough_values() -> None:
    told: list[Any] = [(0, 0.0, 1.0, None), (1, 0.1, 2.0, None), (2, 0.2, None, None), (3, 0.3, math.nan, 1)]
    assert watched(told).fitted == []
    assert watched([*told, (4, 0.4, 0.0, None)], mode="max").fitted == [
        (0.0, 1.0),
        (0.1, 2.0),
        (0.2, 0.0),
        (0.3, 0.0),
        (0.4, 0.0),
    ]


@pytest.mark.parametrize("failed", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_trial_that_failed_is_as_bad_as_the_worst(failed: float | None, mode: str) -> None:
    told: list[Any] = [(n, n / 10, float(n), 2) for n in range(4)]
    found = watched([*told, (4, 0.4, 9.0, 1), (4, 0.4, failed, 2), (5, 0.5, failed, None)], mode=mode).fitted
    assert dict(found)[0.4] == dict(found)[0.5] == (-3.0 if mode == "min" else 0.0)


def test_what_runs_is_known_until_it_is_told() -> None:
    searcher = watched([(n, n / 10, float(n), 2) for n in range(4)])
    searcher.running(4, {"x": 0.7})
    searcher.running(5, {"x": 0.8})
    searcher.running(6, {"x": 7})  # of a space that has been changed since
    searcher.tell(Told(5, {"x": 0.8}, None, None))
    searcher.propose(100)
    mine = searcher.propose(99)["x"]
    assert searcher.avoided == [0.7, round(mine, 6)]
    assert searcher.propose(4) == {"x": 0.7}


def test_earlier_sweeps_are_not_this_ones() -> None:
    searcher = Watched(sweep_of(LINE, "tpe", seed=1), startup=3)
    earlier = [
        Told(0, {"x": 0.1}, 1.0, 1),
        Told(0, {"x": 0.1}, 0.5, 3),
        Told(0, {"x": 0.2}, 2.0, 3),  # another sweep's trial 0
        Told(1, {"x": 0.3}, 3.0, 3),
        Told(2, {"x": 1.5}, 0.0, 3),
        Told(3, {"y": 0.5}, 0.0, 3),
    ]
    assert searcher.warm(earlier) == 2
    assert searcher_of(sweep_of(LINE, "random")).warm(earlier) == 2
    searcher.propose(0)
    assert sorted(searcher.fitted) == [(0.1, -0.5), (0.2, -2.0), (0.3, -3.0)]
    searcher.tell(Told(0, {"x": 0.9}, 4.0, 3))
    searcher.propose(1)
    assert sorted(searcher.fitted) == [(0.1, -0.5), (0.2, -2.0), (0.3, -3.0), (0.9, -4.0)]


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_start_saves_the_random_ones(name: str) -> None:
    searcher = searcher_of(sweep_of(LINE, name, seed=3))
    earlier = [Told(n, {"x": n / 20}, abs(n / 20 - 0.3), None) for n in range(20)]
    assert searcher.warm(earlier) == 0
    assert (searcher.propose(0) or {})["x"] == pytest.approx(0.3, abs=0.1)
    assert space.sample(searcher.tree, 3, 0)["x"] != pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_it_stays_away_from_where_trials_fail(name: str) -> None:
    """The loss falls towards x = 0.6, but everything above fails."""
    searcher = searcher_of(sweep_of(LINE, name))
    done = search(searcher, lambda values: None if values["x"] > 0.6 else 0.6 - values["x"], 40)
    late = [values["x"] for values, _ in done[20:]]
    assert sum(x <= 0.6 for x in late) > 10
    assert min(value for _, value in done if value is not None) < 0.05


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, math.nan])
def test_where_all_fail_the_search_stays_random(name: str, value: float | None) -> None:
    searcher = searcher_of(sweep_of(CONDITIONAL, name, seed=5))
    done = search(searcher, lambda values: value, 15)
    assert [values for values, _ in done] == [space.sample(searcher.tree, 5, n) for n in range(15)]


@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_all_the_same(name: str) -> None:
    searcher = searcher_of(sweep_of(CONDITIONAL, name))
    done = search(searcher, lambda values: 0.25, 15)
    assert all(space.holds(searcher.tree, values) for values, _ in done)
