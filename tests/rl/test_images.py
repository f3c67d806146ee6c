"""What agents see of images, and the networks that they go through."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core import DEFAULT_MODULE_ID

from dlsys.errors import UsageError
from dlsys.rl.algorithms.rllib import convolutions
from dlsys.rl.environments import make
from dlsys.rl.networks import Convolutions, Features
from dlsys.rl.observations import Observations
from dlsys.rl.rllib import configure
from dlsys.spec.rl.job import Environment, RLJob
from dlsys.spec.rl.policy import IMPALA


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
        ((12, 10, 3), "uint8", 255, (12, 10, 3), 1.0),
        ((3, 12, 10), "uint8", 255, (12, 10, 3), 1.0),
        ((12, 10), "uint8", 255, (12, 10, 1), 1.0),
        ((12, 10, 3), "float32", 2, (12, 10, 3), 2.0),
        ((12, 6), "float32", 3, (72,), 3.0),
        ((8,), "uint8", 255, (8,), 1.0),
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
    told = IMPALA(name="impala", hidden=(20, 30))
    filters = convolutions(told, height, width)["conv_filters"]
    *halving, whole, last = filters
    assert all(stride == 2 for _, _, stride in halving)
    assert whole[0] == 20
    assert last == [30, 1, 1, "valid"]
    sizes = [max(-(-side // 2 ** len(halving)), 1) for side in (height, width)]
    assert whole[1] == sizes
    assert min(sizes) <= 5


@pytest.mark.parametrize("name", ["appo", "impala"])
def test_the_librarys_networks_take_images(name: str) -> None:
    told = {"kind": "rl", "name": "x", "algorithm": {"name": name, "hidden": [16, 8]}, "stop": {"epochs": 1}}
    more = {"resources": {"env_runners": 1}, "environment": {"name": "dlsys/Catch-v0"}}
    job = RLJob.model_validate(told | more)
    env = make(job.environment)
    seen, actions = env.observation_space, env.action_space
    learner = configure(job, seen).build_learner(spaces={DEFAULT_MODULE_ID: (seen, actions)})
    module: Any = learner.module[DEFAULT_MODULE_ID]
    assert any(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    out = module.forward_inference({"obs": torch.rand(4, 10, 10, 1)})
    assert len(next(iter(out.values()))) == 4


def layers(told: dict[str, Any], shape: tuple[int, int, int], **model: Any) -> Convolutions:
    plain = {"kind": "rl", "name": "x", "algorithm": {"name": "ppo"}, "stop": {"epochs": 1}, "model": model}
    job = RLJob.model_validate(plain | {"environment": {"name": "x:Y"}} | told)
    features = Features(Observations(spaces.Box(0, 255, shape, np.uint8)), job)
    (found,) = features.images.values()
    assert isinstance(found, Convolutions)
    assert features({"image": torch.zeros(2, *shape, dtype=torch.uint8)}).shape == (2, features.width), (
        "it knows how wide it is"
    )
    return found


@pytest.mark.parametrize("shape", [(84, 84, 4), (10, 10, 1), (210, 160, 3), (9, 40, 3)])
def test_ours_halve_an_image_until_few_numbers_are_left(shape: tuple[int, int, int]) -> None:
    found = layers({}, shape)
    halvings = [layer for layer in found.layers if isinstance(layer, torch.nn.Conv2d)]
    side = min(shape[:2])
    for _ in halvings:
        assert side > 5
        side = -(-side // 2)
    assert side <= 5


def test_filters_of_ones_own() -> None:
    found = layers({}, (84, 84, 4), filters=[[32, 8, 4], [64, 4, 2], [64, 3, 1]])
    assert found.width == 64 * 7 * 7, "as Mnih et al. 2015 had it"
    with pytest.raises(UsageError, match="a filter of 8 does not fit what is left"):
        layers({}, (10, 10, 1), filters=[[8, 3, 2], [8, 8, 1]])


def test_bytes_are_scaled_where_they_are_used_and_kept_as_bytes() -> None:
    found = layers({}, (10, 10, 1))
    pixels = torch.randint(256, (2, 10, 10, 1), dtype=torch.uint8)
    scaled = found.layers((pixels.float() / 255).movedim(-1, 1))
    torch.testing.assert_close(found(pixels), scaled)
