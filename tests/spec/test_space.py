"""The space of a sweep: draws, grids, ends and the unit cube. Wrong spaces are in `bad/sweep_*`."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlsys.spec.sweep import space

CONDITIONAL = {
    "optimizer": {
        "choice": [
            {"name": "sgd", "lr": {"log_uniform": [1e-3, 1.0]}, "momentum": {"uniform": [0, 0.9]}},
            {"name": "adam", "lr": {"log_uniform": [1e-5, 1e-2]}},
        ]
    },
    "regularize": {"choice": [[], [{"name": "l1", "strength": {"log_uniform": [1e-6, 1e-2]}}]]},
    "batch_size": {"int": [16, 64], "step": 16},
}

KNOWN = [
    {"optimizer": {"name": "adam", "lr": 0.00465856754905}, "regularize": [], "batch_size": 16},
    {
        "optimizer": {"name": "sgd", "lr": 0.276927542251, "momentum": 0.0878270306999},
        "regularize": [{"name": "l1", "strength": 3.19731134577e-05}],
        "batch_size": 16,
    },
]


def tree_of(data: dict[str, Any]) -> space.Space:
    tree, wrong = space.parse(data)
    assert wrong == []
    return tree


def ordered(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(numbers, numbers).filter(lambda ends: ends[0] < ends[1]).map(list)


plain = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.sampled_from(["a", "1", ""])
ranges = st.one_of(
    st.fixed_dictionaries({"uniform": ordered(st.floats(-1e6, 1e6, width=32))}),
    st.fixed_dictionaries(
        {"uniform": ordered(st.integers(-50, 50))}, optional={"step": st.sampled_from([0.1, 0.3, 1])}
    ),
    st.fixed_dictionaries({"log_uniform": ordered(st.floats(1e-12, 1e12))}),
    st.fixed_dictionaries(
        {"int": ordered(st.integers(-(10**12), 10**12))}, optional={"step": st.just(10**7 + 1)}
    ),
    st.fixed_dictionaries({"int": ordered(st.integers(1, 10**12)), "log": st.booleans()}),
)
keys = st.sampled_from(["name", "lr", "x"])
parts = st.recursive(
    plain | ranges,
    lambda inner: (
        st.dictionaries(keys, inner, max_size=3)
        | st.lists(inner, max_size=2)
        | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"choice": options})
    ),
    max_leaves=6,
)
entries = ranges | st.lists(parts, min_size=1, max_size=3).map(lambda options: {"choice": options})
spaces = st.dictionaries(st.sampled_from(["a.lr", "a.b", "c"]), entries, min_size=1)
tried = settings(max_examples=150, derandomize=True, deadline=None)


def sound(data: dict[str, Any]) -> space.Space:
    tree, wrong = space.parse(data)
    assume(not wrong)  # options that stand twice, steps larger than the range
    return tree


def close(a: Any, b: Any) -> bool:
    """Equal, up to rounding where a number is."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-5)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return space.same(a, b)


