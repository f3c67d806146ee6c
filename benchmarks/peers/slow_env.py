"""CartPole whose steps wait ten milliseconds, as for a simulator elsewhere."""

from __future__ import annotations

import time
from typing import Any

from gymnasium.envs.classic_control import CartPoleEnv

_SECONDS = 0.01


class SlowCartPole(CartPoleEnv):
    def step(self, action: Any) -> Any:
        time.sleep(_SECONDS)
        return super().step(action)
