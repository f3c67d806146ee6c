"""A game of which an agent sees pixels: Catch, as in V. Mnih et al., "Recurrent models of visual attention",
2014 (arXiv:1406.6247).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

_SCALE = 16  # pixels of a picture for each of the game's


class Catch(gymnasium.Env[NDArray[np.uint8], Any]):
    """A ball falls from the top of a square; who has the paddle below it in the last row gets 1.

    Actions move the paddle: 0 to the left, 1 not at all, 2 to the right.

    Args:
        side: of the square, in pixels.
        render_mode: `rgb_array` draws.

    Raises:
        ValueError: it is too small to be seen as an image.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, side: int = 10, render_mode: str | None = None) -> None:
        if side < 8:
            raise ValueError(f"side must be at least 8, got {side}")
        self.side, self.render_mode = side, render_mode
        self.observation_space = spaces.Box(0, 255, (side, side, 1), np.uint8)
        self.action_space = spaces.Discrete(3)
        self._row = self._column = self._paddle = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._row, self._column = 0, int(self.np_random.integers(self.side))
        self._paddle = self.side // 2
        return self._seen(), {}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self._row += 1
        self._paddle = min(max(self._paddle + int(action) - 1, 0), self.side - 1)
        over = self._row == self.side - 1
        return self._seen(), float(over and self._paddle == self._column), over, False, {}

    def _seen(self) -> NDArray[np.uint8]:
        pixels = np.zeros((self.side, self.side, 1), np.uint8)
        pixels[-1, self._paddle] = pixels[self._row, self._column] = 255
        return pixels

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """The square, larger, [height, width, 3]."""
        return self._seen().repeat(_SCALE, 0).repeat(_SCALE, 1).repeat(3, 2)