@tried
@given(spaces, st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_draws_are_in_the_space_and_again_the_same(data: dict[str, Any], seed: int, index: int) -> None:
    tree = sound(data)
    drawn = space.sample(tree, seed, index)
    assert space.holds(tree, drawn)
    assert drawn == space.sample(tree, seed, index)
    for key in tree:
        alone = space.sample({key: tree[key]}, seed, index)
        assert alone == {key: drawn[key]}, "what else is in the space changes nothing"


@tried
@given(spaces, st.integers(0, 1000))
def test_the_cube_leads_back(data: dict[str, Any], index: int) -> None:
    tree = sound(data)
    drawn = space.sample(tree, 0, index)
    point = space.to_cube(tree, drawn)
    assert len(point) == space.width(tree)
    assert all(0 <= u <= 1 for u in point)
    assert close(space.from_cube(tree, point), drawn)


@tried
@given(spaces)
def test_edges_are_in_the_space(data: dict[str, Any]) -> None:
    tree = sound(data)
    usual = space.sample(tree, 0, 0)
    found = list(space.edges(tree, usual))
    assert len(found) >= sum(2 if "choice" not in entry else len(entry["choice"]) for entry in data.values())
    for place, values in found:
        assert space.holds(tree, values)
        ends = data[str(place[0])]
        if "choice" not in ends:
            word, end = place[1:]
            stepped = "step" in ends and end == 1  # the last step need not meet the end
            assert stepped or values[place[0]] == pytest.approx(ends[word][end], rel=1e-11)
        assert all(values[key] is usual[key] or key == place[0] for key in data)


@tried
@given(spaces, st.integers(1, 3))
def test_a_grid_is_in_the_space_and_as_large_as_said(data: dict[str, Any], per_range: int) -> None:
    tree = sound(data)
    size = space.grid_size(tree, per_range)
    assume(size <= 500)
    points = list(space.grid(tree, per_range))
    assert len(points) == size
    assert all(space.holds(tree, point) for point in points)


@tried
@given(spaces)
def test_what_is_dumped_is_the_same_space(data: dict[str, Any]) -> None:
    tree = sound(data)
    again = tree_of(space.dump(tree))
    assert space.dump(again) == space.dump(tree)
    assert space.sample(again, 1, 2) == space.sample(tree, 1, 2)


def test_known_draws() -> None:
    """A sweep must draw the same trials on every machine, and in every version after this one."""
    tree = tree_of(CONDITIONAL)
    assert [space.sample(tree, 0, index) for index in range(2)] == KNOWN
    assert space.sample(tree, 1, 0) != space.sample(tree, 0, 0) != space.sample(tree, 0, 1)


def draws(entry: dict[str, Any], count: int = 4000) -> list[Any]:
    tree = tree_of({"x": entry})
    return [space.sample(tree, 0, index)["x"] for index in range(count)]


@pytest.mark.parametrize(
    ("entry", "middle"),
    [({"uniform": [0, 1]}, 0.5), ({"log_uniform": [1e-4, 1]}, 1e-2), ({"int": [1, 10**6], "log": True}, 1e3)],
)
def test_half_of_the_draws_are_below_the_middle_of_the_scale(entry: dict[str, Any], middle: float) -> None:
    below = sum(value < middle for value in draws(entry))
    assert abs(below - 2000) < 4 * math.sqrt(1000)  # four standard deviations


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"int": [3, 7]}, [3, 4, 5, 6, 7]),
        ({"int": [3, 8], "step": 2}, [3, 5, 7]),
        ({"uniform": [0, 0.3], "step": 0.1}, [0, 0.1, 0.2, 0.3]),
        ({"uniform": [0, 1], "step": 0.4}, [0, 0.4, 0.8]),
        ({"choice": [True, None, "a", 1.5]}, [True, None, "a", 1.5]),
    ],
)
def test_all_values_are_drawn_alike(entry: dict[str, Any], values: list[Any]) -> None:
    found = draws(entry)
    share = len(found) / len(values)
    for value in values:
        assert abs(found.count(value) - share) < 4 * math.sqrt(share)
    assert sum(map(found.count, values)) == len(found)


def test_whole_numbers_in_log_scale_reach_both_ends() -> None:
    found = draws({"int": [1, 3], "log": True})
    # log(1.5 / 0.5), log(2.5 / 1.5) and log(3.5 / 2.5) of log(3.5 / 0.5)
    for value, share in [(1, 0.565), (2, 0.263), (3, 0.173)]:
        assert abs(found.count(value) / len(found) - share) < 0.035


