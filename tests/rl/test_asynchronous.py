"""A3C, IMPALA and APPO: env runners that work while the parameters change."""

from __future__ import annotations

import copy
import itertools
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from dlsys.rl.algorithms.a3c import A3CAgent, Gradient
from dlsys.rl.engine import build
from dlsys.rl.observations import NUMBERS
from dlsys.rl.rllib import RllibAgent
from dlsys.spec.rl.job import RLJob

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


def _job(name: str) -> RLJob:
    return RLJob.model_validate(
        {
            "kind": "rl",
            "name": "x",
            "environment": {"name": "CartPole-v1"},
            "algorithm": {"name": name},
            "resources": {"env_runners": 2},
            "stop": {"epochs": 1},
        }
    )


@pytest.fixture
def a3c() -> Iterator[A3CAgent]:
    made = build(_job("a3c"))
    assert isinstance(made, A3CAgent)
    yield made
    made.close()


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> Iterator[RllibAgent]:
    made = RllibAgent(_job(request.param))
    yield made
    made.close()


def _pid(agent: A3CAgent, worker: int) -> int:
    handle = agent.runners.remote.handles[worker]
    return int(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())))


def test_updates_interleave_and_a_killed_worker_comes_back(
    a3c: A3CAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    took: list[int] = []
    ask, take = a3c._ask, a3c._take

    def asking(workers: list[int]) -> None:
        # Whoever is asked again has just given a gradient.
        order.extend(workers)
        ask(workers)

    def taking(gradient: Gradient) -> None:
        took.append(gradient.steps)
        take(gradient)

    monkeypatch.setattr(a3c, "_ask", asking)
    monkeypatch.setattr(a3c, "_take", taking)
    did = a3c.iterate()
    # In turns, more or less: neither has a long run of updates to itself, and none is of the first
    # parameters for long.
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert set(order) == {0, 1}
    assert changes >= 10
    assert did.steps == sum(took) >= 2000
    figures = did.figures
    assert figures["staleness"] > 0
    assert figures["updates_by_1"] + figures["updates_by_2"] == len(took)

    killed = _pid(a3c, 0)
    os.kill(killed, signal.SIGKILL)
    for _ in range(30):
        did = a3c.iterate()
        assert did.steps >= 2000
        if did.figures.get("updates_by_1", 0) > 1 and _pid(a3c, 0) != killed:
            break
    else:
        pytest.fail("the killed worker never came back")


def test_what_acts_and_is_saved_is_what_was_learned(a3c: A3CAgent) -> None:
    first = {name: value.copy() for name, value in a3c.weights().items()}
    did = a3c.iterate()
    assert did.figures["value_loss"] > 0
    assert did.returns
    newest = a3c.weights()
    assert all(not np.array_equal(first[name], value) for name, value in newest.items())
    state = copy.deepcopy(a3c.state())  # as a file
    kept = {name: value.copy() for name, value in newest.items()}
    a3c.iterate()
    assert a3c.load(state) == []
    assert all(np.array_equal(kept[name], value) for name, value in a3c.weights().items())
    assert a3c.act({NUMBERS: np.zeros((5, 4), np.float32)}).shape == (5,)
    a3c.iterate()


@pytest.mark.parametrize("agent", ["impala", "appo"], indirect=True)
def test_what_rllibs_learn_acts(agent: RllibAgent) -> None:
    first = {name: value.copy() for name, value in agent.weights().items()}
    did = agent.iterate()
    assert did.steps >= 2000
    assert did.figures["value_loss"] > 0
    assert any(not np.array_equal(first[name], value) for name, value in agent.weights().items())
    state = agent.state()
    agent.iterate()
    agent.load(state)
    assert agent.act(np.zeros((5, 4), np.float32)).shape == (5,)
