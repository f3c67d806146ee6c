"""Env runners in processes of Ray: what they sample, their deaths, and the errors of environments in them."""

from __future__ import annotations

import copy
import os
import signal
from typing import Any

import numpy as np
import pytest
import ray
from rl_models import job

from dlsys.errors import WorkloadError
from dlsys.rl.algorithms.ppo import PPOAgent
from dlsys.rl.plain import decode, encode
from dlsys.spec.rl.job import RLJob

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


def told(environment: str = "CartPole-v1", **more: Any) -> RLJob:
    resources = {"env_runners": 2, "envs": 2, "cpus": 0.5}
    algorithm = {"name": "ppo", "batch_size": 128, "passes": 1, "hidden": [8]}
    return job(algorithm, environment, resources=resources, **more)


def test_two_runners_sample_go_on_exactly_and_come_back() -> None:
    whole, other = PPOAgent(told()), PPOAgent(told())
    try:
        first = whole.iterate()
        assert first.steps == 128
        other.load(decode(copy.deepcopy(encode(whole.state()))))
        expected, found = whole.iterate(), other.iterate()
        assert (expected.returns, expected.figures) == (found.returns, found.figures)
        assert whole.runners.count == 4
        rollout, new = whole.runners.sample(8, 500)
        assert rollout.rewards.shape == (8, 4)
        assert new == [False] * 4
        assert not np.array_equal(rollout.seen["numbers"][:, 0], rollout.seen["numbers"][:, 2])

        lost = ray.get(ray.remote(_pid_of).remote(whole.runners.remote.handles[0]))
        os.kill(lost, signal.SIGKILL)
        rollout, new = whole.runners.sample(8, 600)
        assert rollout.rewards.shape == (8, 4)
        assert new == [True, True, False, False]
    finally:
        whole.close()
        other.close()


def _pid_of(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda of: os.getpid())))


def test_an_error_of_an_environment_is_told_as_the_users() -> None:
    agent = PPOAgent(told("memory_tasks:Flaky"))
    try:
        with pytest.raises(WorkloadError, match="KeyError: 'no prices for this day'") as caught:
            agent.iterate()
        assert "memory_tasks.py" in caught.value.traceback
        assert "site-packages/ray" not in caught.value.traceback
    finally:
        agent.close()
