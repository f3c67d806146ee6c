"""Population-based training: who takes over from whom, and what the settings become."""

from __future__ import annotations

import random
from typing import Any

import pytest
from dealing import Player, policy, sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from dlsys.plan.perturb import perturb
from dlsys.plan.policies import policy_of
from dlsys.plan.policy import Leg, Policy
from dlsys.spec.sweep import space

SPACE = {
    "optimizer.lr": {"log_uniform": [1e-4, 1.0]},
    "optimizer.momentum": {"uniform": [0.0, 0.9], "step": 0.1},
    "gradient.clip_norm": {"choice": [0.1, 0.5, 1.0, 5.0]},
    "schedule.warmup": {"int": [0, 20]},
    "schedule.cycle": {"int": [2, 300], "log": True},
    "schedule.period": {"int": [5, 50], "step": 5},
    "optimizer.betas": {"choice": [[0.9, {"uniform": [0.9, 0.999]}], [0.5, 0.99], "default"]},
    "regularize": {
        "choice": [
            [],
            [{"name": "l2", "strength": {"log_uniform": [1e-6, 1e-2]}}],
            [{"name": "l1", "strength": {"log_uniform": [1e-7, 1e-3]}}, {"choice": ["a", "b"]}],
        ]
    },
}
TREE, WRONG = space.parse(SPACE)
assert WRONG == []


def reported(values: list[float], **options: Any) -> Policy:
    """A population that has reported after 3 epochs, in the order of its numbers."""
    pbt = policy("pbt", len(values), **options)
    for trial in range(len(values)):
        assert pbt.next() == Leg(trial, 3)
        pbt.begin(Leg(trial, 3))
    for trial, value in enumerate(values):
        assert pbt.report(trial, 3, value) == "waits"
    return pbt


def legs(pbt: Policy) -> list[Leg]:
    found = []
    while leg := pbt.next():
        pbt.begin(leg)
        found.append(leg)
    return found


def test_the_worst_take_over_from_the_best() -> None:
    # The last to report are the worst: at their reports, all values are known.
    found = legs(reported([8, 7, 6, 5, 4, 3, 2, 1]))
    # The second and later ones were once the worst of those few that had reported.
    assert found[0] == Leg(0, 6)
    assert [leg.trial for leg in found] == list(range(8))
    assert {leg.donor for leg in found[6:]} <= {0, 1}
    assert all(leg.until == 6 for leg in found)
    best_last = legs(reported([1, 2, 3, 4, 5, 6, 7, 8]))
    assert all(leg.donor is None for leg in best_last), "each was the best so far"


def test_a_donors_epochs_count() -> None:
    pbt = reported([8.0, 7.0])
    pbt.begin(Leg(0, 6))
    pbt.report(0, 6, 9.0)
    assert pbt.next() == Leg(1, 9, donor=0), "from the donor's 6 epochs on, not from its own 3"
    pbt.begin(Leg(1, 9, donor=0))
    pbt.report(1, 9, 9.5)
    assert pbt.next() == Leg(0, 9)
    pbt.begin(Leg(0, 9))
    pbt.report(0, 9, 1.0)
    assert pbt.next() == Leg(0, 12, donor=1)


def test_who_is_taken_over_is_a_matter_of_the_seed() -> None:
    def donors(seed: int) -> list[int | None]:
        pbt = policy_of(sweep("pbt", 40).model_copy(update={"seed": seed}), 27)
        for trial in range(40):
            pbt.begin(Leg(trial, 3))
        for trial in range(40):
            pbt.report(trial, 3, -trial)
        return [leg.donor for leg in legs(pbt)]

    assert donors(0) == donors(0)
    assert donors(0) != donors(1)


def test_nan_is_taken_over_from_by_nobody_and_takes_over() -> None:
    nan = float("nan")
    assert all(leg.donor is None for leg in legs(reported([nan, nan, nan])))
    assert legs(reported([0.1, nan]))[1].donor == 0


