"""What every searcher keeps to, and what random and grid do."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sweeps import CONDITIONAL, search, sweep_of

from dlsys.spec.sweep import space
from dlsys.tune.searcher import Searcher, Told
from dlsys.tune.searchers import searcher_of

SEARCHERS = ["random", "grid", "tpe", "gp"]
LEARN = [{"name": "tpe", "startup": 4}, {"name": "gp", "startup": 4}]
NAMES = ["tpe", "gp"]
LINE = {"x": {"uniform": [0, 1]}}


def tree_of(data: dict[str, Any]) -> space.Space:
    tree, wrong = space.parse(data)
    assert wrong == []
    return tree


def loss(values: dict[str, Any]) -> float:
    """Of CONDITIONAL: least with adam at 1e-3, of width 2 and depth 6."""
    optimizer = values["optimizer"]
    right = -1 if optimizer["name"] == "sgd" else -3
    return (
        (0.5 if optimizer["name"] == "lamb" else (1 - optimizer.get("momentum", 0.8)))
        + 0.2 * (math.log10(optimizer["lr"]) - right) ** 2
        + 0.1 * abs(math.log2(values["batch_size"] / 64))
        + abs(values["model.dropout"] - 0.2)
        + 0.3 * (values["model.width"] != 2.0)
        + 0.05 * abs(values["model.depth"] - 6)
    )


def test_random_draws_again_the_same() -> None:
    ones, others = (searcher_of(sweep_of(CONDITIONAL, "random", seed=3)) for _ in range(2))
    drawn = [ones.propose(trial) for trial in range(20)]
    assert drawn == [others.propose(trial) for trial in reversed(range(20))][::-1]
    assert drawn == [space.sample(tree_of(CONDITIONAL), 3, trial) for trial in range(20)]
    assert drawn != [searcher_of(sweep_of(CONDITIONAL, "random", seed=4)).propose(n) for n in range(20)]


def test_a_grid_tries_every_combination_once_and_in_order() -> None:
    data = {"x": {"uniform": [0, 1]}, "y": {"choice": ["a", {"lr": {"int": [1, 2]}}]}}
    points = [{"x": 0.3}, {"y": "a"}]
    searcher = searcher_of(sweep_of(data, {"name": "grid", "per_range": 3}, points=points))
    proposed = [searcher.propose(trial) for trial in range(12)]
    assert [values["x"] if values else None for values in proposed[:1]] == [0.3]
    options = ["a", {"lr": 1}, {"lr": 2}]
    assert proposed[2:] == [{"x": x, "y": y} for x in (0, 0.5, 1) for y in options] + [None]
    assert searcher.propose(5) == proposed[5]
    late = searcher_of(sweep_of(data, {"name": "grid", "per_range": 3}, points=points))
    assert late.propose(9) == proposed[9], "the trials before need not be asked for"


@pytest.mark.parametrize("name", SEARCHERS)
def test_points_come_first(name: str) -> None:
    points = [{"model.depth": 6, "model.width": 0.5}, {"optimizer": {"name": "adam", "lr": 0.01}}]
    sweep = sweep_of(CONDITIONAL, name, points=points, seed=1)
    searcher = searcher_of(sweep)
    # What was told before changes nothing about them.
    searcher.warm(Told(n, space.sample(searcher.tree, 9, n), n, None) for n in range(12))
    for trial, point in enumerate(points):
        assert searcher.propose(trial) == space.sample(searcher.tree, 1, trial) | point
    third = searcher.propose(2)
    assert third is not None
    assert space.holds(searcher.tree, third)


def history(searcher: Searcher, trials: int, ahead: int) -> list[Any]:
    """Proposals with `ahead` trials under way at any time; some fail, some are told NaN."""
    proposed = []
    for trial in range(trials):
        values = searcher.propose(trial)
        proposed.append(values)
        ended = trial - ahead + 1
        if ended >= 0:
            value = {3: None, 5: math.nan, 6: math.inf}.get(ended, loss(proposed[ended]))
            searcher.tell(Told(ended, proposed[ended], value, None))
    return proposed


@pytest.mark.parametrize("options", LEARN, ids=NAMES)
def test_trials_that_run_at_a_time_differ(options: dict[str, Any]) -> None:
    searcher = searcher_of(sweep_of(LINE, {**options, "startup": 8}))
    search(searcher, lambda values: (values["x"] - 0.3) ** 2, 12)
    xs = [(searcher.propose(trial) or {})["x"] for trial in range(12, 16)]
    assert len(set(xs)) == 4
    assert searcher.propose(13) == {"x": xs[1]}, "asked again, it answers the same"


@pytest.mark.parametrize("options", LEARN, ids=NAMES)
def test_it_stays_away_from_where_trials_run(options: dict[str, Any]) -> None:
    def proposed(crowd: list[float]) -> float:
        searcher = searcher_of(sweep_of(LINE, options))
        for trial in range(11):  # the values go up and down, least at 0 and next at 0.8
            searcher.tell(Told(trial, {"x": trial / 10}, trial * 7 % 11, None))
        for trial, x in enumerate(crowd, 20):
            searcher.running(trial, {"x": x})
        return float((searcher.propose(12) or {})["x"])

    alone = proposed([])
    crowd = [min(max(alone + (n + 0.5) / 100, 0), 1) for n in range(-5, 5)]
    assert abs(proposed(crowd) - alone) > 0.3


@pytest.mark.parametrize("options", LEARN, ids=NAMES)
def test_few_values_are_each_tried_once(options: dict[str, Any]) -> None:
    searcher = searcher_of(sweep_of({"x": {"int": [1, 4]}, "y": {"choice": ["a", "b"]}}, options, seed=2))
    points = [{"x": 1, "y": "a"}, {"x": 2, "y": "a"}, {"x": 3, "y": "a"}, {"x": 4, "y": "a"}]
    for trial, point in enumerate(points):
        searcher.tell(Told(trial, point, point["x"], None))
    later = [json.dumps(searcher.propose(trial), sort_keys=True) for trial in range(4, 7)]
    assert len(set(later)) == 3
    assert not set(later) & {json.dumps(point) for point in points}


@pytest.mark.parametrize("options", LEARN, ids=NAMES)
def test_a_process_that_is_told_the_same_proposes_the_same(options: dict[str, Any]) -> None:
    sweep = sweep_of(CONDITIONAL, options, seed=7)
    proposed = history(searcher_of(sweep), 14, ahead=3)
    assert history(searcher_of(sweep), 14, ahead=3) == proposed
    # After a crash: 12 trials told, in whatever order, and one still running.
    ones, others = searcher_of(sweep), searcher_of(sweep)
    for searcher, order in ((ones, range(12)), (others, reversed(range(12)))):
        for trial in order:
            searcher.tell(Told(trial, proposed[trial], loss(proposed[trial]), None))
        searcher.running(12, proposed[12])
    assert [ones.propose(trial) for trial in (13, 14)] == [others.propose(trial) for trial in (13, 14)]
    assert others.propose(12) == proposed[12]
    assert others.propose(14) != history(searcher_of(sweep.model_copy(update={"seed": 8})), 15, ahead=3)[14]


REPLAY = """
import json
from test_searchers import LEARN, history
from sweeps import CONDITIONAL, sweep_of
from dlsys.tune.searchers import searcher_of
print(json.dumps([history(searcher_of(sweep_of(CONDITIONAL, options)), 12, 2) for options in LEARN]))
"""


@pytest.mark.slow
def test_proposals_do_not_depend_on_the_process() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", REPLAY], env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing on the user's terminal"
    here = [history(searcher_of(sweep_of(CONDITIONAL, options)), 12, 2) for options in LEARN]
    assert json.loads(done.stdout) == here


def test_libraries_are_imported_by_those_they_serve() -> None:
    look = (
        "import sys; import dlsys.tune.searchers; "
        "print([name for name in ('optuna', 'sklearn', 'scipy', 'torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


plain = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "1", ""])
whole = st.integers(-(10**9), 10**9)
ranges = st.one_of(
    st.tuples(st.floats(-1e6, 1e6), st.floats(0.01, 1e6)).map(lambda e: {"uniform": [e[0], e[0] + e[1]]}),
    st.tuples(st.integers(-50, 50), st.integers(1, 50), st.sampled_from([0.1, 0.3, 1])).map(
        lambda e: {"uniform": [e[0], e[0] + e[1]], "step": e[2]}
    ),
    st.tuples(st.floats(1e-9, 1e6), st.floats(1.01, 1e6)).map(lambda e: {"log_uniform": [e[0], e[0] * e[1]]}),
    st.tuples(whole, st.integers(7, 10**6), st.integers(1, 7)).map(
        lambda e: {"int": [e[0], e[0] + e[1]], "step": e[2]}
    ),
    st.tuples(st.integers(1, 100), st.integers(1, 10**9)).map(
        lambda e: {"int": [e[0], e[0] + e[1]], "log": True}
    ),
)
options = st.lists(
    plain | ranges | st.dictionaries(st.sampled_from(["name", "a/b", "a"]), plain | ranges, max_size=2),
    min_size=1,
    max_size=3,
).map(lambda found: {"choice": found})
spaces = st.dictionaries(
    st.sampled_from(["a", "a.lr", "c"]),
    ranges | options | st.lists(options, min_size=1, max_size=2).map(lambda found: {"choice": found}),
    min_size=1,
)


@pytest.mark.parametrize("options", [{"name": "random"}, *LEARN], ids=["random", *NAMES])
@settings(max_examples=25, derandomize=True, deadline=None)
@given(data=spaces, seed=st.integers(0, 2**32 - 1))
def test_every_proposal_is_in_the_space(options: dict[str, Any], data: dict[str, Any], seed: int) -> None:
    tree, wrong = space.parse(data)
    assume(not wrong)
    searcher = searcher_of(sweep_of(data, {**options, "startup": 2} if len(options) > 1 else options))
    size = space.size(tree)
    for trial in range(6):
        values = searcher.propose(trial)
        if values is None:
            assert size is not None, "a continuum never ends"
            assert trial > 0
            break
        assert space.holds(tree, values)
        assert _types_fit(tree, values)
        if trial % 3 < 2:
            searcher.tell(Told(trial, values, float((trial * 7 + seed) % 5), None))


def _types_fit(tree: Any, value: Any) -> bool:
    """Whole numbers are whole, others are not (`holds` takes 2.0 for 2)."""
    if isinstance(tree, dict):
        return all(_types_fit(part, value[key]) for key, part in tree.items())
    if hasattr(tree, "choice"):
        return any(space.holds(option, value) and _types_fit(option, value) for option in tree.choice)
    if hasattr(tree, "ends"):
        return type(value) is (int if hasattr(tree, "int") else float)
    return True


def test_random_beats_a_grid_where_few_dimensions_matter() -> None:
    """Bergstra and Bengio 2012: of 3^6 trials, a grid has only 9 different ones in 2 dimensions."""
    data = {f"x{n}": {"uniform": [0, 1]} for n in range(6)}
    regrets: dict[str, list[float]] = {"random": [], "grid": []}
    for seed in range(20):
        right = space.sample(tree_of(data), 1000 + seed, 0)

        def far(x: dict[str, float], right: dict[str, float] = right) -> float:
            return (x["x1"] - right["x1"]) ** 2 + (x["x4"] - right["x4"]) ** 2

        for name, found in regrets.items():
            searcher = searcher_of(sweep_of(data, name, seed=seed))
            done = search(searcher, far, 729)
            assert len(done) == 729
            found.append(min(value for _, value in done if value is not None))
    assert statistics.median(regrets["random"]) < statistics.median(regrets["grid"]) / 10
