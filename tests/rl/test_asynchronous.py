"""A3C, IMPALA and APPO: env runners that work while the parameters change."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import LEARNER_RESULTS

from dlsys.rl.rllib import RllibAgent
from dlsys.spec.rl.job import RLJob

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("one_ray")]


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> Iterator[RllibAgent]:
    job = RLJob.model_validate(
        {
            "kind": "rl",
            "name": "x",
            "environment": {"name": "CartPole-v1"},
            "algorithm": {"name": request.param},
            "resources": {"env_runners": 2},
            "stop": {"epochs": 1},
        }
    )
    made = RllibAgent(job)
    yield made
    made.close()


def _updates(algorithm: Any) -> dict[int, int]:
    """How many gradients there were of each env runner in this iteration."""
    place = (LEARNER_RESULTS, DEFAULT_MODULE_ID)
    return {
        worker: int(algorithm.metrics.peek((*place, f"updates_by_{worker}"), default=0)) for worker in (1, 2)
    }


def _weights(agent: RllibAgent) -> dict[str, Any]:
    learner = agent._algorithm.learner_group._learner
    state: dict[str, Any] = learner.module[DEFAULT_MODULE_ID].get_state(inference_only=True)
    return state


@pytest.mark.parametrize("agent", ["a3c"], indirect=True)
def test_updates_interleave_and_a_killed_worker_comes_back(agent: RllibAgent) -> None:
    algorithm = agent._algorithm
    order: list[int] = []
    while len(order) < 40:
        before = _updates(algorithm)
        algorithm.training_step()
        order += [worker for worker, count in _updates(algorithm).items() if count > before[worker]]
    # In turns, more or less: neither has a long run of updates to itself, and none is of the first
    # parameters for long.
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert set(order) == {1, 2}
    assert changes >= 10

    figures = agent.iterate().figures
    assert figures["staleness"] > 0
    handle = algorithm.env_runner_group._worker_manager.actors()[1]

    def pid() -> int:
        return int(ray.get(handle.apply.remote(lambda worker: os.getpid())))

    killed = pid()
    os.kill(killed, signal.SIGKILL)
    alone = agent.iterate()
    assert alone.steps >= 2000
    for _ in range(20):
        if agent.iterate().figures.get("updates_by_1", 0) > 0:
            break
    else:
        pytest.fail("the killed worker never came back")
    assert pid() != killed


@pytest.mark.parametrize("agent", ["a3c", "impala", "appo"], indirect=True)
def test_what_acts_is_what_was_learned(agent: RllibAgent) -> None:
    first = {name: value.copy() for name, value in agent.weights().items()}
    did = agent.iterate()
    assert did.steps >= 2000
    assert did.figures["value_loss"] > 0
    newest, acts = _weights(agent), agent.weights()
    assert any(not np.array_equal(first[name], value) for name, value in acts.items())
    if agent._job.algorithm.name == "a3c":  # the others go on learning meanwhile
        assert all(np.array_equal(newest[name], value) for name, value in acts.items())
    state = agent.state()
    agent.iterate()
    agent.load(state)
    assert agent.act(np.zeros((5, 4), np.float32)).shape == (5,)