def test_conditions_bring_their_own_entries_only() -> None:
    tree = tree_of(CONDITIONAL)
    drawn = [space.sample(tree, 0, index) for index in range(200)]
    for values in drawn:
        optimizer = values["optimizer"]
        if optimizer["name"] == "adam":
            assert optimizer.keys() == {"name", "lr"}
            assert 1e-5 <= optimizer["lr"] <= 1e-2
        else:
            assert optimizer.keys() == {"name", "lr", "momentum"}
            assert 1e-3 <= optimizer["lr"] <= 1
    names = [values["optimizer"]["name"] for values in drawn]
    assert 70 < names.count("adam") < 130


def test_a_grid_runs_from_end_to_end_on_the_ranges_own_scale() -> None:
    tree = tree_of({"lr": {"log_uniform": [1e-4, 1]}})
    assert [point["lr"] for point in space.grid(tree, 5)] == [1e-4, 1e-3, 1e-2, 1e-1, 1]
    assert list(space.grid(tree_of({"x": {"uniform": [0, 3]}}), 4)) == [{"x": x} for x in (0, 1, 2, 3)]
    assert list(space.grid(tree_of({"x": {"uniform": [0, 3]}}), 1)) == [{"x": 1.5}]
    assert list(space.grid(tree_of({"x": {"int": [1, 3]}}), 9)) == [{"x": x} for x in (1, 2, 3)]
    # (2 rates × 2 momenta + 2 rates) × (none + 2 strengths) × 2 sizes
    assert space.grid_size(tree_of(CONDITIONAL), 2) == (4 + 2) * (1 + 2) * 2


def test_a_large_grid_is_counted_without_making_it() -> None:
    tree = tree_of({f"k{n}": {"uniform": [0, 1]} for n in range(20)})
    assert space.grid_size(tree, 1000) == 10**60
    assert next(space.grid(tree, 10)) == {f"k{n}": 0 for n in range(20)}


def test_the_cube_of_a_condition() -> None:
    tree = tree_of(CONDITIONAL)
    values = {
        "optimizer": {"name": "adam", "lr": 1e-5},
        "regularize": [{"name": "l1", "strength": 1e-4}],
        "batch_size": 64,
    }
    # Which of two, sgd's rate and momentum (not taken), adam's rate; which of two, strength; size.
    assert space.to_cube(tree, values) == [0, 1, 0.5, 0.5, 0, 0, 1, pytest.approx(0.5), 0.875]
    for wrong in ({"name": "adam", "lr": 1}, {"name": "adam"}, {"name": "adam", "lr": 1e-4, "momentum": 0.5}):
        assert not space.holds(tree, values | {"optimizer": wrong})
        with pytest.raises(ValueError, match="is not in the space"):
            space.to_cube(tree, values | {"optimizer": wrong})


@pytest.mark.parametrize(
    "entry",
    [{"uniform": [-2, 3]}, {"log_uniform": [1e-6, 10]}, {"int": [1, 500]}, {"int": [1, 500], "log": True}],
)
def test_a_range_rises_over_the_unit_interval(entry: dict[str, Any]) -> None:
    found = tree_of({"x": entry})["x"]
    values = [found.at(i / 100) for i in range(101)]
    assert all(a <= b for a, b in pairwise(values))
    assert (values[0], values[-1]) == tuple(next(iter(entry.values())))


def test_numbers_and_truth_are_not_the_same() -> None:
    assert space.same(1, 1.0)
    assert not space.same(1, True)
    assert not space.same({"a": 0}, {"a": False})
    assert not space.holds(tree_of({"x": {"int": [0, 1]}}), {"x": True})
    assert not space.holds(tree_of({"x": {"int": [0, 5]}}), {"x": 2.5})
    _, wrong = space.parse({"x": {"choice": [1, True, "1", [1], {"a": 1}]}})
    assert wrong == []
    _, wrong = space.parse({"x": {"choice": [[1], {"a": [1, 2]}, {"a": [1, 2.0]}, [1.0]]}})
    assert [path for path, _ in wrong] == [("x", "choice", 2), ("x", "choice", 3)]
