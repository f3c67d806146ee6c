"""What simulators share: they draw an episode so far as lines."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

_HEIGHT, _WIDTH = 120, 400  # pixels
_COLORS = (40, 90, 200), (220, 60, 40), (150, 150, 150)


class Simulator(gymnasium.Env[NDArray[np.float32], Any]):
    """An environment of numbers.

    Args:
        longest: steps of the longest episode.
        render_mode: `rgb_array` draws.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, longest: int, render_mode: str | None) -> None:
        self.render_mode, self._longest = render_mode, longest
        self._lines: list[tuple[float, ...]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._lines = []

    def _mark(self, *values: float) -> None:
        """Where the lines have come to, three at most, in 0 to 1."""
        if self.render_mode is not None:
            self._lines.append(values)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The lines from left to right, [height, width, 3], the first on top; None without a render mode."""
        if self.render_mode is None:
            return None
        pixels = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
        marks = np.clip(self._lines, 0, 1)
        columns = np.arange(len(marks) * _WIDTH // (self._longest + 1))
        for line in reversed(range(marks.shape[1])):
            heights = marks[columns * (self._longest + 1) // _WIDTH, line]
            rows = ((1 - heights) * (_HEIGHT - 3)).astype(np.int64)
            for thick in range(3):
                pixels[rows + thick, columns] = _COLORS[line]
        return pixels
