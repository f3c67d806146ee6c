"""CartPole that takes a millisecond of the processor for each step, as a simulator does."""

from __future__ import annotations

import time
from typing import Any

from gymnasium.envs.classic_control import CartPoleEnv

_SECONDS = 0.001


class SlowCartPole(CartPoleEnv):
    def step(self, action: Any) -> Any:
        done = time.perf_counter() + _SECONDS
        found = super().step(action)
        while time.perf_counter() < done:
            pass
        return found
