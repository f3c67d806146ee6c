"""A game of which an agent sees pixels."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Catch(gymnasium.Env[Any, Any]):
    """A ball falls from the top of a square; who has the paddle below it in the last row gets 1."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = spaces.Discrete(3)

    def __init__(self, side: int = 10, render_mode: str | None = None) -> None:
        self.side, self.render_mode = side, render_mode
        self.observation_space = spaces.Box(0, 255, (side, side, 1), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.row, self.column, self.paddle = 0, int(self.np_random.integers(self.side)), self.side // 2
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.row += 1
        self.paddle = min(max(self.paddle + int(action) - 1, 0), self.side - 1)
        over = self.row == self.side - 1
        return self._seen(), float(over and self.paddle == self.column), over, False, {}

    def _seen(self) -> NDArray[np.uint8]:
        pixels = np.zeros(self.observation_space.shape, np.uint8)
        pixels[-1, self.paddle] = pixels[self.row, self.column] = 255
        return pixels

    def render(self) -> Any:
        return np.repeat(self._seen(), 3, axis=2)