def test_failed_ones_and_finished_ones_are_no_donors() -> None:
    pbt = policy("pbt", 3, epochs=3)
    for trial in range(3):
        pbt.begin(Leg(trial, 3))
    assert pbt.report(0, 3, 1.0) == "done"
    assert pbt.next() is None
    pbt = reported([3.0, 2.0, 1.0])
    pbt.begin(Leg(0, 6))
    pbt.fail(0)
    pbt.begin(Leg(1, 6, donor=0))  # what it last reported with is still there
    pbt.report(1, 6, 2.0)
    pbt.begin(pbt.next() or Leg(-1, 0))
    pbt.report(2, 6, 1.0)
    assert pbt.next() == Leg(1, 9)
    pbt.begin(Leg(1, 9))
    assert pbt.next() == Leg(2, 9, donor=1), "the failed one was the best"


def test_the_youngest_comes_first_when_not_all_can_run() -> None:
    player = Player(policy("pbt", 10), random.Random(0)).play(2)
    assert [leg.trial for leg in player.legs[:10]] == list(range(10)), "before anybody's second leg"


@settings(deadline=None)
@given(index=st.integers(0, 10**6), resample=st.sampled_from([0.0, 0.25, 1.0]))
def test_changed_settings_are_in_the_space(index: int, resample: float) -> None:
    values = space.sample(TREE, 0, index)
    mutate = list(SPACE)[index % 3 :]
    new = perturb(TREE, values, mutate, resample, random.Random(index))
    assert new == perturb(TREE, values, mutate, resample, random.Random(index))
    assert list(new) == list(values)
    for key, tree in TREE.items():
        assert space.holds(tree, new[key])
        assert key in mutate or new[key] == values[key]
    kinds = {key: type(value) for key, value in values.items() if "int" in SPACE[key]}
    assert {key: type(new[key]) for key in kinds} == kinds


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        ({"log_uniform": [1e-4, 1.0]}, 0.01, {0.008, 0.012}),
        ({"uniform": [0, 0.5]}, 0.5, {0.4, 0.5}),
        ({"uniform": [-1, 1]}, -0.5, {-0.4, -0.6}),
        ({"uniform": [0, 0.5], "step": 0.1}, 0.2, {0.1, 0.3}),  # a step at least
        ({"int": [1, 100]}, 50, {40, 60}),
        ({"int": [1, 100]}, 1, {1, 2}),
        ({"int": [0, 100]}, 0, {0, 1}),
        ({"int": [5, 50], "step": 5}, 10, {5, 15}),
        ({"int": [2, 300], "log": True}, 100, {80, 120}),
        ({"choice": [0.1, 0.5, 1.0, 5.0]}, 0.5, {0.1, 1.0}),
        ({"choice": [0.1, 0.5, 1.0, 5.0]}, 5.0, {1.0}),
        ({"choice": [16]}, 16, {16}),
    ],
)
def test_values_move_by_a_fifth_or_to_the_next(entry: Any, value: Any, expected: set[Any]) -> None:
    tree, _ = space.parse({"x": entry})
    found = {perturb(tree, {"x": value}, ["x"], 0, random.Random(seed))["x"] for seed in range(40)}
    assert found == expected


def test_an_option_with_entries_is_kept_and_they_change() -> None:
    values = {"optimizer.betas": [0.9, 0.95], "regularize": []}
    for seed in range(20):
        new = perturb(TREE, values, list(values), 0, random.Random(seed))
        assert new["optimizer.betas"][0] == 0.9
        assert new["optimizer.betas"][1] in (0.9, 0.999), "0.95 times 0.8 or 1.2, kept in the range"
        ((name, strength),) = [tuple(item.values()) for item in new["regularize"]]
        assert name == "l2", "the option beside, its own entry drawn"
        assert 1e-6 <= strength <= 1e-2


def test_a_key_is_drawn_anew_as_often_as_asked() -> None:
    values = {"optimizer.lr": 0.01}
    new = [
        perturb(TREE, values, ["optimizer.lr"], 0.25, random.Random(s))["optimizer.lr"] for s in range(2000)
    ]
    drawn = sum(value not in (0.008, 0.012) for value in new)
    assert 430 < drawn < 570
