"""Policies of environments that say what is legal."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from whole_agents import agent


class Legal(gymnasium.Env[Any, Any]):
    """Of three actions, two are legal at a time; one of them pays. What is not legal is refused."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        place=spaces.Box(0, 1, (3,), np.float32), action_mask=spaces.MultiBinary(3)
    )

    def _seen(self) -> dict[str, Any]:
        self.illegal = int(self.np_random.integers(3))
        place = np.eye(3, dtype=np.float32)[self.illegal]
        return {"place": place, "action_mask": (np.arange(3) != self.illegal).astype(np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action != self.illegal, "illegal"
        self.steps += 1
        paid = float(action == (self.illegal + 1) % 3)
        return self._seen(), paid, self.steps == 10, False, {}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a2c", {"batch_size": 64, "lr": 0.02}),
        ("trpo", {"batch_size": 500, "passes": 1}),
        ("reinforce", {"batch_size": 500, "lr": 0.03, "gamma": 0.0, "passes": 1}),
        ("acktr", {"batch_size": 128}),
    ],
)
def test_only_what_is_legal_is_tried_and_the_best_of_it_is_learned(name: str, told: dict[str, Any]) -> None:
    made = agent(name, "test_masked_policies:Legal", hidden=[16], **told)
    returns: list[list[float]] = []
    for _ in range(2 if name in ("a2c", "acktr") else 8):
        did = made.iterate()
        assert all(math.isfinite(value) for value in did.figures.values())
        returns.append(did.returns)
    # By chance it is 5; each illegal one would have raised.
    assert np.mean(returns[-1][-20:]) > 7
