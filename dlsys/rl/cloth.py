"""A cloth of particles by position-based dynamics (Müller et al. 2007, https://doi.org/10.1016/j.jvcir.2007.01.005).

It stands in for engines such as NVIDIA's FleX, which use the same method on GPUs, and is none of them.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

GRAVITY = 9.81  # m/s²
# Seconds between two actions, and what is projected within them. The cloth's weight stretches the threads at
# its hands by 8 % so, and by 13 % with fewer and longer substeps that cost as much.
_STEP, _SUBSTEPS, _PASSES = 0.05, 5, 2
_SPEED = 1.0  # m/s, the hands' greatest along each axis
_HEIGHT, _WIDTH = 1.5, 1.0  # m


class Cloth(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Two hands hold the upper corners of a square cloth and are to bring the middle of its hem to a point.

    What is seen is that point, and places (m) and speeds (m/s) of all particles, x, y and z of each, row by
    row from the hands. Actions are the speeds of the two hands along x, y and z, up to 1 m/s. The reward of a
    step is minus the distance, which `info` tells too.

    Args:
        side: particles along each side.
        damping: the share of the speeds that is lost in a second.

    Raises:
        ValueError: a number is out of its range.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, side: int = 5, damping: float = 0.3) -> None:
        if not 2 <= side <= 32 or not 0 <= damping < 1:
            raise ValueError(f"side must be 2 to 32 and damping 0 to below 1, got {side} and {damping}")
        self._side, self._damping = side, damping
        # How much each particle gives way: hands do not.
        self._gives = np.ones((side, side, 1))
        self._gives[0, [0, -1]] = 0
        self.observation_space = spaces.Box(-np.inf, np.inf, (3 + 6 * side * side,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (6,), np.float32)
        self._places = self._speeds = np.zeros((side, side, 3))
        self._target = np.zeros(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        along = np.linspace(0, _WIDTH, self._side)
        self._places = np.zeros((self._side, self._side, 3))
        self._places[..., 0] = along - _WIDTH / 2
        self._places[..., 2] = _HEIGHT - along[:, None]
        self._speeds = np.zeros_like(self._places)
        self._target = self.np_random.uniform([-0.5, -0.5, 0.2], [0.5, 0.5, 0.8])
        return self._seen(), {"distance": self._distance()}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        hands = _SPEED * np.clip(np.asarray(action, np.float64), -1, 1).reshape(2, 3)
        for _ in range(_SUBSTEPS):
            self._advance(hands, _STEP / _SUBSTEPS)
        distance = self._distance()
        return self._seen(), -distance, False, False, {"distance": distance}

    def _advance(self, hands: NDArray[np.float64], seconds: float) -> None:
        speeds = self._speeds * (1 - self._damping) ** seconds
        speeds[..., 2] -= GRAVITY * seconds
        speeds[0, [0, -1]] = hands
        found = self._places + seconds * speeds
        for _ in range(_PASSES):
            for axis in (0, 1):
                for first in (0, 1):  # neighbours in turn, so that no particle is moved by two at once
                    self._project(found, axis, first)
            np.maximum(found[..., 2], 0, out=found[..., 2], where=self._gives[..., 0] > 0)
        self._speeds, self._places = (found - self._places) / seconds, found

    def _project(self, places: NDArray[np.float64], axis: int, first: int) -> None:
        """Brings pairs of neighbours along an axis to the distance that they have at rest."""
        pairs = (self._side - first) // 2
        if not pairs:
            return
        near, far = (slice(first + more, first + 2 * pairs, 2) for more in (0, 1))
        ends = ((near,), (far,)) if axis == 0 else ((slice(None), near), (slice(None), far))
        (one, other), (gives, its) = (places[end] for end in ends), (self._gives[end] for end in ends)
        apart = other - one
        length = np.linalg.norm(apart, axis=-1, keepdims=True)
        share = (length - _WIDTH / (self._side - 1)) / np.maximum(length * (gives + its), 1e-9)
        one += gives * share * apart
        other -= its * share * apart

    def _distance(self) -> float:
        return float(np.linalg.norm(self._places[-1].mean(0) - self._target))

    def _seen(self) -> NDArray[np.float32]:
        parts = (self._target, self._places.ravel(), self._speeds.ravel())
        return np.concatenate(parts).astype(np.float32)
