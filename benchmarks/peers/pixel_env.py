"""A game of 84 × 84 pixels whose own steps cost little: a ball falls, and a paddle catches it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

_SIDE, _STEP, _FRAMES = 84, 4, 4


class Pixels(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(0, 255, (_SIDE, _SIDE, _FRAMES), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.row, self.column = 0, int(self.np_random.integers(_SIDE - _STEP))
        self.paddle = _SIDE // 2
        self.seen = np.zeros(self.observation_space.shape, np.uint8)
        return self._shown(), {}

    def step(self, action: Any) -> Any:
        self.row += _STEP
        self.paddle = int(np.clip(self.paddle + (int(action) - 1) * _STEP, 0, _SIDE - _STEP))
        over = self.row >= _SIDE - _STEP
        caught = abs(self.paddle - self.column) < 2 * _STEP
        return self._shown(), float(over and caught), over, False, {}

    def _shown(self) -> Any:
        frame = np.zeros((_SIDE, _SIDE), np.uint8)
        frame[self.row : self.row + _STEP, self.column : self.column + _STEP] = 255
        frame[-_STEP:, self.paddle : self.paddle + _STEP] = 128
        self.seen = np.concatenate([self.seen[..., 1:], frame[..., None]], -1)
        return self.seen
