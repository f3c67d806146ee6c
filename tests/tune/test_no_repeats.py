"""No setting is tried twice while another is left, and a search ends when none is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sweeps import CONDITIONAL, sweep_of

from dlsys.spec.sweep import space
from dlsys.tune.searcher import Searcher, Told
from dlsys.tune.searchers import searcher_of

FOUR = {"x": {"choice": [0.1, 0.9]}, "y": {"choice": ["a", "b"]}}
EVEN = {"x": {"uniform": [0, 1], "step": 0.25}}
SEARCHERS = ["random", "grid", {"name": "tpe", "startup": 2}, {"name": "gp", "startup": 2}]


def proposed(searcher: Searcher, trials: int) -> list[str | None]:
    found: list[str | None] = []
    for trial in range(trials):
        settings = searcher.propose(trial)
        assert searcher.propose(trial) == settings, "asked again, it answers the same"
        found.append(json.dumps(settings, sort_keys=True) if settings else None)
        if settings is not None:
            searcher.tell(Told(trial, settings, 0.1 * trial, 1))
    return found


@pytest.mark.parametrize("searcher", SEARCHERS, ids=str)
@pytest.mark.parametrize(("data", "count"), [(FOUR, 4), (EVEN, 5), ({"x": {"int": [1, 3]}}, 3)])
def test_each_setting_once_and_then_no_more(searcher: Any, data: dict[str, Any], count: int) -> None:
    searcher = {"name": "grid", "per_range": 5} if searcher == "grid" else searcher
    found = proposed(searcher_of(sweep_of(data, searcher)), count + 3)
    assert len(set(found[:count])) == count
    assert None not in found[:count]
    assert found[count:] == [None] * 3


@pytest.mark.parametrize("searcher", SEARCHERS, ids=str)
def test_settings_of_the_users_own_are_kept_and_not_drawn_again(searcher: Any) -> None:
    points = [{"x": 0.1, "y": "a"}, {"x": 0.1, "y": "a"}]
    found = proposed(searcher_of(sweep_of(FOUR, searcher, points=points)), 7)
    assert found[0] == found[1], "who gives a point twice gets it twice"
    drawn = [settings for settings in found[2:] if settings is not None]
    assert len(set(drawn)) == len(drawn)
    if searcher != "grid":  # which tries all combinations behind the points
        assert set(drawn).isdisjoint(found[:2])


def test_equal_settings_of_another_type_are_the_same() -> None:
    data = {"x": {"choice": [1, 2]}, "y": {"int": [1, 2]}}
    found = proposed(searcher_of(sweep_of(data, "random", points=[{"x": 1.0, "y": 1}])), 6)
    assert [settings for settings in found if settings is not None][1:].count('{"x": 1, "y": 1}') == 0


def test_population_based_training_begins_with_as_many_as_it_wants() -> None:
    scheduler = {"name": "pbt", "mutate": ["x"]}
    found = proposed(searcher_of(sweep_of(FOUR, "random", scheduler=scheduler)), 9)
    assert None not in found


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (FOUR, 4),
        (EVEN, 5),
        ({"x": {"choice": ["a", {"n": {"int": [1, 3]}}]}, "y": {"int": [1, 10]}}, 40),
        ({"x": {"uniform": [0, 1]}}, None),
        (CONDITIONAL, None),
        ({}, 1),
    ],
)
def test_the_size_of_a_space(data: dict[str, Any], count: int | None) -> None:
    tree, _ = space.parse(data)
    assert space.size(tree) == count
    if count is not None:
        every = [json.dumps(value, sort_keys=True) for value in space.values(tree)]
        assert len(every) == len(set(every)) == count
