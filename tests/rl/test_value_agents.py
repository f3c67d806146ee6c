"""Agents with a memory: what they keep, and that they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlsys.rl.evaluate import play
from dlsys.rl.pictures import draw
from dlsys.rl.plain import decode, encode
from dlsys.rl.rllib import RllibAgent, module_of
from dlsys.spec.rl.job import RLJob

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


def _agent(name: str, environment: str, made: dict[str, Any] | None = None, **options: Any) -> RllibAgent:
    few = {"starts": 200, "updates": 0.05, "batch_size": 16, "hidden": (16,), "n_step": 3}
    return RllibAgent(
        RLJob.model_validate(
            {
                "kind": "rl",
                "name": "agent",
                "environment": {"name": environment, "options": made or {}},
                "algorithm": {"name": name, **few, **options},
                "resources": {"envs": 3},
                "stop": {"epochs": 1},
            }
        )
    )


@pytest.mark.parametrize(
    ("name", "environment", "options"),
    [
        ("rainbow", "CartPole-v1", {"capacity": 1500, "atoms": 11}),
        ("dqn", "CartPole-v1", {"double": True, "epsilon_steps": 3000}),
    ],
)
def test_an_agent_that_is_resumed_goes_on_as_one_that_is_not(
    name: str, environment: str, options: dict[str, Any]
) -> None:
    first = _agent(name, environment, **options)
    first.iterate()
    saved = encode(first.state())
    expected = _goes_on(first)
    second = _agent(name, environment, **options)
    second.load(decode(saved))
    found = _goes_on(second)
    for (steps, returns, weights), (steps_again, returns_again, weights_again) in zip(
        expected, found, strict=True
    ):
        assert (steps, returns) == (steps_again, returns_again)
        for part, values in weights.items():
            np.testing.assert_array_equal(values, weights_again[part], err_msg=part)


def _goes_on(agent: RllibAgent) -> list[tuple[int, list[float], dict[str, Any]]]:
    """Two iterations, since what a first checkpoint kept, a second one may have lost."""
    seen = []
    for _ in range(2):
        done = agent.iterate()
        weights = {part: values.copy() for part, values in agent.weights().items()}
        seen.append((done.steps, done.returns, weights))
        agent.state()
    agent.close()
    return seen


@pytest.mark.parametrize(
    ("name", "environment"),
    [("rainbow", "CartPole-v1")],
)
def test_what_is_exported_acts_as_the_agent(name: str, environment: str) -> None:
    agent = _agent(name, environment)
    try:
        agent.iterate()
        seen = agent._algorithm.env_runner.env.observation_space.sample()
        weights = {part: torch.as_tensor(values) for part, values in agent.weights().items()}
        alone = module_of(agent._job, weights).eval()
        with torch.inference_mode():
            np.testing.assert_array_equal(alone(torch.as_tensor(seen)).numpy(), agent.act(seen))
        values = agent.values(seen)
        assert (values is None) == (environment == "Pendulum-v1")
        assert values is None or values.shape == (3,)
    finally:
        agent.close()


def test_pixels_of_a_users_own_environment_are_learned_from_and_drawn(tmp_path: Path) -> None:
    told = {
        "lr": 3e-3,
        "gamma": 0.9,
        "updates": 0.25,
        "batch_size": 64,
        "hidden": (32,),
        "epsilon_steps": 1500,
    }
    agent = _agent("dqn", "pixels:Catch", {"side": 6}, **told)
    try:
        for _ in range(3):
            agent.iterate()
        environment = agent._job.environment
        played = play(agent, environment, 50, sees="vector", seed=0, split="valid")
        assert played.summary()["return"] >= 0.8, "who waits in the middle catches one ball in six"
        assert not draw(agent, environment, tmp_path, gamma=0.9, seed=0, sees="vector")
    finally:
        agent.close()
    assert {path.name for path in tmp_path.iterdir()} == {"episode.gif", "strip.png", "values.png"}
