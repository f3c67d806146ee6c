"""What agents see of images, and the networks that they go through."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core import DEFAULT_MODULE_ID

from dlsys.rl.algorithms.rllib import convolutions
from dlsys.rl.environments import make
from dlsys.rl.rllib import configure
from dlsys.spec.rl.job import Environment, RLJob
from dlsys.spec.rl.policy import PPO


class Seen(gymnasium.Env[Any, Any]):
    """Shows the highest that its space has."""

    action_space = spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...], kind: str, high: float) -> None:
        self.observation_space = spaces.Box(0, high, shape, np.dtype(kind).type)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.high, {}


@pytest.mark.parametrize(
    ("shape", "kind", "high", "seen", "highest"),
    [
        ((8, 6, 3), "uint8", 255, (8, 6, 3), 1.0),
        ((8, 6), "uint8", 255, (8, 6, 1), 1.0),
        ((8, 6, 3), "float32", 2, (8, 6, 3), 2.0),
        ((8,), "uint8", 255, (8,), 255.0),
        ((8,), "float64", 2, (8,), 2.0),
    ],
)
def test_networks_see_float32(
    shape: tuple[int, ...], kind: str, high: float, seen: tuple[int, ...], highest: float
) -> None:
    options = {"shape": shape, "kind": kind, "high": high}
    env = make(Environment(name="test_images:Seen", options=options))
    observation, _ = env.reset()
    assert env.observation_space.shape == observation.shape == seen
    assert env.observation_space.dtype == observation.dtype == np.float32
    assert observation.max() == env.observation_space.high.max() == highest


@pytest.mark.parametrize(("height", "width"), [(84, 84), (10, 10), (210, 160), (3, 7)])
def test_convolutions_end_in_the_hidden_layers(height: int, width: int) -> None:
    told = PPO(name="ppo", hidden=(20, 30))
    filters = convolutions(told, height, width)["conv_filters"]
    *halving, whole, last = filters
    assert all(stride == 2 for _, _, stride in halving)
    assert whole[0] == 20
    assert last == [30, 1, 1, "valid"]
    sizes = [max(-(-side // 2 ** len(halving)), 1) for side in (height, width)]
    assert whole[1] == sizes
    assert min(sizes) <= 5


@pytest.mark.parametrize("name", ["trpo", "a2c", "reinforce", "appo", "impala"])
def test_every_algorithm_that_says_so_takes_images(name: str) -> None:
    told = {"kind": "rl", "name": "x", "algorithm": {"name": name, "hidden": [16, 8]}, "stop": {"epochs": 1}}
    runners = {"resources": {"env_runners": 1}} if name in ("appo", "impala") else {}
    job = RLJob.model_validate(told | runners | {"environment": {"name": "pixels:Catch"}})
    env = make(job.environment)
    seen, actions = env.observation_space, env.action_space
    learner = configure(job, seen).build_learner(spaces={DEFAULT_MODULE_ID: (seen, actions)})
    module: Any = learner.module[DEFAULT_MODULE_ID]
    assert any(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    out = module.forward_inference({"obs": torch.rand(4, 10, 10, 1)})
    assert len(next(iter(out.values()))) == 4
