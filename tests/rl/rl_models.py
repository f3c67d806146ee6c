"""A small environment whose every step is known, and what tests of model-based and evolved agents share."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from dlsys.rl.agent import Agent
from dlsys.rl.plain import decode, encode
from dlsys.spec.rl.job import RLJob


class Point(gymnasium.Env[Any, Any]):
    """A point on a line: an action in ±2 moves it by a tenth, and it pays ten times its distance from 0.

    Beyond 1.5 the episode terminates; after 20 steps it is cut.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (1,))
    action_space = spaces.Box(-2.0, 2.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.place = float(self.np_random.uniform(-1, 1))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.place += float(action[0]) / 10
        return self._seen(), -10 * abs(self.place), abs(self.place) > 1.5, self.steps == 20, {}

    def _seen(self) -> Any:
        return np.array([self.place], np.float32)


def job(
    algorithm: dict[str, Any],
    environment: str = "rl_models:Point",
    options: dict[str, Any] | None = None,
    **more: Any,
) -> RLJob:
    plain = {
        "kind": "rl",
        "name": "x",
        "environment": {"name": environment, "options": options or {}},
        "algorithm": algorithm,
        "stop": {"epochs": 1},
    }
    return RLJob.model_validate(plain | more)


def check_resumes_exactly(whole: Agent, other: Agent) -> None:
    """Two iterations, a state, and two more by either of two agents of one job: the same."""
    for _ in range(2):
        whole.iterate()
    # A file holds a copy.
    other.load(decode(copy.deepcopy(encode(whole.state()))))
    for _ in range(2):
        expected, found = whole.iterate(), other.iterate()
        assert found.figures == expected.figures
        assert found.returns == expected.returns
    for name, value in whole.weights().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.weights()[name])), name
